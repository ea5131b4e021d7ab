package control_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/control"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/node/nodetest"
	"github.com/cove-sandbox/cove/internal/store"
)

// often makes a control measure as fast as a test can wish.
func often(c *control.Config) { c.SampleEvery = time.Millisecond }

// never makes it measure nothing while the test runs.
func never(c *control.Config) { c.SampleEvery = time.Hour }

// await waits for what comes by itself.
func await(t *testing.T, what string, happened func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for tick := time.NewTicker(time.Millisecond); !happened(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: it never came", what)
		}
	}
}

var ever = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

func metricsOf(t *testing.T, b *bench, id cove.SandboxID) []cove.Metric {
	t.Helper()
	all, err := b.SandboxMetrics(t.Context(), team, id, time.Time{}, ever)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// hourglass is a node's clock: each measurement is five seconds after the one
// before, with two and a half seconds of processor time between.
func hourglass(start time.Time) func(cove.SandboxID) node.Measurement {
	n := 0
	return func(cove.SandboxID) node.Measurement {
		n++
		return node.Measurement{
			At: start.Add(time.Duration(n) * 5 * time.Second), CPU: time.Duration(n) * 2500 * time.Millisecond, CountedOn: start,
			Memory: 100 << 20, Cache: 10 << 30, Disk: -1,
		}
	}
}

func TestMetrics(t *testing.T) {
	start := time.Now().UTC().Truncate(time.Second)
	b := open(t, records(t), &nodetest.Fake{Use: hourglass(start)}, &builder{}, often)
	sb := create(t, b)
	await(t, "metrics", func() bool { return len(metricsOf(t, b, sb.ID)) >= 3 })
	for i, m := range metricsOf(t, b, sb.ID)[:3] {
		want := cove.Metric{
			Sandbox: sb.ID, At: start.Add(time.Duration(i+1) * 5 * time.Second), CPUs: 2, CPUPercent: 25,
			MemoryUsed: 100 << 20, MemoryTotal: 1 << 30, MemoryCache: 924 << 20, DiskUsed: 0, DiskTotal: 10 << 30,
		}
		if m != want {
			t.Errorf("metric %d = %+v, want %+v", i, m, want)
		}
	}
	bounded, err := b.SandboxMetrics(t.Context(), team, sb.ID, start.Add(10*time.Second), start.Add(15*time.Second))
	if err != nil || len(bounded) != 2 {
		t.Errorf("within bounds: %+v, %v", bounded, err)
	}
	before, err := b.SandboxMetrics(t.Context(), team, sb.ID, time.Time{}, start)
	if err != nil || len(before) != 0 {
		t.Errorf("before its life: %+v, %v", before, err)
	}
	_, err = b.SandboxMetrics(t.Context(), rival, sb.ID, time.Time{}, ever)
	wantKind(t, "another team's", err, cove.NotFound)
	if err := b.PauseSandbox(t.Context(), team, sb.ID, cove.Pause{}); err != nil {
		t.Fatal(err)
	}
	kept := metricsOf(t, b, sb.ID)
	if len(kept) < 3 {
		t.Errorf("of a paused sandbox: %+v", kept)
	}
	latest, err := b.LatestMetrics(t.Context(), team, []cove.SandboxID{"nobody", sb.ID})
	if err != nil || len(latest) != 1 || latest[sb.ID] != kept[len(kept)-1] {
		t.Errorf("latest = %+v, %v; want %+v", latest, err, kept[len(kept)-1])
	}
	latest, err = b.LatestMetrics(t.Context(), rival, []cove.SandboxID{sb.ID})
	if err != nil || len(latest) != 0 {
		t.Errorf("latest of another team's = %+v, %v", latest, err)
	}
	if err := b.KillSandbox(t.Context(), team, sb.ID); err != nil {
		t.Fatal(err)
	}
	_, err = b.SandboxMetrics(t.Context(), team, sb.ID, time.Time{}, ever)
	wantKind(t, "an ended one's", err, cove.NotFound)
}

func TestProcessorsCountFromAKnownMoment(t *testing.T) {
	start := time.Now().UTC().Truncate(time.Second)
	var mu sync.Mutex
	n := 0
	// An earlier server started it: since when its time counts is not known.
	b := open(t, records(t), &nodetest.Fake{Use: func(cove.SandboxID) node.Measurement {
		mu.Lock()
		defer mu.Unlock()
		n++
		return node.Measurement{At: start.Add(time.Duration(n) * time.Second), CPU: time.Hour + time.Duration(n)*10*time.Second}
	}}, &builder{}, often)
	sb := create(t, b)
	await(t, "metrics", func() bool { return len(metricsOf(t, b, sb.ID)) > 0 })
	if m := metricsOf(t, b, sb.ID)[0]; !m.At.Equal(start.Add(2*time.Second)) || m.CPUPercent != 100 {
		t.Errorf("the first metric = %+v, want it of the second measurement and of at most 100%%", m)
	}
}

func TestMetricsAreFurtherApartTheMoreThereAre(t *testing.T) {
	b := open(t, records(t), &nodetest.Fake{}, &builder{}, never)
	sb := create(t, b)
	start := time.Now().UTC().Truncate(15 * time.Minute)
	var all []cove.Metric
	for at := time.Duration(0); at < 8*24*time.Hour; at += time.Minute {
		all = append(all, cove.Metric{Sandbox: sb.ID, At: start.Add(at), CPUPercent: float64(len(all) % 10), MemoryUsed: int64(len(all) % 10)})
	}
	if err := b.store.AddMetrics(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	for span, apart := range map[time.Duration]time.Duration{
		59 * time.Minute: time.Minute, 7 * time.Hour: time.Minute, 13 * time.Hour: 2 * time.Minute,
		25 * time.Hour: 5 * time.Minute, 7 * 24 * time.Hour: 15 * time.Minute,
	} {
		got, err := b.SandboxMetrics(t.Context(), team, sb.ID, start, start.Add(span))
		if err != nil || len(got) != int(span/apart)+1 {
			t.Errorf("%v: %d metrics, %v; want one every %v", span, len(got), err, apart)
			continue
		}
		for i, m := range got[:len(got)-1] {
			if next := got[i+1].At.Sub(m.At); i < len(got)-2 && next != apart {
				t.Errorf("%v: the next one after %v is %v later", span, m.At, next)
			}
		}
		if span > 13*time.Hour && (got[1].CPUPercent != 9 && got[2].CPUPercent != 9) {
			t.Errorf("%v: the peak got lost: %+v", span, got[:3])
		}
	}
}

func TestEverythingIsWrittenWhenTheServerStops(t *testing.T) {
	s := records(t)
	measure := hourglass(time.Now().UTC().Truncate(time.Second))
	measured := make(chan struct{}, 1)
	b := open(t, s, &nodetest.Fake{Use: func(id cove.SandboxID) node.Measurement {
		select {
		case measured <- struct{}{}:
		default:
		}
		return measure(id)
	}}, &builder{}, often)
	sb := create(t, b)
	<-measured
	b.stop()
	metrics, err := s.Metrics(t.Context(), sb.ID, time.Time{}, ever)
	if err != nil || len(metrics) == 0 {
		t.Errorf("metrics after a stop: %+v, %v", metrics, err)
	}
	lines, err := s.Logs(t.Context(), team, sb.ID, cove.LogFilter{Limit: 9})
	if err != nil || len(lines) != 1 {
		t.Errorf("lines after a stop: %+v, %v", lines, err)
	}
}

func TestOldRecordsAreDropped(t *testing.T) {
	s := records(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	for _, at := range []time.Time{now.Add(-49 * time.Hour), now.Add(-47 * time.Hour)} {
		err := errors.Join(
			s.AddMetrics(t.Context(), []cove.Metric{{Sandbox: "i1", At: at}, {Sandbox: "i1", At: at.Add(time.Microsecond)}}),
			s.AddLogs(t.Context(), []cove.LogLine{{Team: team, Sandbox: "i1", At: at, Message: "m"}}, 9))
		if err != nil {
			t.Fatal(err)
		}
	}
	open(t, s, &nodetest.Fake{}, &builder{}, func(c *control.Config) {
		c.SampleEvery, c.MetricsRetention, c.LogRetention = time.Millisecond, 48*time.Hour, 48*time.Hour
	})
	await(t, "fewer records", func() bool {
		metrics, err := s.Metrics(t.Context(), "i1", time.Time{}, ever)
		lines, lerr := s.Logs(t.Context(), team, "i1", cove.LogFilter{Limit: 9})
		if err != nil || lerr != nil {
			t.Fatal(err, lerr)
		}
		return len(metrics) == 1 && len(lines) == 1 // one is dropped, the other one is thinned
	})
}

// stubborn is a store that takes no usage until it is told to.
type stubborn struct {
	store.Store
	mu     sync.Mutex
	refuse bool // guarded by mu
}

func (s *stubborn) AddLogs(ctx context.Context, lines []cove.LogLine, keep int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse {
		return cove.E(cove.NoSpace, "test", nil, "the disk is full")
	}
	return s.Store.AddLogs(ctx, lines, keep)
}

func TestWhatCannotBeWrittenIsHeld(t *testing.T) {
	s := &stubborn{Store: records(t), refuse: true}
	b := open(t, s, &nodetest.Fake{}, &builder{}, never)
	sb := create(t, b)
	if lines, err := b.SandboxLogs(t.Context(), team, sb.ID, cove.LogFilter{Limit: 9}); err != nil || len(lines) != 0 {
		t.Errorf("while nothing can be written: %+v, %v", lines, err)
	}
	if err := b.PauseSandbox(t.Context(), team, sb.ID, cove.Pause{}); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.refuse = false
	s.mu.Unlock()
	wantEvents(t, b, sb.ID, "created paused ")
}
