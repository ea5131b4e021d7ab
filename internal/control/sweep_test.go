package control_test

import (
	"context"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/control"
	"github.com/cove-sandbox/cove/internal/node/nodetest"
	"github.com/cove-sandbox/cove/internal/store"
)

// interrupted is a store that lets something happen just before it writes.
type interrupted struct {
	store.Store
	first func()
}

func (s *interrupted) KeepSnapshot(ctx context.Context, kept cove.NamedSnapshot) (cove.NamedSnapshot, []cove.Build, error) {
	s.first()
	return s.Store.KeepSnapshot(ctx, kept)
}

func (s *interrupted) Transition(ctx context.Context, id cove.SandboxID, x cove.ExecutionID, change store.Change) (cove.Sandbox, error) {
	s.first()
	return s.Store.Transition(ctx, id, x, change)
}

func TestSweepTakesNothingThatIsBeingMade(t *testing.T) {
	s := &interrupted{Store: records(t), first: func() {}}
	b := open(t, s, &nodetest.Fake{}, &builder{}, never)
	swept := 0
	sweep := func() {
		garbage, err := b.Sweep(t.Context(), 0, false)
		if err != nil || len(garbage) > 0 {
			t.Errorf("removed %v, %v", garbage, err)
		}
		swept++
	}
	s.first, b.node.Created = sweep, func(cove.Spec) { sweep() }
	sb := create(t, b)
	if _, err := b.KeepSnapshot(t.Context(), team, sb.ID, cove.NewSnapshot{}); err != nil {
		t.Fatalf("keep: %v", err)
	}
	forks, err := b.ForkSandbox(t.Context(), team, sb.ID, 2, time.Minute)
	if err != nil || len(forks) != 2 || forks[0].Err != nil || forks[1].Err != nil {
		t.Fatalf("fork: %+v, %v", forks, err)
	}
	pause(t, b, sb.ID)
	if _, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour, FilesOnly: true}); err != nil {
		t.Fatalf("without its memory: %v", err)
	}
	pause(t, b, sb.ID)
	if _, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour}); err != nil {
		t.Fatalf("resume: %v", err)
	}
	if swept < 10 {
		t.Errorf("swept %d times", swept)
	}
}

// TestHalfWay puts a sandbox where only an operation that could not write down its
// end leaves one.
func TestHalfWay(t *testing.T) {
	b := fresh(t)
	running := create(t, b)
	if _, err := b.store.Transition(t.Context(), running.ID, running.Execution,
		store.Change{To: cove.Pausing, Snapshot: &store.SnapshotChange{ID: "s1"}}); err != nil {
		t.Fatal(err)
	}
	pause(t, b, running.ID)
	paused := wantState(t, b, running.ID, cove.Paused)
	if _, err := b.store.Transition(t.Context(), paused.ID, paused.Execution,
		store.Change{To: cove.Resuming, Execution: "x9", EndAt: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.ConnectSandbox(t.Context(), team, paused.ID, cove.Resume{Timeout: time.Hour}); err != nil {
		t.Errorf("connect: %v", err)
	}
	wantState(t, b, paused.ID, cove.Running)
}

// updating is a store that lets something happen just before the end of a build
// is on record.
type updating struct {
	store.Store
	first func()
}

func (s *updating) UpdateBuild(ctx context.Context, b cove.Build) error {
	s.first()
	return s.Store.UpdateBuild(ctx, b)
}

func TestSweepTakesNothingOfABuildThatIsNotOnRecord(t *testing.T) {
	s := &updating{Store: records(t), first: func() {}}
	b := open(t, s, &nodetest.Fake{}, &builder{}, never)
	if err := s.CreateTeam(t.Context(), cove.Team{ID: team, Name: "Acme", CreatedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	b.templates.does(func(ctx context.Context, job control.BuildJob) error {
		release := job.Hold(snapshotOf(job.Build.ID))
		defer release() // as the builder does when it has ended
		return saveInNode(ctx, b, job)
	})
	s.first = func() {
		if garbage, err := b.Sweep(context.Background(), 0, false); err != nil || len(garbage) > 0 {
			t.Errorf("removed %v, %v", garbage, err)
		}
	}
	built(t, b, "web")
	if n := snapshots(t, b); n != 1 {
		t.Errorf("%d snapshots", n)
	}
}
