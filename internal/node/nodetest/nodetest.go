// Package nodetest holds the examination that every node.Node passes, and Fake,
// a node without sandboxes that passes it too.
//
// It is for tests; nothing else may import it.
package nodetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
)

// Bench is what the suite needs to examine a node.
type Bench struct {
	// Open returns an empty node that serves until the test ends.
	Open func(t *testing.T) node.Node
	// Crash makes a sandbox of the node that Open returned last end by itself.
	Crash func(t *testing.T, id cove.SandboxID)
	// Say makes the daemon in a sandbox of that node say something.
	Say func(t *testing.T, id cove.SandboxID, message string)
}

// Run runs the suite.
func Run(t *testing.T, b Bench) {
	for name, test := range map[string]func(*testing.T, Bench){
		"create, list, kill":                   createListKill,
		"create twice conflicts":               createTwice,
		"kill pins the execution":              killPinned,
		"kill of nobody is not an error":       killNobody,
		"the end is kept and can be moved":     endIsKept,
		"the end of nobody is not found":       endOfNobody,
		"a crash is told":                      crashIsTold,
		"dial of nobody is not found":          dialNobody,
		"dial of a closed port says just so":   dialClosed,
		"an ended sandbox's place is free":     placeIsFree,
		"pause, end, and go on":                pauseAndGoOn,
		"pause and thaw":                       pauseAndThaw,
		"what nothing needs is swept":          sweep,
		"pause of nobody is not found":         pauseNobody,
		"going on from nothing is not found":   goOnFromNothing,
		"one that is to be paused is only due": dueIsTold,
		"a subscription ends with its context": subscriptionEnds,
		"what runs is measured":                runningIsMeasured,
		"what a daemon says is told":           sayingIsTold,
		"what was written can be exported":     exports,
		"an export nobody reads does no harm":  exportToNobody,
		"an export of nobody is not found":     exportOfNobody,
	} {
		t.Run(name, func(t *testing.T) { test(t, b) })
	}
}

const bound = 30 * time.Second

func spec(end time.Duration) cove.Spec {
	return cove.Spec{ID: "i1", Execution: "x1", Build: "b1", Internet: true, EndAt: time.Now().Add(end),
		Resources: cove.Resources{CPUs: 1, MemoryMB: 128, DiskMB: 128}}
}

func create(t *testing.T, n node.Node, end time.Duration) {
	t.Helper()
	if err := n.Create(t.Context(), spec(end)); err != nil {
		t.Fatalf("create: %v", err)
	}
	t.Cleanup(func() {
		// The test's context has ended; a node that has stopped has nothing to kill.
		_ = n.Kill(t.Context(), "i1", "x1")
	})
}

func listed(t *testing.T, n node.Node) []node.Running {
	t.Helper()
	list, err := n.List(t.Context())
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	return list
}

func events(t *testing.T, n node.Node) <-chan node.Event {
	t.Helper()
	events := make(chan node.Event, 16)
	if err := n.Subscribe(t.Context(), func(e node.Event) { events <- e }); err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	return events
}

func want(t *testing.T, events <-chan node.Event, reason node.What) {
	t.Helper()
	select {
	case e := <-events:
		if e != (node.Event{ID: "i1", Execution: "x1", What: reason}) {
			t.Errorf("event = %+v, want reason %s", e, reason)
		}
	case <-time.After(bound):
		t.Errorf("no event; want reason %s", reason)
	}
}

func createListKill(t *testing.T, b Bench) {
	n := b.Open(t)
	told := events(t, n)
	if list := listed(t, n); len(list) != 0 {
		t.Errorf("an empty node lists %v", list)
	}
	create(t, n, time.Hour)
	if list := listed(t, n); len(list) != 1 || list[0].ID != "i1" || list[0].Execution != "x1" {
		t.Errorf("list = %+v", list)
	}
	if err := n.Kill(t.Context(), "i1", "x1"); err != nil {
		t.Fatalf("kill: %v", err)
	}
	want(t, told, node.Killed)
	if list := listed(t, n); len(list) != 0 {
		t.Errorf("after the kill it lists %v", list)
	}
}

func createTwice(t *testing.T, b Bench) {
	n := b.Open(t)
	create(t, n, time.Hour)
	if err := n.Create(t.Context(), spec(time.Hour)); !cove.Is(err, cove.Conflict) {
		t.Errorf("err = %v, want conflict", err)
	}
	if list := listed(t, n); len(list) != 1 {
		t.Errorf("the refused create changed the list: %v", list)
	}
}

func killPinned(t *testing.T, b Bench) {
	n := b.Open(t)
	create(t, n, time.Hour)
	if err := n.Kill(t.Context(), "i1", "x2"); err != nil {
		t.Errorf("kill: %v", err)
	}
	if list := listed(t, n); len(list) != 1 {
		t.Error("a kill meant for another execution hit this one")
	}
}

func killNobody(t *testing.T, b Bench) {
	if err := b.Open(t).Kill(t.Context(), "inobody", "x1"); err != nil {
		t.Errorf("kill: %v", err)
	}
}

func endIsKept(t *testing.T, b Bench) {
	n := b.Open(t)
	told := events(t, n)
	create(t, n, time.Hour)
	later := time.Now().Add(2 * time.Hour).Truncate(time.Microsecond)
	if err := n.SetEnd(t.Context(), "i1", "x1", later); err != nil {
		t.Fatalf("set end: %v", err)
	}
	if list := listed(t, n); len(list) != 1 || !list[0].EndAt.Equal(later) {
		t.Errorf("list = %+v, want the end at %v", list, later)
	}
	if err := n.SetEnd(t.Context(), "i1", "x1", time.Now()); err != nil {
		t.Fatalf("set end: %v", err)
	}
	want(t, told, node.Expired)
	if list := listed(t, n); len(list) != 0 {
		t.Errorf("after its end it lists %v", list)
	}
}

func endOfNobody(t *testing.T, b Bench) {
	n := b.Open(t)
	if err := n.SetEnd(t.Context(), "inobody", "x1", time.Now()); !cove.Is(err, cove.NotFound) {
		t.Errorf("err = %v, want not found", err)
	}
	create(t, n, time.Hour)
	if err := n.SetEnd(t.Context(), "i1", "x2", time.Now()); !cove.Is(err, cove.NotFound) {
		t.Errorf("of another execution: %v, want not found", err)
	}
}

func crashIsTold(t *testing.T, b Bench) {
	n := b.Open(t)
	told := events(t, n)
	create(t, n, time.Hour)
	b.Crash(t, "i1")
	want(t, told, node.Crashed)
	if list := listed(t, n); len(list) != 0 {
		t.Errorf("after the crash it lists %v", list)
	}
}

func dialNobody(t *testing.T, b Bench) {
	if _, err := b.Open(t).Dial(t.Context(), "inobody", 80); !cove.Is(err, cove.NotFound) {
		t.Errorf("err = %v, want not found", err)
	}
}

func dialClosed(t *testing.T, b Bench) {
	n := b.Open(t)
	create(t, n, time.Hour)
	if _, err := n.Dial(t.Context(), "i1", 9); !errors.Is(err, node.ErrPortClosed) {
		t.Errorf("err = %v, want ErrPortClosed", err)
	}
}

func placeIsFree(t *testing.T, b Bench) {
	n := b.Open(t)
	for range 3 {
		create(t, n, time.Hour)
		if err := n.Kill(t.Context(), "i1", "x1"); err != nil {
			t.Fatalf("kill: %v", err)
		}
	}
}

func snapshots(t *testing.T, n node.Node) int {
	t.Helper()
	all, err := n.Snapshots(t.Context())
	if err != nil {
		t.Fatalf("snapshots: %v", err)
	}
	return len(all)
}

func pauseAndGoOn(t *testing.T, b Bench) {
	n := b.Open(t)
	create(t, n, time.Hour)
	if _, err := n.Pause(t.Context(), "i1", "x1", node.Save{Snapshot: "s1"}); err != nil {
		t.Fatalf("pause: %v", err)
	}
	if list := listed(t, n); len(list) != 1 || snapshots(t, n) != 1 {
		t.Errorf("while it stands still: list %v, %d snapshots", list, snapshots(t, n))
	}
	if err := n.Kill(t.Context(), "i1", "x1"); err != nil {
		t.Fatalf("kill: %v", err)
	}
	again := spec(time.Hour)
	again.Execution, again.Snapshot = "x2", "s1"
	if err := n.Create(t.Context(), again); err != nil {
		t.Fatalf("going on: %v", err)
	}
	if err := n.Kill(t.Context(), "i1", "x2"); err != nil {
		t.Fatalf("kill: %v", err)
	}
	for range 2 { // the second time there is nothing to do
		if err := n.DeleteSnapshot(t.Context(), "s1"); err != nil {
			t.Fatalf("delete: %v", err)
		}
	}
	if left := snapshots(t, n); left != 0 {
		t.Errorf("%d snapshots left", left)
	}
}

func pauseAndThaw(t *testing.T, b Bench) {
	n := b.Open(t)
	create(t, n, time.Hour)
	if _, err := n.Pause(t.Context(), "i1", "x1", node.Save{Snapshot: "s1"}); err != nil {
		t.Fatalf("pause: %v", err)
	}
	for range 2 { // thawing what is not stopped is not an error
		if err := n.Thaw(t.Context(), "i1", "x1"); err != nil {
			t.Fatalf("thaw: %v", err)
		}
	}
	if _, err := n.Pause(t.Context(), "i1", "x1", node.Save{Snapshot: "s2"}); err != nil {
		t.Errorf("a second pause: %v", err)
	}
}

func sweep(t *testing.T, b Bench) {
	n := b.Open(t)
	for _, snapshot := range []cove.SnapshotID{"s1", "s2"} {
		create(t, n, time.Hour)
		if _, err := n.Pause(t.Context(), "i1", "x1", node.Save{Snapshot: snapshot}); err != nil {
			t.Fatalf("pause: %v", err)
		}
		if err := n.Kill(t.Context(), "i1", "x1"); err != nil {
			t.Fatalf("kill: %v", err)
		}
	}
	swept := func(order node.SweepOrder) []string {
		t.Helper()
		garbage, err := n.Sweep(t.Context(), order)
		if err != nil {
			t.Fatalf("sweep: %v", err)
		}
		var names []string
		for _, g := range garbage {
			if g.Kind == "snapshot" && g.Bytes > 0 {
				names = append(names, g.Name)
			}
		}
		return names
	}
	order := node.SweepOrder{Snapshots: []cove.SnapshotID{"s1", "snobody"}, OlderThan: time.Hour}
	if got := swept(order); got != nil {
		t.Errorf("removed %v, which are young", got)
	}
	order.OlderThan, order.DryRun = 0, true
	if got := swept(order); !slices.Equal(got, []string{"s1"}) || snapshots(t, n) != 2 {
		t.Errorf("would remove %v; %d snapshots", got, snapshots(t, n))
	}
	order.DryRun = false
	if got := swept(order); !slices.Equal(got, []string{"s1"}) || snapshots(t, n) != 1 {
		t.Errorf("removed %v; %d snapshots", got, snapshots(t, n))
	}
	if got := swept(order); got != nil {
		t.Errorf("removed %v once more", got)
	}
}

func pauseNobody(t *testing.T, b Bench) {
	n := b.Open(t)
	if _, err := n.Pause(t.Context(), "inobody", "x1", node.Save{Snapshot: "s1"}); !cove.Is(err, cove.NotFound) {
		t.Errorf("err = %v, want not found", err)
	}
	if left := snapshots(t, n); left != 0 {
		t.Errorf("%d snapshots of nobody", left)
	}
}

func goOnFromNothing(t *testing.T, b Bench) {
	n := b.Open(t)
	s := spec(time.Hour)
	s.Snapshot = "snothing"
	if err := n.Create(t.Context(), s); !cove.Is(err, cove.NotFound) {
		t.Errorf("err = %v, want not found", err)
	}
	if list := listed(t, n); len(list) != 0 {
		t.Errorf("list = %v", list)
	}
}

func dueIsTold(t *testing.T, b Bench) {
	n := b.Open(t)
	told := events(t, n)
	s := spec(time.Hour)
	s.OnTimeout = cove.PauseOnTimeout
	if err := n.Create(t.Context(), s); err != nil {
		t.Fatalf("create: %v", err)
	}
	t.Cleanup(func() { _ = n.Kill(t.Context(), "i1", "x1") })
	if err := n.SetEnd(t.Context(), "i1", "x1", time.Now()); err != nil {
		t.Fatalf("set end: %v", err)
	}
	want(t, told, node.Due)
	if list := listed(t, n); len(list) != 1 {
		t.Errorf("one that is only due does not run any more: %v", list)
	}
}

func subscriptionEnds(t *testing.T, b Bench) {
	n := b.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	old := make(chan node.Event, 16)
	if err := n.Subscribe(ctx, func(e node.Event) { old <- e }); err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	cancel()
	// The end of the context takes effect in its own time; each round is one
	// more chance, and the live subscription tells when a round is over.
	told := events(t, n)
	for range 100 {
		create(t, n, time.Hour)
		if err := n.Kill(t.Context(), "i1", "x1"); err != nil {
			t.Fatalf("kill: %v", err)
		}
		want(t, told, node.Killed)
		if len(old) == 0 {
			return
		}
		<-old
	}
	t.Error("the ended subscription is still served")
}
