// Package runtimetest holds the examination that every runtime.Runtime passes,
// and Fake, a runtime without sandboxes that passes it too.
//
// It is for tests; nothing else may import it.
package runtimetest

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/runtime"
)

// Bench is what the suite needs to examine a runtime.
type Bench struct {
	// Open returns the runtime; a second call returns one that knows nothing
	// of what the first started, as after a restart of the server.
	Open func(t *testing.T) runtime.Runtime
	// Spec returns a sandbox whose init makes the writable layer what Layer says,
	// writes the line "ready" to its output and then waits for ever.
	Spec func(t *testing.T, id string) runtime.Spec
	// Lives reports whether the code inside a sandbox, made by Spec, makes
	// progress. It takes its time to say no.
	Lives func(t *testing.T, p runtime.Process) bool
	// Broken returns a sandbox that cannot start.
	Broken func(t *testing.T, id string) runtime.Spec
	// Left lists what the host still holds of a sandbox: processes, sockets,
	// files. It may be asked about sandboxes that never were.
	Left func(t *testing.T, id string) []string
}

// bound is how long a step may take before the suite gives up on it.
const bound = 30 * time.Second

// Run runs the suite.
func Run(t *testing.T, b Bench) {
	for name, test := range map[string]func(*testing.T, Bench){
		"start runs init and shows its output":          startShowsOutput,
		"start of a broken sandbox leaves nothing":      brokenLeavesNothing,
		"start under an ended context leaves nothing":   cancelledLeavesNothing,
		"kill ends it, closes done and leaves nothing":  killLeavesNothing,
		"adopt finds a sandbox that an earlier one ran": adoptFinds,
		"adopt of an ended sandbox is not found":        adoptOfEnded,
		"adopt of a reused pid is not found":            adoptOfReusedPID,
		"clear ends a sandbox without its handle":       clearEnds,
		"a checkpoint can be gone on from, twice":       checkpointRestores,
		"a checkpoint stops the sandbox until thawed":   checkpointStops,
		"a checkpoint of files starts init anew":        filesOnlyStartsAnew,
		"a checkpoint that fails leaves it running":     checkpointFails,
		"one sandbox's end does not touch another":      independent,
		"usage is told, of an adopted one too":          usageIsTold,
		"an export has what was written and removed":    exportShows,
		"an export leaves still what stands still":      exportOfStill,
		"an export of a restored sandbox":               exportOfRestored,
		"an export that is given up lets it go on":      exportGivenUp,
		"an export of an ended sandbox is not found":    exportOfEnded,
	} {
		t.Run(name, func(t *testing.T) { test(t, b) })
	}
}

func start(t *testing.T, rt runtime.Runtime, spec runtime.Spec) runtime.Process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	spec.Output = w
	p, err := rt.Start(ctx, spec)
	w.Close()
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() { kill(t, p) })
	if err := r.SetReadDeadline(time.Now().Add(bound)); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(r).ReadString('\n'); line != "ready\n" {
		t.Fatalf("init's first line is %q (%v), want ready", line, err)
	}
	return p
}

func kill(t *testing.T, p runtime.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), bound)
	defer cancel()
	if err := p.Kill(ctx); err != nil {
		t.Errorf("kill: %v", err)
	}
}

func wantGone(t *testing.T, b Bench, p runtime.Process, id string) {
	t.Helper()
	if p != nil {
		select {
		case <-p.Done():
		default:
			t.Error("done is not closed")
		}
	}
	if left := b.Left(t, id); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func alive(p runtime.Process) bool {
	select {
	case <-p.Done():
		return false
	default:
		return true
	}
}

func startShowsOutput(t *testing.T, b Bench) {
	p := start(t, b.Open(t), b.Spec(t, "rtoutput"))
	if !alive(p) {
		t.Error("it ended by itself")
	}
	if h := p.Handle(); h.ID != "rtoutput" {
		t.Errorf("handle = %+v", h)
	}
}

func brokenLeavesNothing(t *testing.T, b Bench) {
	p, err := b.Open(t).Start(t.Context(), b.Broken(t, "rtbroken"))
	if err == nil {
		kill(t, p)
		t.Fatal("a broken sandbox started")
	}
	if kind, msg := cove.Describe(err); msg == "" || msg == "internal error" {
		t.Errorf("the caller is told nothing: %v %q", kind, msg)
	}
	wantGone(t, b, nil, "rtbroken")
}

func cancelledLeavesNothing(t *testing.T, b Bench) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if p, err := b.Open(t).Start(ctx, b.Spec(t, "rtcancelled")); err == nil {
		kill(t, p)
		t.Fatal("it started under an ended context")
	}
	wantGone(t, b, nil, "rtcancelled")
}

func killLeavesNothing(t *testing.T, b Bench) {
	p := start(t, b.Open(t), b.Spec(t, "rtkill"))
	kill(t, p)
	wantGone(t, b, p, "rtkill")
	kill(t, p) // killing an ended sandbox is not an error
}

func adoptFinds(t *testing.T, b Bench) {
	p := start(t, b.Open(t), b.Spec(t, "rtadopt"))
	again, err := b.Open(t).Adopt(t.Context(), p.Handle())
	if err != nil {
		t.Fatalf("adopt: %v", err)
	}
	if again.Handle() != p.Handle() {
		t.Errorf("handle = %+v, want %+v", again.Handle(), p.Handle())
	}
	kill(t, again)
	select {
	case <-p.Done():
	case <-time.After(bound):
		t.Error("the first view of the sandbox did not see its end")
	}
	wantGone(t, b, again, "rtadopt")
}

func adoptOfEnded(t *testing.T, b Bench) {
	p := start(t, b.Open(t), b.Spec(t, "rtended"))
	kill(t, p)
	if _, err := b.Open(t).Adopt(t.Context(), p.Handle()); !cove.Is(err, cove.NotFound) {
		t.Errorf("err = %v, want not found", err)
	}
	wantGone(t, b, p, "rtended")
}

func adoptOfReusedPID(t *testing.T, b Bench) {
	p := start(t, b.Open(t), b.Spec(t, "rtreused"))
	h := p.Handle()
	h.Start += "0" // another process under the same number
	h.Socket = ""
	if _, err := b.Open(t).Adopt(t.Context(), h); !cove.Is(err, cove.NotFound) {
		t.Errorf("err = %v, want not found", err)
	}
	if !alive(p) {
		t.Error("the other process was touched")
	}
}

func independent(t *testing.T, b Bench) {
	rt := b.Open(t)
	one, two := start(t, rt, b.Spec(t, "rtone")), start(t, rt, b.Spec(t, "rttwo"))
	kill(t, one)
	if !alive(two) {
		t.Error("the other sandbox ended too")
	}
}

func clearEnds(t *testing.T, b Bench) {
	p := start(t, b.Open(t), b.Spec(t, "rtclear"))
	rt := b.Open(t) // a server that lost the handle
	for range 2 {   // the second time there is nothing to do
		if err := rt.Clear(t.Context(), "rtclear"); err != nil {
			t.Fatalf("clear: %v", err)
		}
	}
	select {
	case <-p.Done():
	case <-time.After(bound):
		t.Fatal("the sandbox still runs")
	}
	wantGone(t, b, p, "rtclear")
}

// checkpoint writes a sandbox's state and returns where it lies.
func checkpoint(t *testing.T, p runtime.Process) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	dir := t.TempDir()
	if err := p.Checkpoint(ctx, dir, false); err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
	return dir
}

func thaw(t *testing.T, p runtime.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	if err := p.Thaw(ctx); err != nil {
		t.Fatalf("thaw: %v", err)
	}
}

func checkpointStops(t *testing.T, b Bench) {
	p := start(t, b.Open(t), b.Spec(t, "rtstops"))
	if !b.Lives(t, p) {
		t.Fatal("it does not live before the checkpoint")
	}
	checkpoint(t, p)
	if !alive(p) || b.Lives(t, p) {
		t.Errorf("after the checkpoint: alive %v, and it should be stopped", alive(p))
	}
	again, err := b.Open(t).Adopt(t.Context(), p.Handle()) // the server may have died in between
	if err != nil {
		t.Fatalf("adopt: %v", err)
	}
	thaw(t, again)
	if !b.Lives(t, p) {
		t.Error("it does not go on after the thaw")
	}
}

func checkpointRestores(t *testing.T, b Bench) {
	rt := b.Open(t)
	spec := b.Spec(t, "rtrestore")
	p := start(t, rt, spec)
	dir := checkpoint(t, p)
	kill(t, p)
	for range 2 {
		spec := spec
		spec.Dir, spec.Restore = t.TempDir(), dir
		ctx, cancel := context.WithTimeout(t.Context(), bound)
		defer cancel()
		restored, err := rt.Start(ctx, spec)
		if err != nil {
			t.Fatalf("restore: %v", err)
		}
		if !b.Lives(t, restored) {
			t.Error("the restored sandbox does not go on")
		}
		kill(t, restored)
		wantGone(t, b, restored, "rtrestore")
	}
}

func filesOnlyStartsAnew(t *testing.T, b Bench) {
	rt := b.Open(t)
	spec := b.Spec(t, "rtfiles")
	p := start(t, rt, spec)
	dir := t.TempDir()
	if err := p.Checkpoint(t.Context(), dir, true); err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
	if b.Lives(t, p) {
		t.Error("it goes on after the checkpoint")
	}
	thaw(t, p) // it can
	if !b.Lives(t, p) {
		t.Error("it does not go on after the thaw")
	}
	kill(t, p)
	for range 2 {
		spec := spec
		spec.Dir, spec.Restore, spec.FilesOnly = t.TempDir(), dir, true
		kill(t, start(t, rt, spec)) // start waits for what a fresh init says
	}
}

func checkpointFails(t *testing.T, b Bench) {
	p := start(t, b.Open(t), b.Spec(t, "rtfails"))
	if err := p.Checkpoint(t.Context(), filepath.Join(t.TempDir(), "no", "such", "directory"), false); err == nil {
		t.Fatal("a checkpoint into nowhere succeeded")
	}
	if !alive(p) || !b.Lives(t, p) {
		t.Error("it does not go on after the failed checkpoint")
	}
}

func usageIsTold(t *testing.T, b Bench) {
	spec := b.Spec(t, "rtusage")
	p := start(t, b.Open(t), spec)
	adopted, err := b.Open(t).Adopt(t.Context(), p.Handle())
	if err != nil {
		t.Fatalf("adopt: %v", err)
	}
	for _, p := range []runtime.Process{p, p, adopted} { // where it is found may be remembered
		usage, err := p.Usage(spec.Dir)
		if err != nil || usage.Memory <= 0 || usage.Memory > 1<<30 || usage.Disk < 0 || usage.Disk > 1<<30 {
			t.Errorf("usage = %+v, %v", usage, err)
		}
	}
	kill(t, p)
	<-adopted.Done()
	for _, p := range []runtime.Process{p, adopted} {
		if usage, err := p.Usage(spec.Dir); err == nil {
			t.Errorf("after its end: %+v", usage)
		}
	}
}
