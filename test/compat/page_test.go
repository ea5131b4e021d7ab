package compat_test

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what TestMatrix found into docs/compat.md")

// The table stands in the page between these two lines.
const (
	tableStart = "<!-- This table is written by: go test ./test/compat -run TestMatrix -update -->"
	tableEnd   = "<!-- End of the table. -->"
)

// groups are the tables of the page.
var groups = []struct{ name, title string }{
	{"commands", "`sandbox.commands`"},
	{"handle", "Handle of a command or terminal"},
	{"input", "Handle of streamed input"},
	{"pty", "`sandbox.pty`"},
	{"files", "`sandbox.files`"},
	{"watch", "Handle of a watched directory"},
	{"git", "`sandbox.git`"},
	{"sandbox", "The sandbox itself"},
}

// checkPage compares the page with what the run found. A version later than the
// page's does not make the page wrong, only old: its column is left out.
func checkPage(t *testing.T, versions []*version) {
	t.Helper()
	path := filepath.Join("..", "..", "docs", "compat.md")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(content), tableStart+"\n")
	old, after, closed := strings.Cut(rest, tableEnd)
	if !ok || !closed {
		t.Fatalf("%s has no place for the table", path)
	}
	found := page(t, versions)
	if *update {
		if err := os.WriteFile(path, []byte(before+tableStart+"\n"+found+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if t.Failed() {
		return // the failures say more than a table that differs by them
	}
	for i, v := range versions {
		if v.Newest && !strings.Contains(old, header(v)) {
			t.Logf("docs/compat.md names an older version than %s %s; -update writes it anew", v.Flavour, v.Version)
			old, found = without(old, i+fixedColumns), without(found, i+fixedColumns)
		}
	}
	if diff := gocmp.Diff(old, found); diff != "" {
		t.Errorf("docs/compat.md is not what the run found; -update writes it anew (-page +found):\n%s", diff)
	}
}

// fixedColumns come before those of the versions.
const fixedColumns = 2

func header(v *version) string { return v.Flavour + "<br>" + v.Version }

// without blanks a column of every table.
func without(page string, column int) string {
	lines := strings.Split(page, "\n")
	for i, line := range lines {
		if cells := strings.Split(line, "|"); len(cells) > column+1 {
			cells[column+1] = "" // a line begins with a bar
			lines[i] = strings.Join(cells, "|")
		}
	}
	return strings.Join(lines, "\n")
}

// page writes the tables, and what is not served.
func page(t *testing.T, versions []*version) string {
	t.Helper()
	all := tests(versions)
	var b strings.Builder
	for _, group := range groups {
		fmt.Fprintf(&b, "\n### %s\n\n| Method | Examined |", group.title)
		for _, v := range versions {
			fmt.Fprintf(&b, " %s |", header(v))
		}
		b.WriteString("\n|---|---|" + strings.Repeat(":-:|", len(versions)) + "\n")
		last := ""
		for _, c := range all {
			if c.group() != group.name {
				continue
			}
			_, name, _ := strings.Cut(c.Method, ".")
			if name = "`" + name + "`"; name == last {
				name = ""
			} else {
				last = name
			}
			fmt.Fprintf(&b, "| %s | %s |", name, c.Case)
			for _, v := range versions {
				fmt.Fprintf(&b, " %s |", sign(v.Results[c]))
			}
			b.WriteString("\n")
		}
	}
	for _, c := range all {
		if !slices.ContainsFunc(groups, func(g struct{ name, title string }) bool { return g.name == c.group() }) {
			t.Errorf("%s belongs to no table", c)
		}
	}
	b.WriteString("\n### Not served yet\n\n| Method or class | Waits for |\n|---|---|\n")
	for _, method := range slices.SortedFunc(maps.Keys(notServed), func(a, b string) int {
		return cmp.Or(cmp.Compare(notServed[a], notServed[b]), cmp.Compare(a, b))
	}) {
		fmt.Fprintf(&b, "| `%s` | %s |\n", method, notServed[method])
	}
	b.WriteString("\n")
	return b.String()
}

func sign(result string) string {
	switch result {
	case "pass":
		return "✓"
	case "fail":
		return "fails"
	default:
		return "–"
	}
}

// tests returns the cases of all versions, those of a method together.
func tests(versions []*version) []test {
	var all []test
	first := map[string]int{} // where a method first stands
	for _, v := range versions {
		for _, c := range v.order {
			if slices.Contains(all, c) {
				continue
			}
			if _, ok := first[c.Method]; !ok {
				first[c.Method] = len(all)
			}
			all = append(all, c)
		}
	}
	slices.SortStableFunc(all, func(a, b test) int { return cmp.Compare(first[a.Method], first[b.Method]) })
	return all
}
