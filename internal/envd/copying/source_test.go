package copying

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func planOf(t testing.TB, source string, into bool) plan {
	t.Helper()
	s, err := parseSource(source)
	if err != nil {
		t.Fatalf("%q: %v", source, err)
	}
	return plan{source: s, dest: "/dest", into: into || s.glob}
}

// placed returns where the entries go that are meant; directories end with a
// slash, and what goes to the destination itself goes to a dot.
func placed(p plan, names []string) map[string]string {
	out := map[string]string{}
	for _, name := range names {
		if target, ok := p.place(clean(name), strings.HasSuffix(name, "/")); ok {
			out[name] = clean(strings.TrimPrefix(target, "/dest"))
		}
	}
	return out
}

func TestPlace(t *testing.T) {
	context := []string{"./", "a.txt", "b.txt", ".env", "src/", "src/main.ts", "src/lib/", "src/lib/util.ts", "src/lib/deep/", "src/lib/deep/x.ts", "srcs/", "srcs/y"}
	all := map[string]string{"./": ".", "a.txt": "a.txt", "b.txt": "b.txt", ".env": ".env", "src/": "src", "src/main.ts": "src/main.ts", "src/lib/": "src/lib",
		"src/lib/util.ts": "src/lib/util.ts", "src/lib/deep/": "src/lib/deep", "src/lib/deep/x.ts": "src/lib/deep/x.ts", "srcs/": "srcs", "srcs/y": "srcs/y"}
	src := map[string]string{"src/": ".", "src/main.ts": "main.ts", "src/lib/": "lib", "src/lib/util.ts": "lib/util.ts", "src/lib/deep/": "lib/deep", "src/lib/deep/x.ts": "lib/deep/x.ts"}
	for _, c := range []struct {
		sources string // that mean the same, between spaces
		into    bool
		want    map[string]string
	}{
		{". ./ / ./. src/.. ** **/.", false, all},
		{"src src/ ./src .//src/. /src srcs/../src ../src src/**", false, src},
		{"a.txt ./a.txt src/../a.txt", false, map[string]string{"a.txt": "."}},
		{"a.txt", true, map[string]string{"a.txt": "a.txt"}},
		{"src/lib/util.ts", true, map[string]string{"src/lib/util.ts": "util.ts"}},
		{`src\lib\util.ts`, true, map[string]string{"src/lib/util.ts": "util.ts"}},
		{`\a.tx\t \*.txt a.txt/x nothing`, true, map[string]string{}},
		{"*.txt {a,b}.txt [ab].txt [!c].txt [^c].txt ?.txt @(a|b).txt !(c).txt !(c|@(d|e)).tx?(x)t", false, map[string]string{"a.txt": "a.txt", "b.txt": "b.txt"}},
		{"src/*", false, map[string]string{"src/main.ts": "main.ts", "src/lib/": "lib", "src/lib/util.ts": "lib/util.ts", "src/lib/deep/": "lib/deep", "src/lib/deep/x.ts": "lib/deep/x.ts"}},
		{"s*/*.ts", false, map[string]string{"src/main.ts": "src/main.ts"}},
		{"src/**/*.ts", false, map[string]string{"src/main.ts": "main.ts", "src/lib/util.ts": "lib/util.ts", "src/lib/deep/x.ts": "lib/deep/x.ts"}},
		{"**/*.ts", false, map[string]string{"src/main.ts": "src/main.ts", "src/lib/util.ts": "src/lib/util.ts", "src/lib/deep/x.ts": "src/lib/deep/x.ts"}},
		{"**/lib", false, map[string]string{"src/lib/": "src/lib", "src/lib/util.ts": "src/lib/util.ts", "src/lib/deep/": "src/lib/deep", "src/lib/deep/x.ts": "src/lib/deep/x.ts"}},
		{"{src/lib,srcs}", false, map[string]string{"src/lib/": "src/lib", "src/lib/util.ts": "src/lib/util.ts", "src/lib/deep/": "src/lib/deep", "src/lib/deep/x.ts": "src/lib/deep/x.ts", "srcs/": "srcs", "srcs/y": "srcs/y"}},
		{"{src/lib/{util,deep/x}.ts,a.txt}", false, map[string]string{"src/lib/util.ts": "src/lib/util.ts", "src/lib/deep/x.ts": "src/lib/deep/x.ts", "a.txt": "a.txt"}},
	} {
		for _, source := range strings.Fields(c.sources) {
			if diff := cmp.Diff(c.want, placed(planOf(t, source, c.into), context)); diff != "" {
				t.Errorf("%q (-want +got):\n%s", source, diff)
			}
		}
	}
}

// Names that look like patterns mean themselves too, and an archive need not
// have the directories of its files.
func TestPlaceUnusual(t *testing.T) {
	for _, c := range []struct{ source, name, want string }{
		{"app/[id]/page.ts", "app/[id]/page.ts", "page.ts"},
		{"{b,c}.txt", "{b,c}.txt", "{b,c}.txt"},
		{`\{b,c\}.txt`, "{b,c}.txt", "."},
		{`app\@x\(group)\y`, "app/@x/(group)/y", "."},
		{`we\\ird`, `we\ird`, "."},
		{"[", "[", "["},
		{"x{1..3}", "x2", "x2"},
		{"[[:alpha:]]x", "ax", "ax"},
		{"*", "a/b/c", "a/b/c"},
		{"*/b", "a/b/c", "a/b/c"},
		{"new\nline", "new\nline", "."},
		{"*", "new\nline", "new\nline"},
		{"dir/*", "dir/../../x", ""},
		{"..", "x", "x"},
		{"x", "../../x", "."},
	} {
		p := planOf(t, c.source, false)
		target, ok := p.place(clean(c.name), false)
		if got := clean(strings.TrimPrefix(target, "/dest")); ok != (c.want != "") || ok && got != c.want {
			t.Errorf("%q of %q: %q, %v; want %q", c.name, c.source, got, ok, c.want)
		}
	}
}

func TestRefusedSources(t *testing.T) {
	for _, source := range []string{"", "a\x00b", strings.Repeat("x", 5000), strings.Repeat("{a,b}", 20)} {
		if s, err := parseSource(source); err == nil {
			t.Errorf("%.20q: %v", source, s)
		}
	}
}

// However a source is written, it takes little time.
func TestPatternsAreCheap(t *testing.T) {
	name := strings.Repeat("a/", 2000) + "b"
	began := time.Now()
	for _, source := range []string{
		strings.Repeat("**/a/", 100) + "c", strings.Repeat("{", 4096), strings.Repeat("{,", 2000), strings.Repeat("*a", 2000), strings.Repeat("[", 4000), strings.Repeat("{a,{", 1000), strings.Repeat("@(", 2000), strings.Repeat("*()", 1000),
	} {
		if s, err := parseSource(source); err == nil {
			s.match(name)
		}
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("%v", took)
	}
}

// Nothing ends up beside the destination.
func FuzzPlace(f *testing.F) {
	for _, source := range []string{".", "a", "a/*", "**/x", "{a,../b}/c", `..\..\x`, "[..]/x", "@(..)/x"} {
		for _, name := range []string{"a", "../a", "a/../../x", "/etc/passwd", "./", "..", "a/x/../../../..", "\x00"} {
			f.Add(source, name, true)
			f.Add(source, name, false)
		}
	}
	f.Fuzz(func(t *testing.T, source, name string, directory bool) {
		s, err := parseSource(source)
		if err != nil {
			return // refused
		}
		p := plan{source: s, dest: "/dest", into: s.glob}
		target, ok := p.place(clean(name), directory)
		if ok && target != "/dest" && !strings.HasPrefix(target, "/dest/") {
			t.Errorf("%q of %q goes to %q", name, source, target)
		}
	})
}
