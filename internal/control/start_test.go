package control_test

import (
	"context"
	"maps"
	"reflect"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/control"
)

// webBench is a bench with a template that has a start command.
func webBench(t *testing.T) (*bench, cove.Build) {
	t.Helper()
	b := buildBench(t, nil)
	b.templates.does(func(ctx context.Context, job control.BuildJob) error { return saveInNode(ctx, b, job) })
	_, build := built(t, b, "web")
	return b, build
}

// wantStart checks whether the node is to begin the start command.
func wantStart(t *testing.T, what string, b *bench, id cove.SandboxID, want bool) {
	t.Helper()
	spec, ok := b.node.Spec(id)
	if !ok {
		t.Fatalf("%s: it does not run", what)
	}
	s := spec.Start
	if !want && s.Command == "" {
		return
	}
	if !want || s.Command != "serve" || !maps.Equal(s.Env, map[string]string{"FROM": "template", "K": "build"}) {
		t.Errorf("%s: to begin %+v, want it %v", what, s, want)
	}
}

func TestStartCommandAfterAPauseWithoutMemory(t *testing.T) {
	b, _ := webBench(t)
	sb, _, err := createFrom(t, b, "web")
	if err != nil {
		t.Fatal(err)
	}
	wantStart(t, "a new one", b, sb.ID, false)
	for _, c := range []struct{ saved, resumed, want bool }{{false, false, false}, {true, false, true}, {false, true, true}, {true, true, true}} {
		if err := b.PauseSandbox(t.Context(), team, sb.ID, cove.Pause{FilesOnly: c.saved}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour, FilesOnly: c.resumed}); err != nil {
			t.Fatal(err)
		}
		if wantStart(t, "resumed", b, sb.ID, c.want); t.Failed() {
			t.Fatalf("files only: saved %v, resumed %v", c.saved, c.resumed)
		}
	}
}

func TestKeptSnapshotsHandTheStartCommandOn(t *testing.T) {
	b, build := webBench(t)
	origin, _, err := createFrom(t, b, "web")
	if err != nil {
		t.Fatal(err)
	}
	for name, filesOnly := range map[string]bool{"whole": false, "files": true} {
		kept, err := b.KeepSnapshot(t.Context(), team, origin.ID, cove.NewSnapshot{Name: name, FilesOnly: filesOnly})
		if err != nil {
			t.Fatal(err)
		}
		if record, err := b.store.Build(t.Context(), kept.Build.ID); err != nil || !reflect.DeepEqual(record.Setup, build.Setup) {
			t.Errorf("%s: %+v, %v; want %+v", name, record.Setup, err, build.Setup)
		}
		sb, spec, err := createFrom(t, b, name)
		if err != nil || spec.Env["FROM"] != "template" || spec.Env["K"] != "v" {
			t.Fatalf("%s: %+v, %v", name, spec, err)
		}
		wantStart(t, name, b, sb.ID, filesOnly)
		pause(t, b, sb.ID)
		if _, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour, FilesOnly: true}); err != nil {
			t.Fatal(err)
		}
		wantStart(t, name+", resumed", b, sb.ID, true)
	}
	copies, err := b.ForkSandbox(t.Context(), team, origin.ID, 1, time.Hour)
	if err != nil || copies[0].Err != nil {
		t.Fatalf("%+v, %v", copies, err)
	}
	wantStart(t, "a copy", b, copies[0].Sandbox.ID, false)
}

func TestStartCommandOfATemplateThatIsGone(t *testing.T) {
	b, _ := webBench(t)
	origin, _, err := createFrom(t, b, "web")
	if err != nil {
		t.Fatal(err)
	}
	keep(t, b, origin.ID, "snap")
	sb, _, err := createFrom(t, b, "snap")
	if err != nil {
		t.Fatal(err)
	}
	pause(t, b, sb.ID)
	if err := b.DeleteTemplate(t.Context(), team, "snap"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour, FilesOnly: true}); err != nil {
		t.Fatal(err)
	}
	wantStart(t, "resumed", b, sb.ID, false)
}
