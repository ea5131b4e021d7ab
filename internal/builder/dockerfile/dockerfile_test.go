package dockerfile_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder/dockerfile"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what the Dockerfiles in testdata come to beside them")

// options are those of files in testdata that need some.
var options = map[string]dockerfile.Options{
	"node":      {Args: map[string]string{"NODE_VERSION": "22", "API_URL": "https://api", "http_proxy": "http://proxy", "TYPO": "1"}},
	"variables": {Args: map[string]string{"EMPTY": ""}},
}

// The golden files leave out what is empty, and show content as text.
type (
	goldenPlan struct {
		Stages   []goldenStage
		Warnings []dockerfile.Warning `json:",omitempty"`
	}
	goldenStage struct {
		Name       string `json:",omitempty"`
		From       string
		FromStage  int
		Line       int
		Entrypoint []string `json:",omitempty"`
		Cmd        []string `json:",omitempty"`
		Start      string   `json:",omitempty"`
		Ready      string   `json:",omitempty"`
		Steps      []goldenStep
	}
	goldenStep struct {
		Type      string
		Args      []string
		Env       map[string]string `json:",omitempty"`
		From      string            `json:",omitempty"`
		FromStage int
		Content   *string `json:",omitempty"`
		Line      int
		Text      string
	}
)

func golden(t *testing.T, plan *dockerfile.Plan) []byte {
	t.Helper()
	out := goldenPlan{Warnings: plan.Warnings}
	for _, s := range plan.Stages {
		stage := goldenStage{
			Name: s.Name, From: s.From, FromStage: s.FromStage, Line: s.Line,
			Entrypoint: s.Entrypoint, Cmd: s.Cmd, Start: s.Start, Ready: s.Ready,
		}
		for _, st := range s.Steps {
			step := goldenStep{Type: st.Type, Args: st.Args, Env: st.Env, From: st.From, FromStage: st.FromStage, Line: st.Line, Text: st.Text}
			if st.Content != nil {
				content := string(st.Content)
				step.Content = &content
			}
			stage.Steps = append(stage.Steps, step)
		}
		out.Stages = append(out.Stages, stage)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(out); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.dockerfile")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".dockerfile")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			plan, err := dockerfile.Parse(text, options[name])
			if err != nil {
				t.Fatal(err)
			}
			got, path := golden(t, plan), strings.TrimSuffix(file, ".dockerfile")+".golden"
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("run with -update if this is right:\n%s", diff)
			}
		})
	}
}

func parse(t *testing.T, text string, opts dockerfile.Options) *dockerfile.Plan {
	t.Helper()
	plan, err := dockerfile.Parse([]byte(text), opts)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return plan
}

func TestStartCommand(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{``, ``},
		{`CMD python app.py && true`, `python app.py && true`},
		{`CMD ["python", "app.py"]`, `python app.py`},
		{`CMD ["sh", "-c", "exec app $PORT"]`, `exec app $PORT`},
		{`CMD ["a b", "it's", "", "$HOME"]`, `'a b' 'it'\''s' '' '$HOME'`},
		{`CMD ["A=b", "c=d"]`, `'A=b' c=d`},
		{`CMD ["time", "if"]`, `'time' if`},
		{`CMD []`, ``},
		{`ENTRYPOINT ["app", "-v"]`, `app -v`},
		{"ENTRYPOINT [\"app\"]\nCMD [\"x\"]", `app x`},
		{"CMD [\"x\"]\nENTRYPOINT [\"app\"]", `app x`},
		{"ENTRYPOINT [\"app\"]\nCMD x y", `app /bin/sh -c 'x y'`},
		{"ENTRYPOINT exec app\nCMD [\"x\"]", `exec app`},
		{"ENTRYPOINT exec app\nCMD x", `exec app`},
		{"ENTRYPOINT [\"sh\", \"-c\", \"exec app \\\"$@\\\"\", \"--\"]\nCMD [\"x\"]", `sh -c 'exec app "$@"' -- x`},
		{"ENTRYPOINT [\"app\"]\nENTRYPOINT []\nCMD [\"x\"]", `x`},
		{"SHELL [\"/bin/bash\", \"-ec\"]\nCMD a | b", `/bin/bash -ec 'a | b'`},
		{"SHELL [\"/bin/bash\", \"-c\"]\nCMD a | b", `a | b`},
	} {
		if got := parse(t, "FROM a\n"+test.text, dockerfile.Options{}).Stages[0].Start; got != test.want {
			t.Errorf("%s\nstarts with  %s\nwant         %s", test.text, got, test.want)
		}
	}
	if got := dockerfile.StartCommand([]string{"/entry"}, []string{"run"}); got != "/entry run" {
		t.Errorf("with the image's: %s", got)
	}
}

func TestTarget(t *testing.T) {
	const text = "FROM a AS one\nFROM b AS Two\nCOPY --from=one / /\nFROM one AS three"
	for target, want := range map[string]string{"": "a one", "two": "a b", "TWO": "a b", "0": "a", "1": "a b"} {
		var got []string
		for _, s := range parse(t, text, dockerfile.Options{Target: target}).Stages {
			got = append(got, s.From)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("target %q: stages from %q, want %q", target, got, want)
		}
	}
	for _, target := range []string{"four", "3", "-1"} {
		if _, err := dockerfile.Parse([]byte(text), dockerfile.Options{Target: target}); !cove.Is(err, cove.Invalid) {
			t.Errorf("target %q: %v", target, err)
		}
	}
}

// TestLastDefinitionWins is about ARG and ENV of one name.
func TestLastDefinitionWins(t *testing.T) {
	for text, want := range map[string]string{
		"ARG A=1":                   "1",
		"ARG A=1\nENV A=2":          "2, of ENV",
		"ENV A=2\nARG A=1":          "1",
		"ENV A=2\nARG A":            "2, of ENV",
		"ENV A=2\nARG GLOBAL":       "2, of ENV",
		"ARG GLOBAL\nARG A=$GLOBAL": "3",
		"ARG A=1\nARG A=${A}2":      "12",
		"ARG GIVEN=1\nARG A=$GIVEN": "4",
		"ARG GIVEN\nARG A=$GIVEN":   "4",
	} {
		plan := parse(t, "ARG GLOBAL=3\nFROM a\n"+text+"\nENV SEEN=$A\nRUN x", dockerfile.Options{Args: map[string]string{"GIVEN": "4"}})
		steps := plan.Stages[0].Steps
		got := steps[len(steps)-2].Args[1]
		if _, ok := steps[len(steps)-1].Env["A"]; !ok {
			got += ", of ENV"
		}
		if got != want {
			t.Errorf("%q: A is %s, want %s", text, got, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	plan := parse(t, "# syntax=example/other\nFROM a", dockerfile.Options{})
	if w := plan.Warnings; len(w) != 1 || w[0].Line != 1 || !strings.Contains(w[0].Text, "example/other") {
		t.Errorf("warnings: %+v", w)
	}
}

func TestContentOfNothing(t *testing.T) {
	plan := parse(t, "FROM a\nCOPY <<E /empty\nE\nCOPY b c", dockerfile.Options{})
	if s := plan.Stages[0].Steps; s[0].Content == nil || len(s[0].Content) > 0 || s[1].Content != nil {
		t.Errorf("%+v", s)
	}
}

func TestExpand(t *testing.T) {
	vars := map[string]string{"A": "1", "B": "", "D": "$A}"}
	lookup := func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
	for s, want := range map[string]string{
		`${A}-\$A-$-${`:         `1-$A-$-${`, // as builds without a Dockerfile have it
		`$A$B$C|${A}`:           `1|1`,
		`$D`:                    `$A}`,
		`\a\\$A\`:               `\a\$A\`,
		`${A-x}${B-x}${C-x}`:    `1x`,
		`${A:-x}${B:-x}${C:-x}`: `1xx`,
		`${A+x}${B+x}${C+x}`:    `xx`,
		`${A:+x}${B:+x}${C:+x}`: `x`,
		`${C:-${B:-\}\\\$A$A}}`: `}\$A1`,
		`${A:?x} ${A`:           `${A:?x} ${A`,
		`${} ${1} $1`:           `${} ${1} $1`,
		`${A:-${B} ${C:-x}`:     `${A:- x`,
	} {
		if got, ok := dockerfile.Expand(s, len(want), lookup); got != want || !ok {
			t.Errorf("%s is %s, want %s", s, got, want)
		}
	}
}
