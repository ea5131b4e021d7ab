package orchestrator_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/orchestrator"
)

func TestSweepLeavesWhatIsNeeded(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	create(t, o)
	pause(t, o, "s1")
	old := time.Now().Add(-24 * time.Hour)
	build := string(spec().Build)
	item := func(kind orchestrator.Kind, name string, made time.Time) orchestrator.Item {
		return orchestrator.Item{Kind: kind, Name: name, Bytes: 7, Made: made}
	}
	fixed := item(orchestrator.EngineItem, "the newest", old)
	fixed.Fixed = true
	stay := []orchestrator.Item{
		item(orchestrator.BuildItem, build, old), item(orchestrator.BuildItem, "current", old), item(orchestrator.BuildItem, "fresh", time.Now()),
		item(orchestrator.DaemonItem, "tools.erofs", old), item(orchestrator.EngineItem, "engine 1", old), fixed,
	}
	gone := []orchestrator.Item{
		item(orchestrator.BuildItem, "superseded", old), item(orchestrator.DaemonItem, "older.erofs", old), item(orchestrator.EngineItem, "engine 0", old),
	}
	m.stock = append(slices.Clone(stay), gone...)

	order := node.SweepOrder{Builds: []cove.BuildID{"current"}, OlderThan: time.Hour}
	garbage, err := o.Sweep(t.Context(), order)
	if err != nil || len(garbage) != len(gone) || !slices.Equal(m.stock, stay) {
		t.Errorf("removed %v, %v; left %v", garbage, err, m.stock)
	}
	// What ran is saved now: the snapshot needs the same.
	if err := o.Kill(t.Context(), id, "x1"); err != nil {
		t.Fatal(err)
	}
	if garbage, err := o.Sweep(t.Context(), order); err != nil || len(garbage) != 0 {
		t.Errorf("removed %v, %v", garbage, err)
	}
	// Without the snapshot, nothing does.
	order.Snapshots, order.OlderThan = []cove.SnapshotID{"s1"}, 0
	garbage, err = o.Sweep(t.Context(), order)
	if err != nil || len(garbage) != 5 || len(m.stock) != 2 {
		t.Errorf("removed %v, %v; left %v", garbage, err, m.stock)
	}
	wantNoSnapshots(t, m)
}

func TestSweepTakesNothingThatASnapshotMayNeed(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	create(t, o)
	pause(t, o, "s1")
	m.stock = []orchestrator.Item{{Kind: orchestrator.EngineItem, Name: "engine 0", Made: time.Now().Add(-time.Hour)}}
	if err := os.WriteFile(filepath.Join(m.dir+"-snapshots", "s1", "manifest.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if garbage, err := o.Sweep(t.Context(), node.SweepOrder{}); err == nil || len(garbage) > 0 || len(m.stock) != 1 {
		t.Errorf("removed %v, %v", garbage, err)
	}
}
