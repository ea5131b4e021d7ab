package copying

import (
	"path"
	"strings"
)

// special are the characters that a backslash takes the meaning from. Of those
// that names seldom begin with, that is: elsewhere it separates.
const special = `*?[]{},\`

// slashed returns a source with slashes, whichever a user's system separates
// names by. A backslash before a special character stays: there it quotes.
func slashed(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] != '\\':
			out.WriteByte(text[i])
		case i+1 < len(text) && strings.IndexByte(special, text[i+1]) >= 0:
			out.WriteString(text[i : i+2])
			i++
		default:
			out.WriteByte('/')
		}
	}
	return out.String()
}

// unescaped returns slashed text without the backslashes that quote.
func unescaped(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) {
			i++
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

// wild reports whether slashed text is a pattern rather than a name.
func wild(text string) bool {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '*', '?', '[', '{':
			return true
		case '@', '+', '!':
			if i+1 < len(text) && text[i+1] == '(' {
				return true
			}
		}
	}
	return false
}

// alternatives returns the patterns that the braces of a pattern stand for; ok
// is false if there are too many.
func alternatives(pattern string) (out []string, ok bool) {
	for todo := []string{pattern}; len(todo) > 0; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		before, choices, after := braces(next)
		if choices == nil {
			out = append(out, next)
		}
		for _, choice := range choices {
			todo = append(todo, before+choice+after)
		}
		if len(todo)+len(out) > maxAlternatives {
			return nil, false
		}
	}
	return out, true
}

// braces returns what is in, before and after the first braces of a pattern
// that hold a comma; choices is nil if there are none.
func braces(pattern string) (before string, choices []string, after string) {
	for start := 0; start < len(pattern); start++ {
		switch pattern[start] {
		case '\\':
			start++
		case '{':
			if choices, after := commas(pattern[start+1:]); choices != nil {
				return pattern[:start], choices, after
			}
		}
	}
	return pattern, nil, ""
}

// commas splits what follows an opening brace, up to the one that closes it;
// choices is nil if there is no comma, or no such brace.
func commas(text string) (choices []string, after string) {
	depth, from := 1, 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '{':
			depth++
		case ',':
			if depth == 1 {
				choices, from = append(choices, text[from:i]), i+1
			}
		case '}':
			depth--
			if depth == 0 && choices == nil {
				return nil, ""
			}
			if depth == 0 {
				return append(choices, text[from:i]), text[i+1:]
			}
		}
	}
	return nil, ""
}

// segment returns a pattern of package path for one segment of a source, with
// stars for what package path does not know.
func segment(text string) string {
	text, ok := ungrouped(text)
	_, after, braced := strings.Cut(text, "{")
	if !ok || braced && strings.Contains(after, "..") || strings.Contains(text, "[[:") {
		return "*"
	}
	text = strings.ReplaceAll(text, "[!", "[^")
	if _, err := path.Match(text, ""); err != nil {
		return "*"
	}
	return text
}

// ungrouped replaces groups like "+(a|b)" by stars; ok is false if one has no end.
func ungrouped(text string) (out string, ok bool) {
	for {
		start := -1
		for _, opening := range []string{"@(", "+(", "?(", "*(", "!("} {
			start = max(start, strings.LastIndex(text, opening))
		}
		if start < 0 {
			return text, true
		}
		// The last one that opens holds no other.
		end := strings.IndexByte(text[start:], ')')
		if end < 0 {
			return "", false
		}
		text = text[:start] + "*" + text[start+end+1:]
	}
}

// matchPrefix returns how many of the names the pattern takes at the least; -1
// if it does not match, however many. A "**" takes any number.
func matchPrefix(pattern, names []string) int {
	// at holds the places in the pattern where the names so far can have led.
	at := make([]bool, len(pattern)+1)
	at[0] = true
	for n := 0; ; n++ {
		for i, segment := range pattern {
			if at[i] && segment == "**" {
				at[i+1] = true
			}
		}
		if at[len(pattern)] {
			return n
		}
		if n == len(names) {
			return -1
		}
		next := make([]bool, len(at))
		for i, segment := range pattern {
			if !at[i] {
				continue
			}
			if segment == "**" {
				next[i] = true
			} else if ok, err := path.Match(segment, names[n]); ok && err == nil {
				next[i+1] = true
			}
		}
		at = next
	}
}
