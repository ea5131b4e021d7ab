package dockerfile

// ExpandKnown expands a word where every variable is known or not set.
func ExpandKnown(word string, escape byte, quotes bool, vars map[string]string) (string, error) {
	s, budget := newScope(false), maxExpansion
	for name, text := range vars {
		s.set(name, variable{value: text})
	}
	e := expander{scope: s, escape: escape, quotes: quotes, budget: &budget}
	v, err := e.expand(word)
	text, _ := v.plain()
	return text, err
}

// ExpandUnknown expands a word where no variable is known, into the language of
// Expand. It is false if that cannot say it, or the word is refused.
func ExpandUnknown(word string) (string, bool) {
	budget := maxExpansion
	e := expander{scope: newScope(true), escape: '\\', quotes: true, budget: &budget}
	v, err := e.expand(word)
	if err != nil {
		return "", false
	}
	return v.render()
}
