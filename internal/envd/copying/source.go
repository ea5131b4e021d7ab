package copying

import (
	"net/http"
	"path"
	"strings"

	"github.com/cove-sandbox/cove/internal/envd/reply"
)

// Bounds of what a source may be: matching it costs time for every entry.
const (
	maxSource       = 4096 // bytes
	maxAlternatives = 1024 // that its braces stand for
)

// A source says which entries of an archive are meant. The names of entries are
// relative to the build context, clean, and "." for the context itself.
//
// Whoever made the archive has already chosen the entries by the same source,
// with patterns richer than ours: the clients' packages know "+(a|b)" and more.
// What is not understood here therefore matches every name in its place rather
// than none.
type source struct {
	literal string     // the source taken for a name
	glob    bool       // it is a pattern
	fixed   string     // of a pattern, the directory above its first wildcard
	choices [][]string // of a pattern, the segments of what its braces stand for
}

// parseSource reads a source as a user wrote it. An absolute one starts at the
// build context, and nothing leads above that.
func parseSource(text string) (source, error) {
	switch {
	case text == "":
		return source{}, reply.Errorf(http.StatusBadRequest, "source is required")
	case len(text) > maxSource:
		return source{}, reply.Errorf(http.StatusBadRequest, "source is longer than %d bytes", maxSource)
	case strings.ContainsRune(text, 0):
		return source{}, reply.Errorf(http.StatusBadRequest, "source cannot contain a zero byte")
	}
	text = slashed(text)
	s := source{literal: clean(unescaped(text)), glob: wild(text)}
	if !s.glob {
		return s, nil
	}
	segments := strings.Split(clean(text), "/")
	n := 0
	for n < len(segments) && !wild(segments[n]) {
		n++
	}
	s.fixed = clean(unescaped(strings.Join(segments[:n], "/")))
	choices, ok := alternatives(text)
	if !ok {
		return source{}, reply.Errorf(http.StatusBadRequest, "the braces of source stand for more than %d patterns", maxAlternatives)
	}
	for _, choice := range choices {
		segments := split(clean(choice))
		for i := range segments {
			segments[i] = segment(segments[i])
		}
		s.choices = append(s.choices, segments)
	}
	return s, nil
}

// clean returns the canonical name of what is called name in the context.
func clean(name string) string {
	if name = path.Clean("/" + name)[1:]; name == "" {
		return "."
	}
	return name
}

// split returns the segments of a clean name; the context itself has none.
func split(name string) []string {
	if name == "." {
		return nil
	}
	return strings.Split(name, "/")
}

// below returns the path from dir to name, both clean, if name is dir or in it.
func below(dir, name string) (rest string, ok bool) {
	if dir == "." {
		return name, true
	}
	rest, ok = strings.CutPrefix(name, dir)
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return clean(rest), true
}

// match returns the entry that the source names and that name is, or lies in,
// and the path from there to name. ok is false if there is none. What a pattern
// matches keeps its place below the part that is no pattern, as the reference
// has it; a Dockerfile would put contents of matched directories side by side.
func (s source) match(name string) (root, rest string, ok bool) {
	if rest, ok := below(s.literal, name); ok {
		return s.literal, rest, true
	}
	if !s.glob {
		return "", "", false
	}
	segments := split(name)
	n := -1
	for _, choice := range s.choices {
		if m := matchPrefix(choice, segments); m >= 0 && (n < 0 || m < n) {
			n = m
		}
	}
	if n < 0 {
		return "", "", false
	}
	if rest, ok := below(s.fixed, name); ok {
		return s.fixed, rest, true
	}
	return clean(strings.Join(segments[:n], "/")), clean(strings.Join(segments[n:], "/")), true
}

// A plan says where entries go.
type plan struct {
	source
	dest string // clean and absolute
	into bool   // dest is to be a directory, and a file goes into it under its own name
}

// place returns where the entry of that name goes; ok is false if it is not
// meant. What is in a directory that the source names goes where it was in it.
func (p plan) place(name string, directory bool) (target string, ok bool) {
	root, rest, ok := p.match(name)
	switch {
	case !ok:
		return "", false
	case rest != ".":
		return path.Join(p.dest, rest), true
	case directory || !p.into:
		return p.dest, true
	}
	return path.Join(p.dest, path.Base(root)), true
}
