package nodetest

import (
	"context"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
)

// Measure implements node.Node.
func (f *Fake) Measure(context.Context) ([]node.Measurement, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []node.Measurement
	for id, sb := range f.sandboxes {
		if sb.frozen {
			continue
		}
		var m node.Measurement
		if f.Use != nil {
			m = f.Use(id)
		}
		m.ID, m.Execution, m.Resources, m.IdleAfter = id, sb.spec.Execution, sb.spec.Resources, sb.spec.IdleAfter
		if m.At.IsZero() {
			m.At = time.Now()
		}
		all = append(all, m)
	}
	return all, nil
}

func measured(t *testing.T, n node.Node) []node.Measurement {
	t.Helper()
	all, err := n.Measure(t.Context())
	if err != nil {
		t.Fatalf("measure: %v", err)
	}
	return all
}

func runningIsMeasured(t *testing.T, b Bench) {
	n := b.Open(t)
	if all := measured(t, n); len(all) != 0 {
		t.Errorf("an empty node has %+v", all)
	}
	before := time.Now()
	create(t, n, time.Hour)
	all := measured(t, n)
	if len(all) != 1 {
		t.Fatalf("measured: %+v", all)
	}
	want := cove.Resources{CPUs: 1, MemoryMB: 128, DiskMB: 128}
	if m := all[0]; m.ID != "i1" || m.Execution != "x1" || m.Resources != want || m.At.Before(before) || m.At.After(time.Now()) {
		t.Errorf("measured: %+v", m)
	}
	if _, err := n.Pause(t.Context(), "i1", "x1", node.Save{Snapshot: "s1"}); err != nil {
		t.Fatalf("pause: %v", err)
	}
	if all := measured(t, n); len(all) != 0 {
		t.Errorf("one that stands still: %+v", all)
	}
	if err := n.Thaw(t.Context(), "i1", "x1"); err != nil {
		t.Fatalf("thaw: %v", err)
	}
	if all := measured(t, n); len(all) != 1 {
		t.Errorf("after it was let go on: %+v", all)
	}
	if err := n.Kill(t.Context(), "i1", "x1"); err != nil {
		t.Fatalf("kill: %v", err)
	}
	if all := measured(t, n); len(all) != 0 {
		t.Errorf("after its end: %+v", all)
	}
}
