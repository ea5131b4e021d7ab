package guard_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cove-sandbox/cove/internal/envd/guard"
)

const mib = 1 << 20

// world is a sandbox that is not there: a /proc of files, and memory that
// comes back from who is killed.
type world struct {
	t       *testing.T
	proc    string
	sample  guard.Sample
	holds   map[int]uint64   // what comes free with a process, in bytes
	pens    map[int]*fakePen // by what add calls a group
	alive   map[int]*fakePen // by process
	signals []string
	held    bool
	started chan struct{}
	any     atomic.Bool
	looks   atomic.Int64 // how often it was measured
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, proc: t.TempDir(), holds: map[int]uint64{}, pens: map[int]*fakePen{}, alive: map[int]*fakePen{}, started: make(chan struct{}, 1),
		sample: guard.Sample{Total: 1024 * mib, Free: 1024 * mib, Tasks: 8},
	}
}

func (w *world) Any() bool                { return w.any.Load() }
func (w *world) Started() <-chan struct{} { return w.started }
func (w *world) Hold()                    { w.held = true }
func (w *world) Release()                 { w.held = false }

// A fakePen is a command of the world.
type fakePen struct {
	w     *world
	id    int
	ended bool
}

func (p *fakePen) Ended() bool { return p.ended }

func (p *fakePen) Processes() (out []int) {
	for pid, pen := range p.w.alive {
		if pen == p {
			out = append(out, pid)
		}
	}
	slices.Sort(out)
	return out
}

func (p *fakePen) End() error {
	p.ended = true
	p.w.signals = append(p.w.signals, fmt.Sprintf("ended %d", p.id))
	for _, pid := range p.Processes() {
		p.w.remove(pid)
	}
	return nil
}

func (w *world) list() (out []guard.Pen) {
	for _, id := range slices.Sorted(maps.Keys(w.pens)) {
		out = append(out, w.pens[id])
	}
	return out
}

func (w *world) guard() *guard.Guard {
	return guard.New(guard.Config{
		Children: w, Pens: w.list, Log: slog.New(slog.NewTextHandler(w.t.Output(), nil)), Self: 1, Proc: w.proc, Signal: w.signal,
		Measure: func() (guard.Sample, error) { w.looks.Add(1); return w.sample, nil },
		Sleep:   func(time.Duration) {},
	})
}

// add adds a process that holds rss MiB.
func (w *world) add(pid, parent, group, start int, rss uint64, files map[string]string) {
	w.t.Helper()
	w.files(pid, fmt.Sprintf("%d (some (name) x) S %d %d %d 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d 1000000 %d 0\n",
		pid, parent, group, group, start, rss*mib/uint64(os.Getpagesize())), files)
	if w.pens[group] == nil {
		w.pens[group] = &fakePen{w: w, id: group}
	}
	w.holds[pid], w.alive[pid] = rss*mib, w.pens[group]
	w.sample.Free -= min(rss*mib, w.sample.Free)
	w.sample.Tasks++
}

func (w *world) files(pid int, stat string, files map[string]string) {
	w.t.Helper()
	dir := filepath.Join(w.proc, strconv.Itoa(pid))
	if err := os.Mkdir(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "stat"), []byte(stat), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// signal does what the kernel would, and notes what is worth it: not that
// everybody was stopped once more, or somebody before everybody was.
func (w *world) signal(pid int, sig syscall.Signal) error {
	if sig == syscall.SIGSTOP && pid != -1 {
		return nil
	}
	if sig == syscall.SIGSTOP && !w.held {
		w.t.Error("somebody may be between fork and exec")
	}
	note := fmt.Sprintf("%v %d", sig, pid)
	if n := len(w.signals); n == 0 || w.signals[n-1] != note {
		w.signals = append(w.signals, note)
	}
	if sig != syscall.SIGKILL {
		return nil
	}
	w.remove(pid)
	return nil
}

// remove removes a process that was killed.
func (w *world) remove(pid int) {
	w.sample.Free += w.holds[pid]
	w.sample.Tasks--
	delete(w.alive, pid)
	if err := os.RemoveAll(filepath.Join(w.proc, strconv.Itoa(pid))); err != nil {
		w.t.Fatal(err)
	}
}

const (
	stopAll = "stopped (signal) -1"
	goOn    = "continued -1"
)

func (w *world) want(signals ...string) {
	w.t.Helper()
	if diff := cmp.Diff(signals, w.signals); diff != "" {
		w.t.Errorf("signals (-want +got):\n%s", diff)
	}
	if w.held {
		w.t.Error("nothing can be started any more")
	}
}

func TestEnoughMemory(t *testing.T) {
	w := newWorld(t)
	w.add(10, 1, 10, 5, 900, nil)
	if next := w.guard().Look(t.Context()); next < 10*time.Millisecond || next > 5*time.Second {
		t.Errorf("looks again in %v", next)
	}
	w.want()
}

func TestTheLargestGoes(t *testing.T) {
	w := newWorld(t)
	w.add(10, 1, 10, 5, 100, nil)
	w.add(11, 10, 10, 6, 600, nil)
	w.add(12, 1, 12, 7, 290, nil)
	g := w.guard()
	g.Look(t.Context())
	w.want(stopAll, "killed 11", goOn)
	g.Look(t.Context())
	w.want(stopAll, "killed 11", goOn) // and that is enough
}

func TestSeveralGo(t *testing.T) {
	w := newWorld(t)
	for i := range 20 {
		w.add(10+i, 1, 10, 5, 50, nil)
	}
	w.guard().Look(t.Context())
	if n := len(w.signals); n < 4 || n > 8 {
		t.Errorf("signals: %v", w.signals)
	}
	if w.sample.Free < guard.Reserve(w.sample.Total) {
		t.Errorf("free: %d", w.sample.Free)
	}
}

func TestScoresAreHeeded(t *testing.T) {
	w := newWorld(t)
	w.add(10, 1, 10, 5, 500, map[string]string{"oom_score_adj": "-1000\n"})
	w.add(11, 1, 11, 5, 200, map[string]string{"oom_score_adj": "100\n"})
	w.add(12, 1, 12, 5, 290, map[string]string{"oom_score_adj": "nonsense"})
	w.guard().Look(t.Context())
	w.want(stopAll, "killed 11", goOn) // 200 and a tenth of 1024 are more than 290
}

func TestFilesHoldTheMemory(t *testing.T) {
	w := newWorld(t)
	w.add(10, 1, 10, 5, 30, map[string]string{"io": "rchar: 5\nwchar: 100\n"})
	w.add(11, 1, 11, 5, 5, map[string]string{"io": "rchar: 5\nwchar: 900000000\n"})
	w.sample.Free = 20 * mib
	g := w.guard()
	g.Look(t.Context())
	w.want(stopAll, "killed 11", stopAll, goOn) // a second time in vain
	// Nobody else wrote it: they are left alone, and not even stopped again.
	w.signals = nil
	g.Look(t.Context())
	g.Look(t.Context())
	w.want()
}

func TestForkBomb(t *testing.T) {
	w := newWorld(t)
	w.add(10, 1, 10, 5, 1, nil)
	for i := range 220 {
		w.add(20+i, 1, 11, 50+i, 1, nil)
	}
	w.files(5000, "5000 (gone) Z 1 11 11 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 9 0 0 0\n", nil)
	g := w.guard()
	g.Look(t.Context())
	w.want("ended 11") // and nobody was stopped for it
	g.Look(t.Context())
	w.want("ended 11")
}

// Those of a bomb that are still there when they have been killed do not cost
// anybody else the life.
func TestTheDyingDoNotCount(t *testing.T) {
	w := newWorld(t)
	for i := range 150 {
		w.add(20+i, 1, 10, 5, 0, nil)
		w.add(220+i, 1, 11, 5, 0, nil)
	}
	w.pens[11].ended = true
	w.guard().Look(t.Context())
	w.want()
}

// A crowd whose members are small holds the memory.
func TestCrowdHoldsTheMemory(t *testing.T) {
	w := newWorld(t)
	w.add(10, 1, 10, 5, 100, nil)
	for i := range 100 {
		w.add(20+i, 1, 11, 50+i, 9, nil)
	}
	w.guard().Look(t.Context())
	w.want(stopAll, "ended 11", goOn)
}

func TestManyThreads(t *testing.T) {
	w := newWorld(t)
	w.add(10, 1, 10, 5, 1, nil)
	w.sample.Tasks = 2000
	w.guard().Look(t.Context())
	w.want()
}

func TestRunSleepsWhileNobodyIsThere(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.guard().Run(ctx) }()
	w.started <- struct{}{} // in vain
	w.started <- struct{}{}
	w.started <- struct{}{} // the second was received, so the first one's turn is over
	if n := w.looks.Load(); n != 0 {
		t.Errorf("looked %d times at an empty sandbox", n)
	}
	w.any.Store(true)
	select {
	case w.started <- struct{}{}:
	default: // there is one on its way, or it has looked already
	}
	for end := time.Now().Add(20 * time.Second); w.looks.Load() == 0; {
		if time.Now().After(end) {
			t.Fatal("never looked")
		}
	}
	cancel()
	if err := <-done; err != context.Canceled {
		t.Errorf("err = %v", err)
	}
}
