package dockerfile

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// A stage is a Stage that is being made.
type stage struct {
	Stage
	p     *planner
	draft int
	scope *scope

	shell   []string // of SHELL; nil: nothing was said
	workdir string   // absolute; empty: not known
	cmd     bool     // this stage, not one it begins with, has a CMD
}

// stage makes a stage of the draft i.
func (p *planner) stage(i int) (*stage, error) {
	d := p.drafts[i]
	s := &stage{p: p, draft: i, scope: newScope(true)}
	s.Stage = Stage{Name: d.name, From: d.image, FromStage: -1, Line: d.from.line}
	if d.base >= 0 {
		base := p.drafts[d.base]
		s.scope = &scope{vars: maps.Clone(base.made.scope.vars), bytes: base.made.scope.bytes, image: true}
		s.shell, s.workdir = base.made.shell, base.made.workdir
		s.FromStage, s.Entrypoint, s.Cmd, s.Ready = base.index, base.made.Entrypoint, base.made.Cmd, base.made.Ready
	}
	for _, in := range d.body {
		if err := s.do(in); err != nil {
			return nil, err
		}
	}
	s.Start = StartCommand(s.Entrypoint, s.Cmd)
	return s, nil
}

// do adds what an instruction says to the stage.
func (s *stage) do(in instruction) error {
	switch in.name {
	case "ARG":
		return s.p.arg(in, s.scope, s.p.global)
	case "ENV":
		return s.env(in)
	case "WORKDIR":
		return s.chdir(in)
	case "USER":
		return s.user(in)
	case "RUN":
		return s.run(in)
	case "COPY", "ADD":
		return s.copy(in)
	case "SHELL":
		return s.setShell(in)
	case "CMD":
		s.Cmd, s.cmd = s.command(in, in.args), true
	case "ENTRYPOINT":
		s.Entrypoint = s.command(in, in.args)
		if !s.cmd {
			s.Cmd = nil
		}
	case "HEALTHCHECK":
		return s.healthcheck(in)
	case "EXPOSE", "LABEL", "MAINTAINER": // every port can be reached, and nobody would see the others
	case "VOLUME":
		s.p.warn(in.line, "VOLUME is passed over: its files are kept like all others of the template and of a sandbox")
	case "STOPSIGNAL":
		s.p.warn(in.line, "STOPSIGNAL is passed over: a sandbox ends without a signal to its processes")
	case "ONBUILD":
		return refuse(in.line, "ONBUILD is not supported: no image comes of this build; write the instruction where it is to be done")
	default:
		return refuse(in.line, "%q is no instruction", oneLine(in.name))
	}
	return nil
}

// add appends a step.
func (s *stage) add(in instruction, step Step) error {
	if s.p.steps++; s.p.steps > maxSteps {
		return refuse(in.line, "a Dockerfile can have %d steps, and each source of a COPY is one", maxSteps)
	}
	step.Line, step.Text = in.line, in.text
	if step.From == "" {
		step.FromStage = -1
	}
	s.Steps = append(s.Steps, step)
	return nil
}

// known expands a word whose value must be known; what says what it is.
func (s *stage) known(in instruction, what, word string) (string, error) {
	v, err := s.p.expand(in, s.scope, word)
	if err != nil {
		return "", err
	}
	text, name := v.plain()
	if name != "" {
		return "", refuse(in.line, "%s depends on %s, which only the image can define; define it with ARG or ENV", what, name)
	}
	return text, nil
}

// render returns a value as an argument of a step.
func render(in instruction, v value) (string, error) {
	text, ok := v.render()
	if !ok {
		return "", refuse(in.line, "a backslash before the reference to a variable of the image is not supported")
	}
	return text, nil
}

// open expands a word that the builder will finish.
func (s *stage) open(in instruction, word string) (string, error) {
	v, err := s.p.expand(in, s.scope, word)
	if err != nil {
		return "", err
	}
	return render(in, v)
}

// env is ENV. Its values see the variables from before it.
func (s *stage) env(in instruction) error {
	if len(in.args) == 0 {
		return refuse(in.line, "ENV names nothing")
	}
	var args []string
	set := map[string]variable{}
	for pair := range slices.Chunk(in.args, 3) { // the third is the character between them
		name, err := s.known(in, "the name of a variable", pair[0])
		if err != nil {
			return err
		}
		if name == "" || strings.ContainsRune(name, '=') {
			return refuse(in.line, "%q cannot be the name of a variable", oneLine(name))
		}
		v, err := s.p.expand(in, s.scope, pair[1])
		if err != nil {
			return err
		}
		arg, err := render(in, v)
		if err != nil {
			return err
		}
		text, unknown := v.plain()
		set[name] = variable{value: text, open: unknown != ""}
		args = append(args, name, arg)
	}
	for name, v := range set {
		if !s.scope.set(name, v) {
			return tooMuch(in)
		}
	}
	return s.add(in, Step{Type: Env, Args: args})
}

// chdir is WORKDIR. One that is not absolute goes on from the one before; if
// that is not known, the builder sees to it.
func (s *stage) chdir(in instruction) error {
	v, err := s.p.expand(in, s.scope, strings.Join(in.args, " "))
	if err != nil {
		return err
	}
	dir, unknown := v.plain()
	switch {
	case unknown != "":
		s.workdir = ""
	case dir == "":
		return refuse(in.line, "WORKDIR names no directory")
	case path.IsAbs(dir) || s.workdir != "":
		if !path.IsAbs(dir) {
			dir = path.Join(s.workdir, dir)
		}
		s.workdir = path.Clean(dir)
		v = literal(s.workdir)
	}
	arg, err := render(in, v)
	if err != nil {
		return err
	}
	return s.add(in, Step{Type: Workdir, Args: []string{arg}})
}

func (s *stage) user(in instruction) error {
	name, err := s.open(in, strings.Join(in.args, " "))
	if err != nil {
		return err
	}
	if name == "" {
		return refuse(in.line, "USER names nobody")
	}
	return s.add(in, Step{Type: User, Args: []string{name}})
}

// healthcheck is HEALTHCHECK: what tells whether the start command works tells
// when it is ready. How often it is asked is the builder's business.
func (s *stage) healthcheck(in instruction) error {
	if len(in.args) == 0 {
		return refuse(in.line, "HEALTHCHECK is followed by CMD or NONE")
	}
	switch args := in.args[1:]; strings.ToUpper(in.args[0]) {
	case "NONE":
		s.Ready = ""
		return nil
	case "CMD":
		if s.Ready = StartCommand(nil, s.command(in, args)); s.Ready != "" {
			return nil
		}
		return refuse(in.line, "HEALTHCHECK CMD is followed by a command")
	}
	return refuse(in.line, "HEALTHCHECK is followed by CMD or NONE")
}
