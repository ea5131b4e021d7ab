package dockerfile

import (
	"strings"
	"unicode/utf8"
)

// A value is text in which some parts may be known to the builder only. Two
// parts that follow each other are never both literals.
type value []part

// A part is a literal, or the reference ref.
type part struct {
	literal string
	ref     *reference
}

// A reference stands for what a variable of the image makes of it: ${name}, or
// with one of the operators - :- + :+ before a word.
type reference struct {
	name, op string
	word     value
}

func literal(s string) value {
	var b maker
	b.add(s)
	return b.done()
}

// A maker makes a value of its parts, in time that grows with their number.
type maker struct {
	parts value
	last  strings.Builder // the literal at the end
}

func (m *maker) add(s string) { m.last.WriteString(s) }

func (m *maker) join(v value) {
	for _, p := range v {
		if p.ref == nil {
			m.add(p.literal)
			continue
		}
		m.parts = append(m.done(), p)
	}
}

// done returns what has been built so far.
func (m *maker) done() value {
	if m.last.Len() > 0 {
		m.parts = append(m.parts, part{literal: m.last.String()})
		m.last.Reset()
	}
	return m.parts
}

// plain returns v if all of it is known, else the name of a variable that it
// depends on.
func (v value) plain() (text, unknown string) {
	var b strings.Builder
	for _, p := range v {
		if p.ref != nil {
			return "", p.ref.name
		}
		b.WriteString(p.literal)
	}
	return b.String(), ""
}

// render returns v in the language of Expand. It is false if that has no way to
// say it: a backslash before a reference would keep the reference's dollar.
func (v value) render() (string, bool) {
	var b strings.Builder
	for _, p := range v {
		if p.ref == nil {
			b.WriteString(strings.ReplaceAll(p.literal, "$", `\$`))
			continue
		}
		if strings.HasSuffix(b.String(), `\`) {
			return "", false
		}
		p.ref.render(&b)
	}
	return b.String(), true
}

func (r *reference) render(b *strings.Builder) {
	b.WriteString("${" + r.name + r.op)
	for _, p := range r.word {
		if p.ref != nil {
			p.ref.render(b)
			continue
		}
		b.WriteString(strings.NewReplacer("$", `\$`, "}", `\}`, `\`, `\\`).Replace(p.literal))
	}
	b.WriteByte('}')
}

// Expand puts values in the places of references: $NAME, ${NAME}, and, as in a
// shell, ${NAME-word}, ${NAME:-word}, ${NAME+word} and ${NAME:+word}, where a
// word may have references of its own. lookup reports whether there is such a
// variable; one that is not there becomes nothing.
//
// \$ is a dollar sign, and within braces \} and \\ are what follows the
// backslash. What is no reference stays as it is. ok is false if more than most
// bytes would come of it: a few references to long values are enough for that.
func Expand(s string, most int, lookup func(name string) (string, bool)) (text string, ok bool) {
	x := expansion{s: s, ends: braces(s), lookup: lookup, most: most}
	x.part(0, len(s), false)
	return x.out.String(), x.out.Len() <= most
}

// An expansion is Expand's work.
type expansion struct {
	s      string
	ends   map[int]int // of a "${" in s, where its "}" is
	lookup func(string) (string, bool)
	most   int // once out is longer, the rest does not matter
	out    strings.Builder
}

// braces finds the pairs that belong together. One pass over s: what is never
// closed must not cost a search each.
func braces(s string) map[int]int {
	ends := map[int]int{}
	var open []int
	for i := 0; i < len(s); i++ {
		switch {
		case escapes(s[i:], len(open) > 0):
			i++
		case strings.HasPrefix(s[i:], "${") && len(open) < maxNesting:
			open = append(open, i)
			i++
		case s[i] == '}' && len(open) > 0:
			ends[open[len(open)-1]] = i
			open = open[:len(open)-1]
		}
	}
	return ends
}

// escapes reports whether s begins with a backslash that makes the next
// character an ordinary one.
func escapes(s string, inBraces bool) bool {
	return len(s) > 1 && s[0] == '\\' && (s[1] == '$' || inBraces && (s[1] == '}' || s[1] == '\\'))
}

// part expands s[i:end].
func (x *expansion) part(i, end int, inBraces bool) {
	for i < end && x.out.Len() <= x.most {
		switch {
		case escapes(x.s[i:end], inBraces):
			x.out.WriteByte(x.s[i+1])
			i += 2
		case x.s[i] == '$':
			i = x.reference(i, end)
		default:
			x.out.WriteByte(x.s[i])
			i++
		}
	}
}

// reference expands what begins with the dollar at i, and returns where it ends.
func (x *expansion) reference(i, end int) int {
	if n := nameLength(x.s[i+1 : end]); n > 0 {
		text, _ := x.lookup(x.s[i+1 : i+1+n])
		x.out.WriteString(text)
		return i + 1 + n
	}
	closing, closed := x.ends[i]
	if !closed || closing >= end {
		x.out.WriteByte('$')
		return i + 1
	}
	inner := x.s[i+2 : closing]
	n := nameLength(inner)
	rest := inner[n:]
	op := operator(rest)
	if n == 0 || rest != "" && op == "" {
		x.out.WriteByte('$')
		return i + 1
	}
	text, set := x.lookup(inner[:n])
	if strings.HasPrefix(op, ":") {
		set = set && text != ""
	}
	switch word := closing - len(rest) + len(op); {
	case strings.HasSuffix(op, "-") && !set, strings.HasSuffix(op, "+") && set:
		x.part(word, closing, true)
	case !strings.HasSuffix(op, "+"):
		x.out.WriteString(text)
	}
	return closing + 1
}

// operator returns the one that s begins with; empty: none.
func operator(s string) string {
	for _, op := range []string{":-", ":+", "-", "+"} {
		if strings.HasPrefix(s, op) {
			return op
		}
	}
	return ""
}

// nameLength is how many bytes at the beginning of s can be a variable's name.
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

// isName reports whether an image can have a variable of this name that a
// reference can name.
func isName(s string) bool { return s != "" && nameLength(s) == len(s) && utf8.ValidString(s) }
