package orchestrator_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/orchestrator"
	"github.com/cove-sandbox/cove/internal/runtime/runtimetest"
)

func measure(t *testing.T, o *orchestrator.Orchestrator) []node.Measurement {
	t.Helper()
	all, err := o.Measure(t.Context())
	if err != nil {
		t.Fatalf("measure: %v", err)
	}
	return all
}

func TestMeasure(t *testing.T) {
	m := newMachine(t)
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	var later atomic.Int64
	clock := func(c *orchestrator.Config) {
		c.Now = func() time.Time { return noon.Add(time.Duration(later.Load())) }
	}
	o := m.orchestrator(t, clock)
	stop := serve(t, o)
	s := spec()
	s.EndAt = noon.Add(time.Hour)
	if err := o.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	later.Store(int64(time.Minute))
	usage := runtimetest.FakeUsage()
	want := node.Measurement{
		ID: id, Execution: "x1", Resources: s.Resources, At: noon.Add(time.Minute),
		CPU: 3 * time.Second, CountedOn: noon, Memory: usage.Memory, Cache: 5, Disk: usage.Disk,
	}
	if all := measure(t, o); len(all) != 1 || all[0] != want {
		t.Errorf("measured %+v, want %+v", all, want)
	}
	m.broken = "load"
	if all := measure(t, o); len(all) != 0 {
		t.Errorf("half a measurement counts: %+v", all)
	}
	m.broken = ""
	stop()

	// The next server does not know since when the group counts.
	next := m.orchestrator(t, clock)
	serve(t, next)
	want.CountedOn = time.Time{}
	if all := measure(t, next); len(all) != 1 || all[0] != want {
		t.Errorf("measured after a restart: %+v, want %+v", all, want)
	}
}

func TestUseIsMeasured(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	s := spec()
	s.IdleAfter = time.Minute
	if err := o.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	measured := func() node.Measurement {
		t.Helper()
		all, err := o.Measure(t.Context())
		if err != nil || len(all) != 1 || all[0].IdleAfter != time.Minute {
			t.Fatalf("measured: %+v, %v", all, err)
		}
		return all[0]
	}
	if got := measured(); got.Open != 0 || !got.UsedAt.IsZero() {
		t.Errorf("before: %+v", got)
	}
	before := time.Now()
	one, done := context.WithCancel(t.Context())
	o.Use(one, id)
	o.Use(t.Context(), id)
	o.Use(t.Context(), "inobody")
	if got := measured(); got.Open != 2 || got.UsedAt.Before(before) {
		t.Errorf("with two requests: %+v", got)
	}
	done()
	for deadline := time.Now().Add(10 * time.Second); measured().Open != 1; {
		if time.Now().After(deadline) {
			t.Fatalf("after one has ended: %+v", measured())
		}
	}
}
