package dockerfile

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// run is RUN.
func (s *stage) run(in instruction) error {
	if err := s.runFlags(in); err != nil {
		return err
	}
	command := ""
	switch text := strings.Join(in.args, " "); {
	case in.json:
		command = quoteAll(in.args)
	case len(in.heredocs) > 0:
		command = s.heredoc(text, in.heredocs)
	default:
		command = s.inShell(text)
	}
	if command == "" {
		return refuse(in.line, "RUN has no command")
	}
	return s.add(in, Step{Type: Run, Args: []string{command}, Env: s.runEnv()})
}

// runEnv returns the arguments that a command sees; nil: none.
func (s *stage) runEnv() map[string]string {
	env := map[string]string{}
	for _, name := range proxies() {
		if text, ok := s.p.opts.Args[name]; ok {
			env[name] = text
		}
	}
	for name, v := range s.scope.vars {
		if v.arg {
			env[name] = v.value
		} else {
			delete(env, name)
		}
	}
	if len(env) == 0 {
		return nil
	}
	return env
}

// runFlags refuses what a command would not work without.
func (s *stage) runFlags(in instruction) error {
	for _, mount := range in.flags["mount"] {
		kind := "bind"
		for field := range strings.SplitSeq(mount, ",") {
			if key, of, _ := strings.Cut(field, "="); strings.EqualFold(strings.Trim(key, `" `), "type") {
				kind = strings.ToLower(strings.Trim(of, `" `))
			}
		}
		switch kind {
		case "cache":
			s.p.warn(in.line, "RUN --mount=type=cache is passed over: what the command writes there stays in the template")
		case "tmpfs":
			s.p.warn(in.line, "RUN --mount=type=tmpfs is passed over: what the command writes there stays in the template")
		case "bind":
			return refuse(in.line, "RUN --mount=type=bind is not supported: copy what the command needs with COPY before it")
		case "secret", "ssh":
			return refuse(in.line, "RUN --mount=type=%s is not supported: a build gets no secrets; let the sandbox fetch what needs one", kind)
		default:
			return refuse(in.line, "RUN --mount=type=%s is not supported", oneLine(kind))
		}
	}
	if n := in.flags.get("network"); n != "" && n != "default" {
		return refuse(in.line, "RUN --network=%s is not supported: commands have the network of a sandbox", oneLine(n))
	}
	if m := in.flags.get("security"); m != "" && m != "sandbox" {
		return refuse(in.line, "RUN --security=%s is not supported: commands run in a sandbox", oneLine(m))
	}
	if in.flags["device"] != nil {
		return refuse(in.line, "RUN --device is not supported: a sandbox has no devices of the host")
	}
	return nil
}

// heredoc returns the command of a RUN with here-documents. If it is nothing
// but one, that is a script; else it is for the shell to read.
func (s *stage) heredoc(text string, docs []parser.Heredoc) string {
	if parser.MustParseHeredoc(text) == nil {
		for _, d := range docs {
			text += "\n" + d.Content + d.Name
		}
		return s.inShell(text)
	}
	script := docs[0].Content
	if docs[0].Chomp {
		script = parser.ChompHeredocContent(script)
	}
	if !strings.HasPrefix(script, "#!") {
		return s.inShell(script)
	}
	end := "END"
	for strings.Contains("\n"+script, "\n"+end+"\n") {
		end += "_"
	}
	return `script=$(mktemp) && cat > "$script" <<'` + end + `' && chmod 0700 "$script" && "$script"; status=$?; rm -f "$script"; exit $status` +
		"\n" + script + end + "\n"
}

// setShell is SHELL.
func (s *stage) setShell(in instruction) error {
	if !in.json || len(in.args) == 0 {
		return refuse(in.line, "SHELL is followed by a JSON array of strings")
	}
	last := in.args[len(in.args)-1]
	known := slices.Contains([]string{"sh", "bash", "dash", "ash", "ksh", "zsh"}, path.Base(in.args[0]))
	if !known || len(in.args) < 2 || !strings.HasPrefix(last, "-") || !strings.Contains(last, "c") {
		return refuse(in.line, `SHELL is supported for sh, bash and their kin, with -c at the end, as in ["/bin/bash", "-o", "pipefail", "-c"]`)
	}
	s.shell = in.args
	return nil
}

// inShell returns a command in the shell that SHELL chose. Steps are run by
// bash already, which does for sh too.
func (s *stage) inShell(text string) string {
	if text == "" || s.shell == nil || plainShell(s.shell) {
		return text
	}
	return quoteAll(append(slices.Clone(s.shell), text))
}

// plainShell reports whether argv is a shell and -c.
func plainShell(argv []string) bool {
	base := path.Base(argv[0])
	return len(argv) == 2 && (base == "sh" || base == "bash") && argv[1] == "-c"
}

// command returns the argv of CMD and its like as an image would keep it; it is
// not nil, because then nothing would have been said.
func (s *stage) command(in instruction, args []string) []string {
	switch text := strings.Join(args, " "); {
	case in.json || text == "":
		return append([]string{}, args...)
	case s.shell != nil:
		return append(slices.Clone(s.shell), text)
	default:
		return []string{"/bin/sh", "-c", text}
	}
}

// argument is where a shell's script looks at what follows it on the command
// line.
var argument = regexp.MustCompile(`\$\{?[#0-9@*]`)

// StartCommand returns the command that ENTRYPOINT and CMD are together, for a
// shell to run; empty: there is none. Both are as an image keeps them, so the
// image's can be put in where a Dockerfile says nothing.
func StartCommand(entrypoint, cmd []string) string {
	argv := slices.Concat(entrypoint, cmd)
	if len(argv) < 3 || !plainShell(argv[:2]) || len(argv) > 3 && argument.MatchString(argv[2]) {
		return quoteAll(argv)
	}
	return argv[2] // the others would be the arguments of a script that does not look at them
}

// bare is what a shell takes as it is.
var bare = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// quoteAll returns the command that runs argv.
func quoteAll(argv []string) string {
	words := make([]string, len(argv))
	for i, a := range argv {
		words[i] = a
		if !bare.MatchString(a) || i == 0 && (strings.ContainsRune(a, '=') || slices.Contains(reserved(), a)) {
			words[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// reserved are the words a command cannot begin with, unless they are quoted.
func reserved() []string {
	return strings.Fields("if then else elif fi for while until do done case esac in select function time coproc")
}
