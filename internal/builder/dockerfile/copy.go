package dockerfile

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// rootOwner is whose files are that a COPY brings from outside the build.
const rootOwner = "0:0"

// inlineMode is the mode of a file that a here-document becomes.
const inlineMode = "0644"

// copy is COPY and ADD: a step for each source, because one is all a step of
// the protocol has.
func (s *stage) copy(in instruction) error {
	if len(in.args) < 2 {
		return refuse(in.line, "%s is followed by what is to be copied, and by where to", in.name)
	}
	if err := copyFlags(in); err != nil {
		return err
	}
	sources := in.args[:len(in.args)-1]
	step, err := s.copyTo(in, len(sources))
	if err != nil {
		return err
	}
	for _, source := range sources {
		one := step
		one.Args = append([]string{}, step.Args...)
		if doc, ok := document(in, source); ok {
			one.Args[0] = doc.Name
			if one.Content, err = s.content(in, doc); err != nil {
				return err
			}
			if one.Args[3] == "" {
				one.Args[3] = inlineMode
			}
			one.From, one.FromStage = "", -1
		} else if one.Args[0], err = s.source(in, source); err != nil {
			return err
		}
		if one.From == "" && one.Args[2] == "" {
			one.Args[2] = rootOwner
		}
		if err := s.add(in, one); err != nil {
			return err
		}
	}
	return nil
}

// copyFlags refuses what would copy something else.
func copyFlags(in instruction) error {
	switch {
	case in.flags["exclude"] != nil:
		return refuse(in.line, "%s --exclude is not supported: name what is to be copied, or leave files out with .dockerignore", in.name)
	case in.flags.get("parents") == "true":
		return refuse(in.line, "COPY --parents is not supported: copy each directory to its place")
	case in.flags["checksum"] != nil || in.flags["keep-git-dir"] != nil:
		return refuse(in.line, "ADD from a URL is not supported: download it with RUN")
	case in.flags.get("unpack") == "true":
		return refuse(in.line, "ADD --unpack is not supported: COPY the archive and unpack it with RUN")
	}
	return nil
}

// copyTo returns the step of a COPY without its source.
func (s *stage) copyTo(in instruction, sources int) (Step, error) {
	step := Step{Type: Copy, FromStage: -1, From: in.flags.get("from")}
	if step.From != "" {
		i, err := s.p.source(in, s.draft)
		if err != nil {
			return step, err
		}
		if i >= 0 {
			step.FromStage = s.p.drafts[i].index
		}
	}
	last := in.args[len(in.args)-1]
	if parser.MustParseHeredoc(last) != nil && !in.json {
		return step, refuse(in.line, "%s cannot copy to a here-document", in.name)
	}
	dest, err := s.open(in, last)
	if err != nil {
		return step, err
	}
	if dest == "" || dest == "." {
		dest = "./"
	}
	if sources > 1 && !strings.HasSuffix(dest, "/") {
		return step, refuse(in.line, "%s of more than one source goes to a directory: end %q with a /", in.name, oneLine(last))
	}
	owner, err := s.open(in, in.flags.get("chown"))
	if err != nil {
		return step, err
	}
	mode, err := s.mode(in)
	if err != nil {
		return step, err
	}
	step.Args = []string{"", dest, owner, mode}
	return step, nil
}

var symbolicMode = regexp.MustCompile(`^[ugoa]*([-+=][rwxXstugo]*)+(,[ugoa]*([-+=][rwxXstugo]*)+)*$`)

// mode returns what --chmod says.
func (s *stage) mode(in instruction) (string, error) {
	v, err := s.p.expand(in, s.scope, in.flags.get("chmod"))
	if err != nil {
		return "", err
	}
	if text, unknown := v.plain(); text != "" && unknown == "" && !symbolicMode.MatchString(text) {
		if n, err := strconv.ParseUint(text, 8, 32); err != nil || n > 0o7777 {
			return "", refuse(in.line, "--chmod=%s is no mode: it is octal, up to 7777, or like u=rwX,go=rX", oneLine(text))
		}
	}
	return render(in, v)
}

var archive = regexp.MustCompile(`(?i)\.(tar|tar\.(gz|bz2|xz|zst)|tgz|tbz2?|txz|tzst)$`)

// source returns a source's path.
func (s *stage) source(in instruction, word string) (string, error) {
	text, err := s.known(in, "the source "+oneLine(word), word)
	if err != nil {
		return "", err
	}
	switch {
	case text == "":
		return "", refuse(in.line, "the source %s is empty", oneLine(word))
	case strings.Contains(text, "://") || strings.HasPrefix(text, "git@"):
		return "", refuse(in.line, "%s from a URL is not supported: download it with RUN", in.name)
	case in.name == "ADD" && in.flags.get("unpack") == "" && archive.MatchString(text):
		return "", refuse(in.line, "ADD of an archive is not supported: COPY it and unpack it with RUN, or write ADD --unpack=false")
	}
	return text, nil
}

// document returns the here-document that a source is, if it is one.
func document(in instruction, source string) (parser.Heredoc, bool) {
	if in.json {
		return parser.Heredoc{}, false
	}
	doc := parser.MustParseHeredoc(source)
	if doc == nil {
		return parser.Heredoc{}, false
	}
	for _, d := range in.heredocs {
		if d.Name == doc.Name {
			return d, true
		}
	}
	return parser.Heredoc{}, false
}

// content returns what is in a here-document. References count unless a part
// of its delimiter is quoted; quotes in it are characters like others.
func (s *stage) content(in instruction, doc parser.Heredoc) ([]byte, error) {
	text := doc.Content
	if doc.Chomp {
		text = parser.ChompHeredocContent(text)
	}
	if !doc.Expand {
		return []byte(text), nil
	}
	e := expander{scope: s.scope, escape: '\\', budget: &s.p.budget}
	v, err := e.expand(text)
	if err != nil {
		return nil, refuse(in.line, "in the here-document %s: %s", oneLine(doc.Name), err)
	}
	text, unknown := v.plain()
	if unknown != "" {
		return nil, refuse(in.line, "the here-document %s refers to %s, which only the image can define: define it with ARG or ENV, or write <<'%s' to keep dollar signs",
			oneLine(doc.Name), unknown, oneLine(doc.Name))
	}
	return []byte(text), nil
}
