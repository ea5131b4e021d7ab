package control_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/node/nodetest"
	"github.com/cove-sandbox/cove/internal/store"
)

func pause(t *testing.T, b *bench, id cove.SandboxID) {
	t.Helper()
	if err := b.PauseSandbox(t.Context(), team, id, cove.Pause{}); err != nil {
		t.Fatalf("pause: %v", err)
	}
}

func snapshots(t *testing.T, b *bench) int {
	t.Helper()
	all, err := b.node.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// wantState asks for a sandbox and compares its state; it returns the record.
func wantState(t *testing.T, b *bench, id cove.SandboxID, want cove.State) cove.Sandbox {
	t.Helper()
	sb, err := b.Sandbox(t.Context(), team, id)
	if err != nil || sb.State != want {
		t.Fatalf("state = %q, %v; want %q", sb.State, err, want)
	}
	return sb
}

func TestPauseAndConnect(t *testing.T) {
	b := fresh(t)
	sb := create(t, b)
	pause(t, b, sb.ID)
	if _, runs := b.node.Spec(sb.ID); runs || snapshots(t, b) != 1 {
		t.Errorf("runs %v, %d snapshots", runs, snapshots(t, b))
	}
	wantState(t, b, sb.ID, cove.Paused)
	wantKind(t, "the second pause", b.PauseSandbox(t.Context(), team, sb.ID, cove.Pause{}), cove.Conflict)
	wantKind(t, "timeout of a paused one", b.SetTimeout(t.Context(), team, sb.ID, time.Hour), cove.NotFound)

	got, resumed, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour})
	if err != nil || !resumed || got.State != cove.Running || got.EndAt.Sub(got.StartedAt) != time.Hour {
		t.Fatalf("connect: %+v, resumed %v, %v", got, resumed, err)
	}
	spec, _ := b.node.Spec(sb.ID)
	if spec.Snapshot == "" || spec.Execution == sb.Execution || spec.Token != "token-"+string(sb.ID) || spec.Env["K"] != "v" {
		t.Errorf("spec = %+v", spec)
	}
	if snapshots(t, b) != 0 {
		t.Error("the snapshot outlived the resume")
	}
	if _, resumed, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Second}); err != nil || resumed {
		t.Errorf("connecting to one that runs: resumed %v, %v", resumed, err)
	}
	_, err = b.ResumeSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Second})
	wantKind(t, "resuming one that runs", err, cove.Conflict)
}

func TestOthersCannotPauseOrResume(t *testing.T) {
	b := fresh(t)
	sb := create(t, b)
	wantKind(t, "pause", b.PauseSandbox(t.Context(), rival, sb.ID, cove.Pause{}), cove.NotFound)
	pause(t, b, sb.ID)
	_, _, err := b.ConnectSandbox(t.Context(), rival, sb.ID, cove.Resume{Timeout: time.Hour})
	wantKind(t, "connect", err, cove.NotFound)
	wantState(t, b, sb.ID, cove.Paused)
}

func TestFailedPauseAndResumeChangeNothing(t *testing.T) {
	b := fresh(t)
	sb := create(t, b)
	cause := cove.E(cove.NoSpace, "test", nil, "no room")
	b.node.FailPause = func(cove.SandboxID) error { return cause }
	if err := b.PauseSandbox(t.Context(), team, sb.ID, cove.Pause{}); !errors.Is(err, cause) {
		t.Errorf("err = %v", err)
	}
	if got := wantState(t, b, sb.ID, cove.Running); got.Snapshot != "" || !got.EndAt.Equal(sb.EndAt) {
		t.Errorf("after the failed pause: %+v", got)
	}
	b.node.FailPause = nil
	pause(t, b, sb.ID)
	b.node.Fail = func(cove.Spec) error { return cause }
	if _, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour}); !errors.Is(err, cause) {
		t.Errorf("err = %v", err)
	}
	wantState(t, b, sb.ID, cove.Paused)
	if snapshots(t, b) != 1 {
		t.Error("the failed resume took the snapshot")
	}
	b.node.Fail = nil
	if _, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour}); err != nil {
		t.Errorf("the second try: %v", err)
	}
}

func TestManyPauseAndConnectAtOnce(t *testing.T) {
	b := fresh(t)
	sb := create(t, b)
	for range 20 {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := b.PauseSandbox(t.Context(), team, sb.ID, cove.Pause{}); err != nil && !cove.Is(err, cove.Conflict) {
					t.Errorf("pause: %v", err)
				}
			})
			wg.Go(func() {
				if got, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour}); err != nil || got.State != cove.Running {
					t.Errorf("connect: %v %v", got.State, err)
				}
			})
		}
		wg.Wait()
	}
	if _, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if _, runs := b.node.Spec(sb.ID); !runs || snapshots(t, b) != 0 {
		t.Errorf("in the end: runs %v, %d snapshots", runs, snapshots(t, b))
	}
}

func TestKillOfAPausedSandbox(t *testing.T) {
	b := fresh(t)
	sb := create(t, b)
	pause(t, b, sb.ID)
	if err := b.KillSandbox(t.Context(), team, sb.ID); err != nil {
		t.Fatal(err)
	}
	if len(recorded(t, b)) != 0 || snapshots(t, b) != 0 {
		t.Errorf("left: %v, %d snapshots", recorded(t, b), snapshots(t, b))
	}
}

func TestTimeUpPauses(t *testing.T) {
	b := fresh(t)
	req := request()
	req.OnTimeout = cove.PauseOnTimeout
	sb, err := b.CreateSandbox(t.Context(), team, req)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.SetTimeout(t.Context(), team, sb.ID, 0); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		got, err := b.Sandbox(t.Context(), team, sb.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.State == cove.Paused {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %s", got.State)
		}
	}
}

func TestWake(t *testing.T) {
	b := fresh(t)
	plain := create(t, b)
	req := request()
	req.OnTimeout, req.AutoResume, req.Timeout = cove.PauseOnTimeout, true, time.Hour
	woken, err := b.CreateSandbox(t.Context(), team, req)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Wake(t.Context(), plain.ID, false, ""); err != nil {
		t.Errorf("waking one that runs: %v", err)
	}
	pause(t, b, plain.ID)
	pause(t, b, woken.ID)
	wantKind(t, "one that is not to be woken", b.Wake(t.Context(), plain.ID, false, ""), cove.NotFound)
	wantKind(t, "unknown", b.Wake(t.Context(), "inosuch", false, ""), cove.NotFound)
	wantKind(t, "without the token", b.Wake(t.Context(), woken.ID, true, "wrong"), cove.Forbidden)
	wantState(t, b, woken.ID, cove.Paused)
	if err := b.Wake(t.Context(), woken.ID, true, "token-"+string(woken.ID)); err != nil {
		t.Fatalf("with the token: %v", err)
	}
	if got := wantState(t, b, woken.ID, cove.Running); got.EndAt.Sub(got.StartedAt) != time.Hour || !got.Lifecycle.AutoResume {
		t.Errorf("woken: %+v", got)
	}
}

func TestPauseOfFilesOnly(t *testing.T) {
	b := fresh(t)
	req := request()
	req.OnTimeout, req.AutoResume = cove.PauseOnTimeout, true
	sb, err := b.CreateSandbox(t.Context(), team, req)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.PauseSandbox(t.Context(), team, sb.ID, cove.Pause{FilesOnly: true}); err != nil {
		t.Fatal(err)
	}
	if got := wantState(t, b, sb.ID, cove.Paused); !got.FilesOnly {
		t.Errorf("record = %+v", got)
	}
	wantKind(t, "traffic", b.Wake(t.Context(), sb.ID, false, ""), cove.NotFound)
	got, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour})
	if err != nil || got.FilesOnly {
		t.Errorf("connect: %+v, %v", got, err)
	}
}

func TestRestartDuringPauseAndResume(t *testing.T) {
	// Each case: what was done before the server died, and what must be then.
	snapshot, none := store.SnapshotChange{ID: "s1"}, store.SnapshotChange{}
	ctx := context.Background()
	change := func(t *testing.T, b *bench, sb cove.Sandbox, c store.Change) cove.Sandbox {
		t.Helper()
		sb, err := b.store.Transition(ctx, sb.ID, sb.Execution, c)
		if err != nil {
			t.Fatal(err)
		}
		return sb
	}
	save := func(t *testing.T, b *bench, sb cove.Sandbox) {
		t.Helper()
		if _, err := b.node.Pause(ctx, sb.ID, sb.Execution, node.Save{Snapshot: snapshot.ID}); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		before    func(*testing.T, *bench, cove.Sandbox)
		want      cove.State
		runs      bool
		snapshots int
	}{
		"before the snapshot": {func(t *testing.T, b *bench, sb cove.Sandbox) {
			change(t, b, sb, store.Change{To: cove.Pausing, Snapshot: &snapshot})
		}, cove.Running, true, 0},
		"after the snapshot, before the record": {func(t *testing.T, b *bench, sb cove.Sandbox) {
			save(t, b, change(t, b, sb, store.Change{To: cove.Pausing, Snapshot: &snapshot}))
		}, cove.Running, true, 0},
		"the same, and the host went down": {func(t *testing.T, b *bench, sb cove.Sandbox) {
			save(t, b, change(t, b, sb, store.Change{To: cove.Pausing, Snapshot: &snapshot}))
			b.node.Crash(sb.ID)
		}, cove.Paused, false, 1},
		"after the record, before the end": {func(t *testing.T, b *bench, sb cove.Sandbox) {
			sb = change(t, b, sb, store.Change{To: cove.Pausing, Snapshot: &snapshot})
			save(t, b, sb)
			change(t, b, sb, store.Change{To: cove.Paused})
		}, cove.Paused, false, 1},
		"while it was resumed": {func(t *testing.T, b *bench, sb cove.Sandbox) {
			sb = change(t, b, sb, store.Change{To: cove.Pausing, Snapshot: &snapshot})
			save(t, b, sb)
			b.node.Crash(sb.ID)
			sb = change(t, b, sb, store.Change{To: cove.Paused})
			sb = change(t, b, sb, store.Change{To: cove.Resuming, Execution: "x2"})
			if err := b.node.Create(ctx, cove.Spec{ID: sb.ID, Execution: "x2", Snapshot: snapshot.ID, EndAt: time.Now().Add(time.Hour)}); err != nil {
				t.Fatal(err)
			}
		}, cove.Paused, false, 1},
		"after it was resumed, before the snapshot went": {func(t *testing.T, b *bench, sb cove.Sandbox) {
			sb = change(t, b, sb, store.Change{To: cove.Pausing, Snapshot: &snapshot})
			save(t, b, sb)
			sb = change(t, b, sb, store.Change{To: cove.Running, Snapshot: &none})
			_ = sb
		}, cove.Running, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, records(t), &nodetest.Fake{}, &builder{}, nil)
			sb := create(t, b)
			b.stop()
			c.before(t, b, sb)
			again := open(t, b.store, b.node, b.base, nil)
			wantState(t, again, sb.ID, c.want)
			_, runs := b.node.Spec(sb.ID)
			if runs != c.runs || b.node.Frozen(sb.ID) || snapshots(t, again) != c.snapshots {
				t.Errorf("runs %v, stands still %v, %d snapshots; want %v, false, %d",
					runs, b.node.Frozen(sb.ID), snapshots(t, again), c.runs, c.snapshots)
			}
			if _, _, err := again.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour}); err != nil {
				t.Errorf("connecting afterwards: %v", err)
			}
		})
	}
}

func TestFork(t *testing.T) {
	b := fresh(t)
	sb := create(t, b)
	results, err := b.ForkSandbox(t.Context(), team, sb.ID, 3, time.Hour)
	if err != nil || len(results) != 3 {
		t.Fatalf("%v, %v", results, err)
	}
	seen := map[cove.SandboxID]bool{sb.ID: true}
	for _, r := range results {
		spec, runs := b.node.Spec(r.Sandbox.ID)
		if r.Err != nil || !runs || seen[r.Sandbox.ID] || spec.Snapshot == "" || spec.Token != "token-"+string(r.Sandbox.ID) ||
			r.Sandbox.EndAt.Sub(r.Sandbox.StartedAt) != time.Hour || r.Sandbox.Metadata["a"] != "b" {
			t.Errorf("%+v, spec %+v", r, spec)
		}
		seen[r.Sandbox.ID] = true
	}
	if got := wantState(t, b, sb.ID, cove.Running); !got.EndAt.Equal(sb.EndAt) || b.node.Frozen(sb.ID) {
		t.Errorf("the origin: %+v, stands still %v", got, b.node.Frozen(sb.ID))
	}
	if snapshots(t, b) != 0 {
		t.Error("the snapshot is still there")
	}
}

func TestForkSucceedsInPart(t *testing.T) {
	b := fresh(t)
	sb := create(t, b)
	var mu sync.Mutex
	n := 0
	b.node.Fail = func(cove.Spec) error {
		mu.Lock()
		defer mu.Unlock()
		if n++; n%2 == 0 {
			return cove.E(cove.Exhausted, "test", nil, "full")
		}
		return nil
	}
	results, err := b.ForkSandbox(t.Context(), team, sb.ID, 4, time.Hour)
	failed := 0
	for _, r := range results {
		if r.Err != nil {
			failed++
		}
	}
	if err != nil || failed != 2 || len(recorded(t, b)) != 3 {
		t.Errorf("%v: %d of %d failed, %d records", err, failed, len(results), len(recorded(t, b)))
	}
	pause(t, b, sb.ID)
	_, err = b.ForkSandbox(t.Context(), team, sb.ID, 1, time.Hour)
	wantKind(t, "fork of a paused one", err, cove.Conflict)
	_, err = b.ForkSandbox(t.Context(), rival, sb.ID, 1, time.Hour)
	wantKind(t, "fork by another team", err, cove.NotFound)
}
