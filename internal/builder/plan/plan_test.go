package plan_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder/dockerfile"
	"github.com/cove-sandbox/cove/internal/builder/plan"
)

var start = plan.Start{Key: "k", Setup: cove.Setup{User: "user", Env: map[string]string{"PATH": "/bin", "HOME": "/h"}, Start: "old", Ready: "old ready"}}

func step(t cove.StepType, args ...string) cove.BuildStep {
	s := cove.BuildStep{Type: t, Args: args}
	if t == cove.CopyStep {
		s.FilesHash = strings.Repeat("a", 64)
	}
	return s
}

func must(t *testing.T, order cove.BuildOrder) *plan.Plan {
	t.Helper()
	p, err := plan.Make(start, order)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWhatStepsRunWith(t *testing.T) {
	p := must(t, cove.BuildOrder{Steps: []cove.BuildStep{
		step(cove.RunStep, "one"),
		step(cove.EnvStep, "A", "1", "PATH", "/x:$PATH", "B", `${A}-\$A-$-${`),
		step(cove.WorkdirStep, "app"),
		step(cove.RunStep, "two"),
		step(cove.UserStep, "root"),
		step(cove.WorkdirStep, "$A/../b"),
		step(cove.CopyStep, "src", "$A/dest", "", ""),
		step(cove.WorkdirStep, "/srv//x/"),
	}})
	s := p.Steps
	if s[0].User != "user" || s[0].Workdir != "" || !maps.Equal(s[0].Env, start.Setup.Env) {
		t.Errorf("first: %+v", s[0])
	}
	want := map[string]string{"PATH": "/x:/bin", "HOME": "/h", "A": "1", "B": "-$A-$-${"}
	if s[3].Workdir != "/home/user/app" || !maps.Equal(s[3].Env, want) {
		t.Errorf("fourth: %+v", s[3])
	}
	if s[6].User != "root" || s[6].Workdir != "/home/user/app/b" || s[6].Args[1] != "1/dest" {
		t.Errorf("seventh: %+v", s[6])
	}
	if p.Setup.Workdir != "/srv/x" || p.Setup.User != "root" || len(start.Setup.BuildEnv) != 0 || maps.Equal(p.Setup.Env, want) {
		t.Errorf("in the end: %+v", p.Setup)
	}
	if p.Setup.Start != "old" || p.Setup.Ready != "old ready" {
		t.Errorf("commands: %+v", p.Setup)
	}
	if s[1].Works() || !s[2].Works() {
		t.Error("ENV works, or WORKDIR does not")
	}
}

func TestCommands(t *testing.T) {
	if p := must(t, cove.BuildOrder{Start: "new"}); p.Setup.Start != "new" || p.Setup.Ready != "" {
		t.Errorf("a new start command with the old one's ready command: %+v", p.Setup)
	}
	if p := must(t, cove.BuildOrder{Ready: "new"}); p.Setup.Start != "old" || p.Setup.Ready != "new" {
		t.Errorf("%+v", p.Setup)
	}
}

func TestKeys(t *testing.T) {
	base := []cove.BuildStep{step(cove.RunStep, "a b"), step(cove.RunStep, "c")}
	keys := func(steps ...cove.BuildStep) string { return must(t, cove.BuildOrder{Steps: steps}).Files }
	if keys(base...) != keys(base...) {
		t.Error("the same steps have other keys")
	}
	seen := map[string]string{}
	other := step(cove.CopyStep, "a", "b")
	other.FilesHash = strings.Repeat("b", 64)
	for what, steps := range map[string][]cove.BuildStep{
		"as it is":   base,
		"swapped":    {base[1], base[0]},
		"split":      {step(cove.RunStep, "a", "b"), base[1]},
		"one less":   base[:1],
		"none":       nil,
		"files":      {step(cove.CopyStep, "a", "b")},
		"more files": {other},
		"env":        {step(cove.EnvStep, "a", "b")},
	} {
		k := keys(steps...)
		if seen[k] != "" {
			t.Errorf("%q has the key of %q", what, seen[k])
		}
		seen[k] = what
	}
	forced := must(t, cove.BuildOrder{Steps: []cove.BuildStep{base[0], {Type: cove.RunStep, Args: []string{"c"}, Force: true}, base[1]}})
	if forced.Steps[0].Forced || !forced.Steps[1].Forced || !forced.Steps[2].Forced || forced.Steps[1].Key != must(t, cove.BuildOrder{Steps: base}).Files {
		t.Errorf("forced: %+v", forced.Steps)
	}
}

func TestRefused(t *testing.T) {
	for what, s := range map[string]cove.BuildStep{
		"unknown":         step("ADD", "a", "b"),
		"run nothing":     step(cove.RunStep),
		"copy to nowhere": step(cove.CopyStep, "a"),
		"copy no files":   {Type: cove.CopyStep, Args: []string{"a", "b"}},
		"half a variable": step(cove.EnvStep, "A", "1", "B"),
		"no name":         step(cove.EnvStep, "", "1"),
		"odd name":        step(cove.EnvStep, "A=B", "1"),
		"option as user":  step(cove.UserStep, "--help"),
		"no user":         step(cove.UserStep, "$NONE"),
		"two directories": step(cove.WorkdirStep, "a", "b"),
	} {
		_, err := plan.Make(start, cove.BuildOrder{Steps: []cove.BuildStep{step(cove.RunStep, "x"), s}})
		if !cove.Is(err, cove.Invalid) || !strings.Contains(err.Error(), "step 2") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestVariablesAreBounded: a few lines that double each other come to nothing.
func TestVariablesAreBounded(t *testing.T) {
	steps := []cove.BuildStep{step(cove.EnvStep, "A", strings.Repeat("x", 1000))}
	for range 40 {
		steps = append(steps, step(cove.EnvStep, "A", "$A$A"))
	}
	if _, err := plan.Make(start, cove.BuildOrder{Steps: steps}); !cove.Is(err, cove.Invalid) || !strings.Contains(err.Error(), "step 9: the variables of a build") {
		t.Errorf("err = %v", err)
	}
	// What is set again takes its place once.
	steps = nil
	for range 100 {
		steps = append(steps, step(cove.EnvStep, "A", strings.Repeat("x", 100_000)))
	}
	must(t, cove.BuildOrder{Steps: steps})
	long := append(steps[:1], step(cove.CopyStep, "src", strings.Repeat("$A", 1000)))
	if _, err := plan.Make(start, cove.BuildOrder{Steps: long}); !cove.Is(err, cove.Invalid) {
		t.Errorf("err = %v", err)
	}
}

func TestUsualPath(t *testing.T) {
	none := plan.Start{Setup: cove.Setup{User: "user"}}
	p, err := plan.Make(none, cove.BuildOrder{Steps: []cove.BuildStep{step(cove.EnvStep, "PATH", "/x:$PATH"), step(cove.EnvStep, "PATH", "/y:${PATH:-none}")}})
	if err != nil || !strings.HasPrefix(p.Setup.BuildEnv["PATH"], "/y:/x:/usr/local/sbin:") {
		t.Errorf("%+v, %v", p, err)
	}
}

// stages plans the last stage of a Dockerfile.
func stages(t *testing.T, text string) ([]plan.Step, *plan.Plan, error) {
	t.Helper()
	d, err := dockerfile.Parse([]byte(text), dockerfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	steps := plan.StepsOf(d, len(d.Stages)-1)
	p, err := plan.MakeStage(start, steps, "", "", false)
	return steps, p, err
}

func TestStages(t *testing.T) {
	_, p, err := stages(t, "FROM a AS one\nWORKDIR x\nENV A=$PATH B=\\$A\nFROM one\nARG C=c\nRUN a $B\nCOPY --from=one --chmod=${M:-0755} --chown=$U:$U /a $A/b\nCOPY --from=image c d\nCOPY e f\n")
	if err != nil {
		t.Fatal(err)
	}
	s := p.Steps
	if len(s) != 6 || s[0].Label != "[one 1/2]" || s[2].Label != "[stage-1 1/4]" || s[5].Number != 6 || s[2].Text() != "RUN a $B" || s[2].Line != 6 {
		t.Fatalf("%+v", s)
	}
	if s[0].User != "root" || s[2].Workdir != "/x" || s[2].Args[0] != "a $B" || s[2].Env["A"] != "/bin" || s[2].Env["B"] != "$A" || s[2].Extra["C"] != "c" {
		t.Errorf("third: %+v", s[2])
	}
	if !slices.Equal(s[3].Args, []string{"/a", "/bin/b", ":", "0755"}) || s[3].Source.Stage != 0 || s[4].Source.Image != "image" || !s[5].Source.Context() || s[3].Source.Context() {
		t.Errorf("copies: %+v %+v %+v", s[3], s[4], s[5])
	}
	// The user of templates stays, with the directory of the Dockerfile.
	if p.Setup.User != "user" || p.Setup.Workdir != "/x" {
		t.Errorf("%+v", p.Setup)
	}
	if _, p, err = stages(t, "FROM a\nUSER root"); err != nil || p.Setup.User != "root" || p.Setup.Workdir != "" {
		t.Errorf("%+v, %v", p.Setup, err)
	}
	if _, _, err = stages(t, "FROM a\n\nCOPY --chmod=u+x a b"); !cove.Is(err, cove.Invalid) || !strings.Contains(err.Error(), "Dockerfile line 3: --chmod=u+x") {
		t.Errorf("err = %v", err)
	}
}

// TestStageKeys: all that a step does is in its key.
func TestStageKeys(t *testing.T) {
	seen := map[string]string{}
	for _, text := range []string{"RUN a", "RUN b", "ARG A=1\nRUN a", "ARG A=2\nRUN a", "COPY <<E /a\nx\nE", "COPY <<E /a\ny\nE", "COPY <<E /a\nE", "COPY E /a"} {
		_, p, err := stages(t, "FROM a\n"+text)
		if err != nil {
			t.Fatal(err)
		}
		if seen[p.Files] != "" {
			t.Errorf("%q has the key of %q", text, seen[p.Files])
		}
		seen[p.Files] = text
	}
	steps, p, _ := stages(t, "FROM a\nCOPY a b")
	steps[0].Source.Key = "other"
	if other, err := plan.MakeStage(start, steps, "", "", false); err != nil || other.Files == p.Files {
		t.Errorf("the source is not in the key, %v", err)
	}
}

func TestText(t *testing.T) {
	p := must(t, cove.BuildOrder{Steps: []cove.BuildStep{step(cove.RunStep, "a  &&\n\tb", ""), step(cove.RunStep, strings.Repeat("ä", 300))}})
	if got := p.Steps[0].Text(); got != "RUN a && b" {
		t.Errorf("text = %q", got)
	}
	if got := must(t, cove.BuildOrder{Steps: []cove.BuildStep{step(cove.RunStep, "a", "root")}}).Steps[0].Text(); got != "RUN a (as root)" {
		t.Errorf("text = %q", got)
	}
	if got := p.Steps[1].Text(); len([]rune(got)) != 207 {
		t.Errorf("text of %d runes", len([]rune(got)))
	}
}
