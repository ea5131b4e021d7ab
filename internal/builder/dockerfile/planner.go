package dockerfile

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	cove "github.com/cove-sandbox/cove"
)

// A planner is Parse's work on one Dockerfile.
type planner struct {
	opts     Options
	escape   byte // the Dockerfile's escape character
	global   *scope
	drafts   []draft
	budget   int             // see maxExpansion
	steps    int             // so far, of all stages
	used     map[string]bool // arguments that somebody declared
	warnings []Warning
}

// A draft is a stage whose instructions have not been looked into.
type draft struct {
	from  instruction
	name  string // in lower case; may be empty
	image string // or the stage's name, as written
	base  int    // index of the stage it begins with; -1: an image
	body  []instruction

	made  *stage // nil: not yet, or not needed
	index int    // in the plan, if it is made
}

func (p *planner) warn(line int, text string) {
	p.warnings = append(p.warnings, Warning{Line: line, Text: text})
}

// expand expands a word of an instruction.
func (p *planner) expand(in instruction, s *scope, word string) (value, error) {
	e := expander{scope: s, escape: p.escape, quotes: true, budget: &p.budget}
	v, err := e.expand(word)
	if err != nil {
		return nil, refuse(in.line, "%s", err)
	}
	return v, nil
}

// divide sorts instructions into stages. Those before the first one define
// arguments for the FROMs.
func (p *planner) divide(all []instruction) error {
	for name, text := range p.opts.Args {
		if !isName(name) || strings.ContainsRune(text, 0) {
			return cove.E(cove.Invalid, "dockerfile.Parse", nil, "the argument %q is not possible", name)
		}
	}
	p.predefine()
	for _, in := range all {
		switch last := len(p.drafts) - 1; {
		case in.name == "FROM":
			d, err := p.from(in)
			if err != nil {
				return err
			}
			p.drafts = append(p.drafts, d)
		case last >= 0:
			p.drafts[last].body = append(p.drafts[last].body, in)
		case in.name == "ARG":
			if err := p.arg(in, p.global, nil); err != nil {
				return err
			}
		default:
			return refuse(in.line, "%s stands before the first FROM, where only ARG can", oneLine(in.name))
		}
	}
	if len(p.drafts) == 0 {
		return cove.E(cove.Invalid, "dockerfile.Parse", nil, "the Dockerfile has no FROM")
	}
	return nil
}

// platform is the one that builds run on and for.
const platform = "linux/amd64"

// predefine sets the arguments that FROM can use without an ARG.
func (p *planner) predefine() {
	for _, of := range []string{"BUILD", "TARGET"} {
		for name, text := range map[string]string{"PLATFORM": platform, "OS": "linux", "ARCH": "amd64", "VARIANT": ""} {
			p.global.set(of+name, variable{value: text, arg: true})
		}
	}
	stage := p.opts.Target
	if stage == "" {
		stage = "default"
	}
	p.global.set("TARGETSTAGE", variable{value: stage, arg: true})
	for name := range p.global.vars {
		if text, ok := p.opts.Args[name]; ok {
			p.used[name] = true
			p.global.set(name, variable{value: text, arg: true})
		}
	}
}

// arg defines the arguments that an ARG declares. Those that are given win over
// defaults; without a default, the one from before the first FROM counts.
func (p *planner) arg(in instruction, s, outer *scope) error {
	if len(in.args) == 0 {
		return refuse(in.line, "ARG names nothing")
	}
	for _, arg := range in.args {
		name, word, defaulted := strings.Cut(arg, "=")
		if name == "" {
			return refuse(in.line, "ARG names nothing")
		}
		p.used[name] = true
		text, given := p.opts.Args[name]
		if !given && defaulted {
			var err error
			if text, err = p.argDefault(in, s, word); err != nil {
				return err
			}
			given = true
		}
		if !given && outer != nil {
			v, ok := outer.vars[name]
			text, given = v.value, ok
		}
		if given && !s.set(name, variable{value: text, arg: true}) {
			return tooMuch(in)
		}
	}
	return nil
}

func tooMuch(in instruction) error {
	return refuse(in.line, "the variables of a stage can have %d bytes", maxVariables)
}

// argDefault expands the default of an ARG. It has to be known: no reference
// outlives it, because the builder knows nothing of arguments.
func (p *planner) argDefault(in instruction, s *scope, word string) (string, error) {
	here := &scope{vars: s.vars}
	e := expander{scope: here, escape: p.escape, quotes: true, budget: &p.budget}
	v, err := e.expand(word)
	if err != nil {
		return "", refuse(in.line, "%s", err)
	}
	text, name := v.plain()
	if name != "" {
		return "", refuse(in.line, "this ARG depends on %s, whose value only the image decides; use ENV", name)
	}
	if s.image {
		for _, name := range e.missed {
			p.warn(in.line, "ARG takes "+oneLine(name)+" as not set, even if the image sets it: this Dockerfile does not define it")
		}
	}
	return text, nil
}

var stageName = regexp.MustCompile(`^[a-z][a-z0-9-_.]*$`)

// from begins a stage.
func (p *planner) from(in instruction) (draft, error) {
	d := draft{from: in, base: -1}
	switch {
	case len(in.args) == 3 && strings.EqualFold(in.args[1], "AS"):
		if d.name = strings.ToLower(in.args[2]); !stageName.MatchString(d.name) {
			return d, refuse(in.line, "%q cannot be the name of a stage", oneLine(in.args[2]))
		}
	case len(in.args) != 1:
		return d, refuse(in.line, "FROM is followed by an image, or by an image, AS and a name")
	}
	if err := p.platform(in); err != nil {
		return d, err
	}
	v, err := p.expand(in, p.global, in.args[0])
	if err != nil {
		return d, err
	}
	if d.image, _ = v.plain(); d.image == "" {
		return d, refuse(in.line, "FROM %s is FROM nothing: its arguments must be defined by an ARG before the first FROM, or given",
			oneLine(in.args[0]))
	}
	if i, ok := p.named(d.image); ok {
		d.base = i
	}
	return d, nil
}

// platform checks that a stage is for what runs here.
func (p *planner) platform(in instruction) error {
	if in.flags["platform"] == nil {
		return nil
	}
	v, err := p.expand(in, p.global, in.flags.get("platform"))
	if err != nil {
		return err
	}
	text, _ := v.plain()
	switch strings.ToLower(text) {
	case platform, platform + "/v1", "linux/x86_64", "linux", "amd64", "x86_64":
		return nil
	}
	return refuse(in.line, "the platform %q is not supported: builds and sandboxes are %s", oneLine(text), platform)
}

// named finds the last stage so far of a name.
func (p *planner) named(name string) (int, bool) {
	name = strings.ToLower(name)
	for i, d := range slices.Backward(p.drafts) {
		if d.name == name && name != "" {
			return i, true
		}
	}
	return 0, false
}

// target returns the index of the stage that is to be built.
func (p *planner) target() (int, error) {
	if p.opts.Target == "" {
		return len(p.drafts) - 1, nil
	}
	if i, ok := p.named(p.opts.Target); ok {
		return i, nil
	}
	if i, err := strconv.Atoi(p.opts.Target); err == nil && i >= 0 && i < len(p.drafts) {
		return i, nil
	}
	return 0, cove.E(cove.Invalid, "dockerfile.Parse", nil, "the Dockerfile has no stage %q", oneLine(p.opts.Target))
}

// needed tells which stages the target needs. A stage needs earlier ones only,
// so one pass from the target down finds them all.
func (p *planner) needed(target int) (map[int]bool, error) {
	needed := map[int]bool{target: true}
	for i := target; i >= 0; i-- {
		if !needed[i] {
			continue
		}
		if base := p.drafts[i].base; base >= 0 {
			needed[base] = true
		}
		for _, in := range p.drafts[i].body {
			source, err := p.source(in, i)
			if err != nil {
				return nil, err
			}
			if source >= 0 {
				needed[source] = true
			}
		}
	}
	return needed, nil
}

// source returns the index of the stage that an instruction of the stage i
// copies from; -1: none.
func (p *planner) source(in instruction, i int) (int, error) {
	from := in.flags.get("from")
	if in.flags["from"] == nil {
		return -1, nil
	}
	if strings.ContainsRune(from, '$') {
		return 0, refuse(in.line, "--from cannot refer to a variable: begin a stage with FROM %s AS name, and copy from that", oneLine(from))
	}
	if from == "" {
		return 0, refuse(in.line, "--from names nothing")
	}
	source, err := strconv.Atoi(from)
	if err != nil {
		named, ok := p.named(from)
		if !ok {
			return -1, nil
		}
		source = named
	}
	if source < 0 || source >= i {
		return 0, refuse(in.line, "--from=%s is no stage before this one", oneLine(from))
	}
	return source, nil
}

// unusedArgs warns of arguments that were given for nothing.
func (p *planner) unusedArgs() {
	for _, name := range slices.Sorted(maps.Keys(p.opts.Args)) {
		if !p.used[name] && !slices.Contains(proxies(), name) {
			p.warn(0, "the argument "+name+" was given, but no ARG declares it")
		}
	}
}

// proxies are the arguments that every RUN gets without an ARG.
func proxies() []string {
	var all []string
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"} {
		all = append(all, name, strings.ToLower(name))
	}
	return all
}
