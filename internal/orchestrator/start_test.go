package orchestrator_test

import (
	"context"
	"slices"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/orchestrator"
)

// saved makes two snapshots of a sandbox, s1 with its memory and s2 without.
func saved(t *testing.T, o *orchestrator.Orchestrator) {
	t.Helper()
	s := spec()
	s.Start.Command = "afresh"
	if err := o.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	pause(t, o, "s1")
	if err := o.Thaw(t.Context(), id, "x1"); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Pause(t.Context(), id, "x1", node.Save{Snapshot: "s2", FilesOnly: true}); err != nil {
		t.Fatal(err)
	}
	if err := o.Kill(t.Context(), id, "x1"); err != nil {
		t.Fatal(err)
	}
}

func TestStartCommandIsBegunWithoutMemoryOnly(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	saved(t, o)
	for _, c := range []struct {
		snapshot cove.SnapshotID
		command  string
		unused   bool
	}{{"s1", "with memory", false}, {"s2", "", false}, {"s2", "unused", true}, {"s2", "files only", false}} {
		s := spec()
		s.Snapshot, s.Start.Command, s.Unused = c.snapshot, c.command, c.unused
		if err := o.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if err := o.Kill(t.Context(), id, "x1"); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"files only"}; !slices.Equal(m.begun, want) {
		t.Errorf("begun: %q, want %q", m.begun, want)
	}
}

// A sandbox whose start command cannot be begun runs, and its log says why.
func TestStartCommandThatCannotBeBegun(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	saved(t, o)
	told := lines(t, o)
	s := spec()
	s.Snapshot, s.Start.Command = "s2", "serve"
	for err, want := range map[error]string{
		errBroken: "the start command could not be run: internal error",
		cove.E(cove.Invalid, "test", nil, "invalid username: 'x'"): "the start command could not be run: invalid username: 'x'",
	} {
		m.begin = func(context.Context) error { return err }
		if err := o.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		wantLine(t, told, want)
		if err := o.Kill(t.Context(), id, "x1"); err != nil {
			t.Fatal(err)
		}
	}
	// With its request, the boot ends all the same.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	m.begin = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	if err := o.Create(ctx, s); !cove.Is(err, cove.DeadlineExceeded) {
		t.Errorf("after the end of the request: %v", err)
	}
	wantClean(t, m)
	wantNone(t, told)
}

func TestStartCommandThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T, m *machine, o *orchestrator.Orchestrator) {
		saved(t, o)
		m.begin = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		s := spec()
		s.Snapshot, s.Start.Command = "s2", "serve"
		if err := o.Create(t.Context(), s); err != nil {
			t.Error(err)
		}
		if err := o.Kill(t.Context(), id, "x1"); err != nil {
			t.Error(err)
		}
	})
}
