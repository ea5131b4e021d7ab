package dockerfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder/dockerfile"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// FuzzParse says that every text is a sound plan or an error for its author.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.dockerfile")
	if err != nil || len(files) == 0 {
		f.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, "")
	}
	f.Add([]byte("FROM a AS b\nADD --chmod=1 <<-E c d/\n\t$x\n\tE\nONBUILD RUN <<E\nE"), "b")
	f.Fuzz(func(t *testing.T, text []byte, target string) {
		plan, err := dockerfile.Parse(text, dockerfile.Options{Target: target, Args: map[string]string{"A": "1", "B": ""}})
		if err != nil {
			if e, ok := errors.AsType[*cove.Error](err); !ok || e.Kind != cove.Invalid || e.Msg == "" || !utf8.ValidString(e.Msg) {
				t.Fatalf("error %#v", err)
			}
			return
		}
		if len(plan.Stages) == 0 {
			t.Fatal("a plan of nothing")
		}
		for i, s := range plan.Stages {
			if s.From == "" || s.FromStage >= i || s.Line < 1 {
				t.Fatalf("stage %d: %+v", i, s)
			}
			for _, step := range s.Steps {
				sound(t, i, step)
			}
		}
	})
}

func sound(t *testing.T, stage int, s dockerfile.Step) {
	t.Helper()
	args := map[string]bool{
		dockerfile.Copy: len(s.Args) == 4, dockerfile.Run: len(s.Args) == 1, dockerfile.Env: len(s.Args) > 0 && len(s.Args)%2 == 0,
		dockerfile.Workdir: len(s.Args) == 1, dockerfile.User: len(s.Args) == 1,
	}
	if !args[s.Type] || s.Type != dockerfile.Env && s.Type != dockerfile.Copy && s.Args[0] == "" {
		t.Fatalf("%s with the arguments %q", s.Type, s.Args)
	}
	if s.FromStage >= stage || s.FromStage >= 0 && s.From == "" || s.From != "" && s.Type != dockerfile.Copy ||
		s.Content != nil && (s.Type != dockerfile.Copy || s.From != "") || s.Env != nil && s.Type != dockerfile.Run ||
		s.Line < 1 || strings.ContainsRune(s.Text, '\n') {
		t.Fatalf("%+v", s)
	}
	for _, a := range s.Args {
		dockerfile.Expand(a, 1<<20, func(string) (string, bool) { return "x", true })
	}
}

// strictly matches errors about what BuildKit lets pass.
var strictly = regexp.MustCompile("in the pattern of another|nested|is no reference")

// FuzzExpansion compares the expansion with BuildKit's, of words in which every
// variable is known; and that of a word in which none is with that of a builder
// that then knows them.
func FuzzExpansion(f *testing.F) {
	for _, word := range []string{
		`a$x${y}"b $x \" \$ \a"'c $x'`, `${x:-"a}"}${x:+b\}}${z-c}${z+d}${y:-e$x}`, `${x#l*}${x##?o}${x%"a"}${x//o/\}}${x/l/0}`,
		`$$1${1}$@ ${x?a} \`, `<< EOF < <<-"x"`, `${x:-${y:-${z:-\$x}}}`, `ä$ä${ä}`, `${x#'}'}`, "${x/`//}",
	} {
		f.Add(word, true)
		f.Add(word, false)
	}
	vars := map[string]string{"x": "long.long", "y": "", "e": "$x}", "ä": "ö"}
	f.Fuzz(func(t *testing.T, word string, quotes bool) {
		if len(word) > 1000 || !utf8.ValidString(word) || strings.ContainsAny(word, "\x00\ufeff") {
			return
		}
		got, err := dockerfile.ExpandKnown(word, '\\', quotes, vars)
		if err != nil && strictly.MatchString(err.Error()) {
			return
		}
		var env []string
		for name, text := range vars {
			env = append(env, name+"="+text)
		}
		lex := shell.NewLex('\\')
		lex.SkipProcessQuotes = !quotes
		want, _, wantErr := lex.ProcessWord(word, shell.EnvsFromSlice(env))
		if (err != nil) != (wantErr != nil) || err == nil && got != want {
			t.Fatalf("%q is %q (%v), want %q (%v)", word, got, err, want, wantErr)
		}
		if open, ok := dockerfile.ExpandUnknown(word); ok && quotes && err == nil {
			later, _ := dockerfile.Expand(open, 1<<20, func(name string) (string, bool) { text, ok := vars[name]; return text, ok })
			if strings.ContainsRune(word, 'ä') {
				return // no image has such a variable
			}
			if later != want {
				t.Fatalf("%q is left as %q, which becomes %q instead of %q", word, open, later, want)
			}
		}
	})
}
