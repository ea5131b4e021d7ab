package dockerfile

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// A scope is the variables that references see.
type scope struct {
	vars  map[string]variable
	bytes int  // that vars take
	image bool // a variable that is not in vars may be one of the image
}

// A variable is one that the Dockerfile defines.
type variable struct {
	value string
	open  bool // the builder knows its value, which depends on the image
	arg   bool // an ARG, which the builder knows nothing of
}

func newScope(image bool) *scope { return &scope{vars: map[string]variable{}, image: image} }

// set defines a variable; it reports whether there is room for it.
func (s *scope) set(name string, v variable) bool {
	const each = 100 // what one takes besides
	if old, ok := s.vars[name]; ok {
		s.bytes -= len(name) + len(old.value) + each
	}
	s.vars[name] = v
	s.bytes += len(name) + len(v.value) + each
	return s.bytes <= maxVariables
}

// What is known of a variable.
type certainty int

const (
	unset   certainty = iota
	known             // its value is
	unknown           // the builder will see
)

func (s *scope) look(name string) (string, certainty) {
	v, ok := s.vars[name]
	switch {
	case ok && !v.open:
		return v.value, known
	case ok, s.image && isName(name):
		return "", unknown
	}
	return "", unset
}

// An expander expands one word by the rules of a Dockerfile. It works like
// shell.Lex, which cannot tell what is not known from what is not set, nor a
// dollar that was quoted from one that was not.
type expander struct {
	scope  *scope
	escape byte     // the Dockerfile's escape character
	quotes bool     // they quote; else they are characters like others
	budget *int     // bytes that references may still come to
	missed []string // variables that were taken as not set

	in    string
	pos   int
	depth int
}

// expand returns the value of a word.
func (e *expander) expand(word string) (value, error) {
	e.in, e.pos, e.depth = word, 0, 0
	return e.until(0)
}

func (e *expander) peek() byte {
	if e.pos < len(e.in) {
		return e.in[e.pos]
	}
	return 0 // no text has one
}

// character takes the next one, of any length.
func (e *expander) character() string {
	_, n := utf8.DecodeRuneInString(e.in[e.pos:])
	e.pos += n
	return e.in[e.pos-n : e.pos]
}

// until expands up to and with a stop character; 0: up to the end.
func (e *expander) until(stop byte) (value, error) {
	var out maker
	for e.pos < len(e.in) {
		switch c := e.peek(); {
		case c == stop:
			e.pos++
			return out.done(), nil
		case c == '$':
			v, err := e.dollar()
			if err != nil {
				return nil, err
			}
			out.join(v)
		case c == '\'' && e.quotes:
			e.pos++
			end := strings.IndexByte(e.in[e.pos:], '\'')
			if end < 0 {
				return nil, errors.New("a quotation that begins with ' has no end")
			}
			out.add(e.in[e.pos : e.pos+end])
			e.pos += end + 1
		case c == '"' && e.quotes:
			v, err := e.quoted()
			if err != nil {
				return nil, err
			}
			out.join(v)
		case c == e.escape:
			e.pos++
			out.add(e.character())
		default:
			out.add(e.ordinary())
		}
	}
	if stop != 0 {
		return nil, errors.New("a ${ has no }")
	}
	return out.done(), nil
}

// ordinary takes what has no meaning of its own: one character at least, as the
// caller has seen.
func (e *expander) ordinary() string {
	start := e.pos
	e.character()
	for e.pos < len(e.in) && !strings.ContainsRune("$'\"}"+string(e.escape), rune(e.in[e.pos])) {
		e.pos++
	}
	return e.in[start:e.pos]
}

// quoted expands what stands between double quotes.
func (e *expander) quoted() (value, error) {
	var out maker
	e.pos++
	for e.pos < len(e.in) {
		switch c := e.peek(); c {
		case '"':
			e.pos++
			return out.done(), nil
		case '$':
			v, err := e.dollar()
			if err != nil {
				return nil, err
			}
			out.join(v)
		case e.escape:
			e.pos++
			if next := e.peek(); next != '"' && next != '$' && next != e.escape {
				out.add(string(c))
			}
			out.add(e.character())
		default:
			out.add(e.ordinary())
		}
	}
	return nil, errors.New(`a quotation that begins with " has no end`)
}

// dollar expands what begins with a dollar sign.
func (e *expander) dollar() (value, error) {
	e.pos++
	if e.peek() != '{' {
		name := e.name()
		if name == "" {
			return literal("$"), nil
		}
		return e.value(name)
	}
	e.pos++
	if e.depth++; e.depth > maxNesting {
		return nil, fmt.Errorf("references are nested more than %d deep", maxNesting)
	}
	defer func() { e.depth-- }()
	start := e.pos
	name := e.name()
	op := e.peek()
	e.pos++
	switch {
	case name == "" || op == 0:
		return nil, fmt.Errorf("${%s is no reference to a variable", oneLine(e.in[start:min(e.pos, len(e.in))]))
	case op == '}':
		return e.value(name)
	case op == ':' && strings.IndexByte("-+?", e.peek()) >= 0:
		e.pos++
		return e.substitute(name, e.in[e.pos-2:e.pos])
	case op == '-' || op == '+' || op == '?':
		return e.substitute(name, string(op))
	case op == '#' || op == '%' || op == '/':
		return e.pattern(name, op)
	}
	return nil, fmt.Errorf("${%s...} is no way to refer to a variable that is supported", oneLine(e.in[start:e.pos]))
}

// name takes a variable's name; empty: there is none.
func (e *expander) name() string {
	start := e.pos
	if c := e.peek(); c != 0 && strings.IndexByte("@*#?-$!", c) >= 0 {
		e.pos++
		return e.in[start:e.pos]
	}
	first, _ := utf8.DecodeRuneInString(e.in[e.pos:])
	digits := unicode.IsDigit(first)
	for e.pos < len(e.in) {
		r, n := utf8.DecodeRuneInString(e.in[e.pos:])
		if !unicode.IsDigit(r) && (digits || !unicode.IsLetter(r) && r != '_') {
			break
		}
		e.pos += n
	}
	return e.in[start:e.pos]
}

// value returns what $name is.
func (e *expander) value(name string) (value, error) {
	text, c := e.scope.look(name)
	switch c {
	case known:
		return literal(text), e.spend(len(text))
	case unknown:
		return value{{ref: &reference{name: name}}}, nil
	}
	e.missed = append(e.missed, name)
	return nil, nil
}

// spend takes n bytes from what references may come to.
func (e *expander) spend(n int) error {
	if *e.budget -= n; *e.budget < 0 {
		return fmt.Errorf("the variables of this Dockerfile come to more than %d MiB", maxExpansion>>20)
	}
	return nil
}

// substitute expands ${name, op, and a word up to the brace that closes it.
func (e *expander) substitute(name, op string) (value, error) {
	word, err := e.until('}')
	if err != nil {
		return nil, err
	}
	text, c := e.scope.look(name)
	there := c == known && (text != "" || len(op) == 1)
	switch last := op[len(op)-1]; {
	case c == unknown && last == '?':
		return nil, fmt.Errorf("${%s%s} asks for a variable that only the image can have; write ${%s}", name, op, name)
	case c == unknown && last == '-' && len(word) == 0:
		return value{{ref: &reference{name: name}}}, nil
	case c == unknown:
		return value{{ref: &reference{name: name, op: op, word: word}}}, nil
	case last == '?' && !there:
		why, _ := word.plain()
		if why == "" {
			why = "it has no value"
		}
		return nil, fmt.Errorf("%s: %s", name, oneLine(why))
	case last == '+' && there, last == '-' && !there:
		return word, nil
	case last == '+':
		return nil, nil
	}
	return literal(text), e.spend(len(text))
}

// pattern expands ${name, op, and patterns up to the brace that closes it. What
// patterns mean is left to shell.Lex.
func (e *expander) pattern(name string, op byte) (value, error) {
	start := e.pos - 1
	stops := "}"
	if op == '/' {
		stops = "/}"
		if e.peek() == '/' {
			e.pos++
		}
	}
	for i := range len(stops) {
		if err := e.skip(stops[i]); err != nil {
			return nil, err
		}
	}
	raw := e.in[start:e.pos]
	text, c := e.scope.look(name)
	if c == unknown {
		return nil, fmt.Errorf("${%s%s needs the value of a variable that only the image can have; define it with ARG or ENV", name, oneLine(raw))
	}
	// A match each between two characters, replaced by most of raw: no more
	// can come out. It also bounds what matching takes.
	if err := e.spend((len(text) + 1) * len(raw)); err != nil {
		return nil, err
	}
	var env []string
	if c == known {
		env = []string{"v=" + text}
	}
	lex := shell.NewLex(rune(e.escape))
	lex.SkipProcessQuotes = !e.quotes
	out, _, err := lex.ProcessWord("${v"+raw, shell.EnvsFromSlice(env))
	if err != nil {
		return nil, fmt.Errorf("${%s%s is not understood", name, oneLine(raw))
	}
	return literal(out), nil
}

// skip passes over a pattern and the character that ends it.
func (e *expander) skip(stop byte) error {
	quote := byte(0)
	for e.pos < len(e.in) {
		c := e.peek()
		e.pos++
		switch {
		case c == stop && quote == 0:
			return nil
		case c == quote:
			quote = 0
		case c == e.escape && quote != '\'':
			e.character()
		case e.quotes && quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case c == '$' && quote != '\'':
			return errors.New("a reference in the pattern of another is not supported; put it into an ARG of its own")
		}
	}
	return errors.New("a ${ has no }")
}
