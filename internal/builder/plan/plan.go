// Package plan turns the order of a build into steps that can be carried out:
// each with the user, the directory and the variables in force when its turn
// comes, and with a key that names everything that led to its result.
//
// Steps are those of the template protocol, or of a stage of a Dockerfile. It is
// pure: it reads no file, asks no sandbox and starts no goroutines. Only package
// builder imports it.
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
	"regexp"
	"slices"
	"strings"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder/dockerfile"
)

// Start is what a build begins with.
type Start struct {
	Key   string // names the files
	Setup cove.Setup
}

// Step is a step of a build with what it needs to be carried out.
type Step struct {
	cove.BuildStep
	Number int    // from 1; in a Dockerfile it goes on from stage to stage
	Label  string // of its lines in a log: what it is a step of, which one, of how many
	Key    string // of this step's result
	Forced bool   // an earlier result must not be used

	// Of a step of a Dockerfile only.
	Line    int               // where it stands, from 1; 0: it is none
	Written string            // the instruction in one line
	Extra   map[string]string // variables of a RUN beside Env, over which they win
	Content []byte            // of the file that a COPY writes; nil: it copies
	Source  *Source           // what a COPY copies from; nil: FilesHash or Content

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
	if s.Written != "" {
		return s.Written
	}
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

// Make plans a build by steps of the protocol. The error is Invalid and names
// the step.
func Make(start Start, order cove.BuildOrder) (*Plan, error) {
	var steps []Step
	for i, s := range order.Steps {
		steps = append(steps, Step{BuildStep: s, Number: i + 1, Label: fmt.Sprintf("[builder %d/%d]", i+1, len(order.Steps))})
	}
	p, err := makeOf(start, steps, order.Force)
	if err != nil {
		return nil, err
	}
	if order.Start != "" {
		p.Setup.Start, p.Setup.Ready = order.Start, ""
	}
	if order.Ready != "" {
		p.Setup.Ready = order.Ready
	}
	return p, nil
}

func makeOf(start Start, steps []Step, forced bool) (*Plan, error) {
	p := &Plan{Setup: clone(start.Setup), Files: start.Key}
	for _, s := range steps {
		forced = forced || s.Force
		s.Forced = forced
		if err := p.add(s); err != nil {
			return nil, cove.E(cove.Invalid, "plan.Make", nil, "%s: %s", s.Place(), err)
		}
	}
	return p, nil
}

// Place says where the step stands in what its owner wrote.
func (s Step) Place() string {
	if s.Line > 0 {
		return fmt.Sprintf("Dockerfile line %d", s.Line)
	}
	return fmt.Sprintf("step %d", s.Number)
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
	if s.Type == cove.CopyStep && s.Line == 0 && !cove.FilesHashValid(s.FilesHash) {
		return fmt.Errorf("COPY names no files: filesHash must be a SHA-256 in lower-case hexadecimal")
	}
	s.Args = slices.Clone(s.Args)
	p.Files = key(p.Files, s)
	s.Key = p.Files
	s.User, s.Workdir, s.Env = p.Setup.User, p.Setup.Workdir, p.Setup.Vars()
	if err := p.apply(s); err != nil {
		return err
	}
	p.Steps = append(p.Steps, s)
	return nil
}

// apply puts values into the arguments of a step, and lets it change what the
// next ones run with.
func (p *Plan) apply(s Step) (err error) {
	switch s.Type {
	case cove.EnvStep:
		return p.setEnv(s.Args)
	case cove.WorkdirStep:
		if s.Args[0], err = expand(s.Args[0], s.Env, maxVariables); err != nil {
			return err
		}
		s.Args[0] = p.dir(s.Args[0])
		p.Setup.Workdir = s.Args[0]
	case cove.UserStep:
		if s.Args[0], err = expand(s.Args[0], s.Env, maxVariables); err != nil {
			return err
		}
		if s.Args[0] == "" || strings.HasPrefix(s.Args[0], "-") || strings.ContainsAny(s.Args[0], " \n/") {
			return fmt.Errorf("%q cannot be the name of a user", s.Args[0])
		}
		p.Setup.User = s.Args[0]
	case cove.CopyStep:
		last := 1 // the destination; a Dockerfile's owner and mode may have references too
		if s.Line > 0 {
			last = len(s.Args) - 1
		}
		for i := 1; i <= last; i++ {
			if s.Args[i], err = expand(s.Args[i], s.Env, maxVariables); err != nil {
				return err
			}
		}
		if s.Line > 0 && last == 3 && s.Args[3] != "" && !octal.MatchString(s.Args[3]) {
			return fmt.Errorf("--chmod=%s is not supported: give an octal mode, as in --chmod=755", s.Args[3])
		}
	}
	return nil
}

// octal are the modes that the daemon in a sandbox understands.
var octal = regexp.MustCompile(`^0*[0-7]{1,4}$`)

// What names and values of a build's variables may come to in all, in bytes,
// with eachVariable for each besides: a few lines of ENV that double each other
// would otherwise fill the memory of the server.
const (
	maxVariables = 128 << 10
	eachVariable = 100
)

// setEnv adds pairs of names and values. All values see the variables from
// before the step, as in a Dockerfile.
func (p *Plan) setEnv(pairs []string) error {
	before := p.Setup.Vars()
	size := 0
	for name, value := range p.Setup.BuildEnv {
		size += len(name) + len(value) + eachVariable
	}
	for i := 0; i < len(pairs); i += 2 {
		name := pairs[i]
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return fmt.Errorf("%q cannot be the name of a variable", name)
		}
		if old, ok := p.Setup.BuildEnv[name]; ok {
			size -= len(name) + len(old) + eachVariable
		}
		size += len(name) + eachVariable
		value, err := expand(pairs[i+1], before, maxVariables-size)
		if err != nil {
			return err
		}
		size += len(value)
		p.Setup.BuildEnv[name] = value
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

// usualPath is the search path of what says nothing of one, as the daemon in a
// sandbox has it: ENV PATH=/x:$PATH must not lose it.
const usualPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// expand puts values in the places of references; see dockerfile.Expand.
func expand(s string, env map[string]string, most int) (string, error) {
	text, ok := dockerfile.Expand(s, most, func(name string) (string, bool) {
		value, set := env[name]
		if !set && name == "PATH" {
			return usualPath, true
		}
		return value, set
	})
	if !ok {
		return "", fmt.Errorf("the variables of a build can have %d bytes", maxVariables)
	}
	return text, nil
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
	if s.Line > 0 {
		part(h, fmt.Sprint(s.Content != nil))
		part(h, string(s.Content))
		if s.Source != nil {
			part(h, s.Source.Key)
		}
		for _, name := range slices.Sorted(maps.Keys(s.Extra)) {
			part(h, name)
			part(h, s.Extra[name])
		}
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
