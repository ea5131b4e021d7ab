// Package plan turns the order of a build into steps that can be carried out:
// each with the user, the directory and the variables in force when its turn
// comes, and with a key that names everything that led to its result.
//
// It is pure: it reads no file, asks no sandbox and starts no goroutines. Only
// package builder imports it.
package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"maps"
	"path"
	"slices"
	"strings"

	cove "github.com/cove-sandbox/cove"
)

// Start is what a build begins with.
type Start struct {
	Key   string // names the files
	Setup cove.Setup
}

// Step is a step of a build with what it needs to be carried out.
type Step struct {
	cove.BuildStep
	Number int    // from 1
	Key    string // of this step's result
	Forced bool   // an earlier result must not be used

	// In force when it runs.
	User    string
	Workdir string // absolute; empty: the user's home
	Env     map[string]string
}

// Works reports whether the step changes files; one that does not only changes
// what the later ones are run with.
func (s Step) Works() bool { return s.Type != cove.EnvStep }

// Text is the step as a line of a log.
func (s Step) Text() string {
	args := slices.DeleteFunc(slices.Clone(s.Args), func(a string) bool { return a == "" })
	if s.Type == cove.RunStep && len(args) == 2 {
		args[1] = "(as " + args[1] + ")"
	}
	text := strings.Join(args, " ")
	text = strings.Join(strings.Fields(text), " ")
	const most = 200
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "..."
	}
	return string(s.Type) + " " + text
}

// Plan is a whole build.
type Plan struct {
	Steps []Step
	Setup cove.Setup // what the build hands on
	Files string     // key of the files in the end
}

// Make plans a build. The error is Invalid and names the step.
func Make(start Start, order cove.BuildOrder) (*Plan, error) {
	p := &Plan{Setup: clone(start.Setup), Files: start.Key}
	forced := order.Force
	for i, step := range order.Steps {
		forced = forced || step.Force
		s := Step{BuildStep: step, Number: i + 1, Forced: forced}
		if err := p.add(s); err != nil {
			return nil, cove.E(cove.Invalid, "plan.Make", nil, "step %d: %s", s.Number, err)
		}
	}
	if order.Start != "" {
		p.Setup.Start, p.Setup.Ready = order.Start, ""
	}
	if order.Ready != "" {
		p.Setup.Ready = order.Ready
	}
	return p, nil
}

func clone(s cove.Setup) cove.Setup {
	s.Env, s.BuildEnv = maps.Clone(s.Env), maps.Clone(s.BuildEnv)
	if s.BuildEnv == nil {
		s.BuildEnv = map[string]string{}
	}
	return s
}

// arities are how many arguments the types of steps take.
func arities(t cove.StepType) (least, most int, ok bool) {
	switch t {
	case cove.CopyStep:
		return 2, 4, true
	case cove.RunStep:
		return 1, 2, true
	case cove.EnvStep:
		return 2, 2000, true
	case cove.WorkdirStep:
		return 1, 1, true
	case cove.UserStep:
		return 1, 2, true // the second says whether the user may use sudo, which all may
	}
	return 0, 0, false
}

// add appends a step and lets it change what the next ones run with.
func (p *Plan) add(s Step) error {
	least, most, ok := arities(s.Type)
	if !ok {
		return fmt.Errorf("the type %q is not known: COPY, RUN, ENV, WORKDIR and USER are", s.Type)
	}
	if n := len(s.Args); n < least || n > most || s.Type == cove.EnvStep && n%2 != 0 {
		return fmt.Errorf("%s cannot have %d arguments", s.Type, n)
	}
	if s.Type == cove.CopyStep && !cove.FilesHashValid(s.FilesHash) {
		return fmt.Errorf("COPY names no files: filesHash must be a SHA-256 in lower-case hexadecimal")
	}
	s.Args = slices.Clone(s.Args)
	p.Files = key(p.Files, s)
	s.Key = p.Files
	s.User, s.Workdir, s.Env = p.Setup.User, p.Setup.Workdir, p.Setup.Vars()
	switch s.Type {
	case cove.EnvStep:
		if err := p.setEnv(s.Args); err != nil {
			return err
		}
	case cove.WorkdirStep:
		s.Args[0] = p.dir(expand(s.Args[0], s.Env))
		p.Setup.Workdir = s.Args[0]
	case cove.UserStep:
		s.Args[0] = expand(s.Args[0], s.Env)
		if s.Args[0] == "" || strings.HasPrefix(s.Args[0], "-") || strings.ContainsAny(s.Args[0], " \n/") {
			return fmt.Errorf("%q cannot be the name of a user", s.Args[0])
		}
		p.Setup.User = s.Args[0]
	case cove.CopyStep:
		s.Args[1] = expand(s.Args[1], s.Env)
	}
	p.Steps = append(p.Steps, s)
	return nil
}

// setEnv adds pairs of names and values. All values see the variables from
// before the step, as in a Dockerfile.
func (p *Plan) setEnv(pairs []string) error {
	before := p.Setup.Vars()
	for i := 0; i < len(pairs); i += 2 {
		name := pairs[i]
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return fmt.Errorf("%q cannot be the name of a variable", name)
		}
		p.Setup.BuildEnv[name] = expand(pairs[i+1], before)
	}
	return nil
}

// dir returns a working directory as an absolute path.
func (p *Plan) dir(to string) string {
	if path.IsAbs(to) {
		return path.Clean(to)
	}
	return path.Join(cmp.Or(p.Setup.Workdir, home(p.Setup.User)), to)
}

// home returns where a user's home is by custom; only a sandbox knows.
func home(user string) string {
	switch user, _, _ = strings.Cut(user, ":"); user {
	case "root", "0":
		return "/root"
	}
	return path.Join("/home", user)
}

// Dir returns the directory that the step's relative paths begin in.
func (s Step) Dir() string { return cmp.Or(s.Workdir, home(s.User)) }

// expand puts values in the places of $NAME and ${NAME}; what has no value
// becomes nothing, as in a Dockerfile. A backslash keeps a dollar sign.
func expand(s string, env map[string]string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && s[i+1] == '$':
			out.WriteByte('$')
			i++
		case c != '$':
			out.WriteByte(c)
		default:
			name, length := variable(s[i+1:])
			if length == 0 {
				out.WriteByte('$')
				continue
			}
			out.WriteString(env[name])
			i += length
		}
	}
	return out.String()
}

// variable reads a name, perhaps in braces, from the beginning of s, and returns
// how many bytes it takes; 0: there is none.
func variable(s string) (name string, length int) {
	if inner, ok := strings.CutPrefix(s, "{"); ok {
		if end := strings.IndexByte(inner, '}'); end > 0 && nameLength(inner[:end]) == end {
			return inner[:end], end + 2
		}
		return "", 0
	}
	n := nameLength(s)
	return s[:n], n
}

func nameLength(s string) int {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return i
		}
	}
	return len(s)
}

// key names the result of a step by what it began with and what it did.
func key(before string, s Step) string {
	h := sha256.New()
	part(h, before)
	part(h, string(s.Type))
	part(h, s.FilesHash)
	for _, a := range s.Args {
		part(h, a)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// part adds a string with its length, so that no two lists of strings are the
// same bytes.
func part(h hash.Hash, s string) {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(s)))
	h.Write(length[:])
	h.Write([]byte(s))
}

// Key names a value made of parts.
func Key(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		part(h, p)
	}
	return hex.EncodeToString(h.Sum(nil))
}
