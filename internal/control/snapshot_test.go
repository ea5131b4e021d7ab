package control_test

import (
	"sync"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/control"
	"github.com/cove-sandbox/cove/internal/node/nodetest"
)

// named is a bench whose team has a record, and so a namespace.
func named(t *testing.T, change func(*control.Config)) *bench {
	t.Helper()
	b := open(t, records(t), &nodetest.Fake{}, &builder{}, change)
	if err := b.store.CreateTeam(t.Context(), cove.Team{ID: team, Name: "Acme", CreatedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return b
}

func keep(t *testing.T, b *bench, id cove.SandboxID, name string) cove.NamedSnapshot {
	t.Helper()
	kept, err := b.KeepSnapshot(t.Context(), team, id, cove.NewSnapshot{Name: name})
	if err != nil {
		t.Fatalf("keeping %q: %v", name, err)
	}
	return kept
}

func createFrom(t *testing.T, b *bench, template string) (cove.Sandbox, cove.Spec, error) {
	t.Helper()
	req := request()
	req.Template = template
	sb, err := b.CreateSandbox(t.Context(), team, req)
	spec, _ := b.node.Spec(sb.ID)
	return sb, spec, err
}

func TestKeepSnapshotAndCreateFromIt(t *testing.T) {
	b := named(t, nil)
	origin := create(t, b)
	plain, v1, v2 := keep(t, b, origin.ID, ""), keep(t, b, origin.ID, "snap:v1"), keep(t, b, origin.ID, "acme/snap:v2")
	if plain.Template.Named() || plain.Tag != "default" || v1.Template.ID != v2.Template.ID || v2.Build.Origin != origin.ID {
		t.Errorf("kept %+v, %+v, %+v", plain, v1, v2)
	}
	if wantState(t, b, origin.ID, cove.Running); b.node.Frozen(origin.ID) || snapshots(t, b) != 3 {
		t.Errorf("the origin stands still: %v; %d snapshots", b.node.Frozen(origin.ID), snapshots(t, b))
	}
	for name, want := range map[string]cove.NamedSnapshot{
		string(plain.Template.ID): plain, string(plain.Template.ID) + ":default": plain,
		"snap:v1": v1, "acme/snap:v2": v2, string(v2.Template.ID) + ":v2": v2,
	} {
		sb, spec, err := createFrom(t, b, name)
		if err != nil || spec.Snapshot != want.Build.Snapshot || spec.User != "user" || sb.Snapshot != "" || sb.Template != want.Template.ID {
			t.Errorf("created from %q: %+v, spec %+v, %v", name, sb, spec, err)
		}
	}
	for _, name := range []string{"snap", "snap:v3", "other/snap:v1", "nosuch"} {
		_, _, err := createFrom(t, b, name)
		wantKind(t, "create from "+name, err, cove.NotFound)
	}
	again := keep(t, b, origin.ID, "snap:v1")
	if again.Build.ID == v1.Build.ID || snapshots(t, b) != 3 {
		t.Errorf("the one of the same tag was not replaced: %+v, %d snapshots", again, snapshots(t, b))
	}
}

func TestSnapshotsThatCannotBeKept(t *testing.T) {
	b := named(t, nil)
	sb := create(t, b)
	for name, want := range map[string]cove.Kind{"a b": cove.Invalid, "other/snap": cove.Invalid} {
		_, err := b.KeepSnapshot(t.Context(), team, sb.ID, cove.NewSnapshot{Name: name})
		wantKind(t, name, err, want)
	}
	_, err := b.KeepSnapshot(t.Context(), rival, sb.ID, cove.NewSnapshot{})
	wantKind(t, "another team's", err, cove.NotFound)
	b.node.Deaf = true
	_, err = b.KeepSnapshot(t.Context(), team, sb.ID, cove.NewSnapshot{})
	wantKind(t, "of a deaf one", err, cove.Unavailable)
	b.node.Deaf = false
	pause(t, b, sb.ID)
	_, err = b.KeepSnapshot(t.Context(), team, sb.ID, cove.NewSnapshot{})
	wantKind(t, "of a paused one", err, cove.Conflict)
}

func TestDeleteSnapshots(t *testing.T) {
	b := named(t, nil)
	sb := create(t, b)
	keep(t, b, sb.ID, "snap:v1")
	keep(t, b, sb.ID, "snap:v2")
	made, _, err := createFrom(t, b, "snap:v1")
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, "another team's", b.DeleteTemplate(t.Context(), rival, "snap:v1"), cove.NotFound)
	wantKind(t, "the base template", b.DeleteTemplate(t.Context(), team, "base"), cove.Forbidden)
	if err := b.DeleteTemplate(t.Context(), team, "acme/snap:v1"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "the second time", b.DeleteTemplate(t.Context(), team, "acme/snap:v1"), cove.NotFound)
	if err := b.DeleteTemplate(t.Context(), team, "snap"); err != nil {
		t.Fatal(err)
	}
	if page, err := b.ListSnapshots(t.Context(), team, "", cove.SnapshotFilter{Limit: 9}); err != nil || len(page.Snapshots) != 0 || snapshots(t, b) != 0 {
		t.Errorf("left: %+v, %v, %d snapshots", page, err, snapshots(t, b))
	}
	// What was made from it lives on, pauses and all.
	pause(t, b, made.ID)
	if got, _, err := b.ConnectSandbox(t.Context(), team, made.ID, cove.Resume{Timeout: time.Hour}); err != nil || got.User != "user" {
		t.Errorf("what was made from it: %+v, %v", got, err)
	}
}

func TestKeptSnapshotsOutliveARestartAndOthersDoNot(t *testing.T) {
	b := named(t, nil)
	sb := create(t, b)
	kept := keep(t, b, sb.ID, "snap")
	if err := b.KillSandbox(t.Context(), team, sb.ID); err != nil {
		t.Fatal(err)
	}
	b.stop()
	again := open(t, b.store, b.node, b.base, nil)
	_, spec, err := createFrom(t, again, "snap")
	if err != nil || spec.Snapshot != kept.Build.Snapshot {
		t.Errorf("spec %+v, %v", spec, err)
	}
}

func TestTeamLimits(t *testing.T) {
	b := named(t, func(c *control.Config) { c.TeamSandboxes, c.TeamSnapshotBytes = 2, 2*nodetest.FakeSnapshotBytes })
	one, two := create(t, b), create(t, b)
	_, err := b.CreateSandbox(t.Context(), team, request())
	wantKind(t, "the third", err, cove.Exhausted)
	if _, err := b.CreateSandbox(t.Context(), rival, request()); err != nil {
		t.Errorf("another team's: %v", err)
	}
	pause(t, b, one.ID)
	three := create(t, b)
	_, _, err = b.ConnectSandbox(t.Context(), team, one.ID, cove.Resume{Timeout: time.Hour})
	wantKind(t, "resuming the third", err, cove.Exhausted)
	wantState(t, b, one.ID, cove.Paused)
	pause(t, b, two.ID)
	wantKind(t, "a third snapshot", b.PauseSandbox(t.Context(), team, three.ID, cove.Pause{}), cove.Exhausted)
	wantState(t, b, three.ID, cove.Running)
	_, err = b.KeepSnapshot(t.Context(), team, three.ID, cove.NewSnapshot{})
	wantKind(t, "a third snapshot, kept", err, cove.Exhausted)
}

func TestTeamLimitHoldsInACrowd(t *testing.T) {
	b := named(t, func(c *control.Config) { c.TeamSandboxes = 3 })
	var crowd sync.WaitGroup
	for range 20 {
		crowd.Go(func() {
			if _, err := b.CreateSandbox(t.Context(), team, request()); err != nil && !cove.Is(err, cove.Exhausted) {
				t.Errorf("err = %v", err)
			}
		})
	}
	crowd.Wait()
	if n := len(recorded(t, b)); n != 3 {
		t.Errorf("%d run", n)
	}
}

func TestResumeWithoutMemory(t *testing.T) {
	b := named(t, nil)
	sb := create(t, b)
	pause(t, b, sb.ID)
	saved := wantState(t, b, sb.ID, cove.Paused).Snapshot
	broken := cove.E(cove.Internal, "test", nil, "broken on purpose")

	// Whatever fails on the way, the memory is still there.
	b.node.FailPause = func(cove.SandboxID) error { return broken }
	if _, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour, FilesOnly: true}); err == nil {
		t.Fatal("no error")
	}
	b.node.FailPause = nil
	b.node.Fail = func(s cove.Spec) error {
		if s.Unused != (s.Snapshot == saved) || s.Unused && s.Internet {
			t.Errorf("started with %+v", s)
		}
		if !s.Unused {
			return broken
		}
		return nil
	}
	if _, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour, FilesOnly: true}); err == nil {
		t.Fatal("no error")
	}
	if got := wantState(t, b, sb.ID, cove.Paused); got.Snapshot != saved || got.FilesOnly || snapshots(t, b) != 1 {
		t.Errorf("after failures: %+v, %d snapshots", got, snapshots(t, b))
	}
	b.node.Fail = nil
	got, resumed, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour, FilesOnly: true})
	spec, _ := b.node.Spec(sb.ID)
	if err != nil || !resumed || spec.Snapshot == saved || spec.Unused || got.State != cove.Running || snapshots(t, b) != 0 {
		t.Errorf("%+v, spec %+v, %v, %d snapshots", got, spec, err, snapshots(t, b))
	}
}

func TestPauseOfADeafSandbox(t *testing.T) {
	b := named(t, nil)
	sb := create(t, b)
	b.node.Deaf = true
	wantKind(t, "strictly", b.PauseSandbox(t.Context(), team, sb.ID, cove.Pause{Strict: true}), cove.Unavailable)
	wantState(t, b, sb.ID, cove.Running)
	pause(t, b, sb.ID)
	if !wantState(t, b, sb.ID, cove.Paused).Unresponsive {
		t.Error("it is not noted")
	}
	b.node.Deaf = false
	_, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour})
	wantKind(t, "with its memory", err, cove.Conflict)
	if code := cove.CodeOf(err); code != "sandbox_snapshot_guest_agent_unresponsive" {
		t.Errorf("code = %q", code)
	}
	got, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour, FilesOnly: true})
	if err != nil || got.Unresponsive {
		t.Errorf("without its memory: %+v, %v", got, err)
	}
}

func TestResumeCanChangeWhatHappensInTheEnd(t *testing.T) {
	b := named(t, nil)
	sb := create(t, b)
	pause(t, b, sb.ID)
	got, err := b.ResumeSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour, OnTimeout: cove.PauseOnTimeout})
	if spec, _ := b.node.Spec(sb.ID); err != nil || got.Lifecycle.OnTimeout != cove.PauseOnTimeout || spec.OnTimeout != cove.PauseOnTimeout {
		t.Errorf("%+v, spec %+v, %v", got, spec, err)
	}
}

func TestCrashWhileItIsPausedOrResumed(t *testing.T) {
	b := named(t, nil)
	sb := create(t, b)
	// It ends while it is saved: nothing is left of it.
	b.node.FailPause = func(id cove.SandboxID) error {
		b.node.Crash(id)
		return cove.E(cove.Internal, "test", nil, "gone")
	}
	if err := b.PauseSandbox(t.Context(), team, sb.ID, cove.Pause{}); err == nil {
		t.Error("no error")
	}
	if all := recorded(t, b); len(all) != 0 {
		t.Errorf("records: %+v", all)
	}
	b.node.FailPause = nil
	// It ends as soon as it goes on: what was saved counts.
	sb = create(t, b)
	pause(t, b, sb.ID)
	b.node.Created = func(s cove.Spec) { b.node.Crash(s.ID) }
	if _, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour}); err == nil {
		t.Error("no error")
	}
	b.node.Created = nil
	wantState(t, b, sb.ID, cove.Paused)
	if _, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour}); err != nil {
		t.Errorf("the second try: %v", err)
	}
}
