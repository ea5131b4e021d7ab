package orchestrator_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/orchestrator"
)

// lines returns what is told from now on.
func lines(t *testing.T, o *orchestrator.Orchestrator) <-chan node.Line {
	t.Helper()
	lines := make(chan node.Line, 10_000)
	if err := o.Listen(t.Context(), func(l node.Line) { lines <- l }); err != nil {
		t.Fatal(err)
	}
	return lines
}

func said(seq int64) orchestrator.Said {
	return orchestrator.Said{Seq: seq, Level: cove.LogWarn, Logger: "guard", Message: fmt.Sprint("line ", seq)}
}

func wantLine(t *testing.T, lines <-chan node.Line, message string) {
	t.Helper()
	select {
	case l := <-lines:
		if l.Message != message || l.ID != id {
			t.Errorf("told %+v, want %q", l, message)
		}
	case <-time.After(30 * time.Second):
		t.Errorf("%q was not told", message)
	}
}

func wantNone(t *testing.T, lines <-chan node.Line) {
	t.Helper()
	select {
	case l := <-lines:
		t.Errorf("told %+v", l)
	default:
	}
}

func TestWhatIsMissingIsTold(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	told := lines(t, o)
	create(t, o)
	l := m.listening(t, 0)
	if l.identity != id || l.after != 0 {
		t.Errorf("listens to %s after %d", l.identity, l.after)
	}
	late := said(9)
	late.Lost = 8
	l.lines <- late
	wantLine(t, told, "8 lines that belong here are missing: there were more than can be kept")
	wantLine(t, told, "line 9")
	// To listen is not to use it.
	if all, err := o.Measure(t.Context()); err != nil || len(all) != 1 || all[0].Open != 0 || !all[0].UsedAt.IsZero() {
		t.Errorf("measured %+v, %v", all, err)
	}
}

// bubble runs a test with a clock of its own. Sandboxes are gone at its end, and
// the server has stopped.
func bubble(t *testing.T, test func(*testing.T, *machine, *orchestrator.Orchestrator)) {
	m := newMachine(t)
	synctest.Test(t, func(t *testing.T) {
		o := m.orchestrator(t, nil)
		stop := serve(t, o)
		test(t, m, o)
		stop()
	})
}

func TestListeningIsTakenUpAgain(t *testing.T) {
	bubble(t, func(t *testing.T, m *machine, o *orchestrator.Orchestrator) {
		told := lines(t, o)
		create(t, o)
		m.listening(t, 0).lines <- said(1)
		at := time.Now()
		for n, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
			close(m.listening(t, n).broken)
			synctest.Wait()
			time.Sleep(want*time.Second - time.Nanosecond)
			synctest.Wait()
			if heard := m.listenings(); heard != n+1 {
				t.Fatalf("after %v somebody listens for time %d", time.Since(at), heard)
			}
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			if l := m.listening(t, n+1); l.after != 1 {
				t.Errorf("listens after %d", l.after)
			}
		}
		time.Sleep(2 * time.Minute) // it goes well for a while
		close(m.listening(t, 8).broken)
		time.Sleep(time.Second)
		synctest.Wait()
		m.listening(t, 9).lines <- said(2)
		wantLine(t, told, "line 1")
		wantLine(t, told, "line 2")
		if err := o.Kill(t.Context(), id, "x1"); err != nil {
			t.Error(err)
		}
		<-m.listening(t, 9).over
	})
}

// Whoever says too much waits, and does not keep the sandbox from ending.
func TestWhoSaysTooMuchIsHeldBack(t *testing.T) {
	bubble(t, func(t *testing.T, m *machine, o *orchestrator.Orchestrator) {
		told := lines(t, o)
		create(t, o)
		l := m.listening(t, 0)
		go func() {
			for seq := int64(1); ; seq++ {
				select {
				case l.lines <- said(seq):
				case <-l.over:
					return
				}
			}
		}()
		synctest.Wait()
		if len(told) != 50 {
			t.Errorf("at once %d lines are told", len(told))
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if len(told) != 1000 {
			t.Errorf("in half a minute %d lines are told", len(told))
		}
		time.Sleep(10*time.Minute - 31*time.Second)
		synctest.Wait()
		if n := len(told); n > 10_000 || n < 9_000 {
			t.Errorf("in ten minutes %d lines are told", n)
		}
		if err := o.Kill(t.Context(), id, "x1"); err != nil {
			t.Error(err)
		}
		<-l.over
	})
}

func TestNothingIsToldTwiceOverAPause(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	told := lines(t, o)
	create(t, o)
	l := m.listening(t, 0)
	l.lines <- said(1)
	wantLine(t, told, "line 1")
	pause(t, o, "s1")
	l.lines <- said(2) // it was on its way when everything was stopped
	<-l.over
	wantNone(t, told)
	if err := o.Thaw(t.Context(), id, "x1"); err != nil {
		t.Fatal(err)
	}
	if l = m.listening(t, 1); l.after != 1 {
		t.Errorf("when it was let go on, listens after %d", l.after)
	}
	l.lines <- said(2)
	wantLine(t, told, "line 2")
	if _, err := o.Pause(t.Context(), id, "x1", node.Save{Snapshot: "s2", FilesOnly: true}); err != nil {
		t.Fatal(err)
	}
	if err := o.Kill(t.Context(), id, "x1"); err != nil {
		t.Fatal(err)
	}
	<-l.over

	for n, c := range []struct {
		id       cove.SandboxID
		snapshot cove.SnapshotID
		after    int64
	}{
		{id, "s1", 1}, {"i2", "s1", -1}, {id, "s2", 0}, {"i2", "s2", 0},
	} {
		again := spec()
		again.ID, again.Execution, again.Snapshot = c.id, "x2", c.snapshot
		if err := o.Create(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		if l := m.listening(t, n+2); l.after != c.after {
			t.Errorf("%s, from %s: listens after %d, want %d", c.id, c.snapshot, l.after, c.after)
		}
		if err := o.Kill(t.Context(), c.id, "x2"); err != nil {
			t.Fatal(err)
		}
	}
	wantNone(t, told)
}

func TestARestartedServerListensFromNow(t *testing.T) {
	m := newMachine(t)
	first := m.orchestrator(t, nil)
	stop := serve(t, first)
	create(t, first)
	l := m.listening(t, 0)
	stop()
	<-l.over
	second := m.orchestrator(t, nil)
	serve(t, second)
	if l := m.listening(t, 1); l.after != -1 || l.identity != id {
		t.Errorf("listens to %s after %d", l.identity, l.after)
	}
}

// An old daemon has no journal, and one that nobody uses has nothing to say.
func TestWhoIsNotListenedTo(t *testing.T) {
	bubble(t, func(t *testing.T, m *machine, o *orchestrator.Orchestrator) {
		m.tooOld = true
		create(t, o)
		unused := spec()
		unused.ID, unused.Unused = "i2", true
		if err := o.Create(t.Context(), unused); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if heard := m.listenings(); heard != 1 {
			t.Errorf("somebody began to listen %d times", heard)
		}
		for _, sb := range []cove.SandboxID{id, "i2"} {
			if err := o.Kill(t.Context(), sb, "x1"); err != nil {
				t.Error(err)
			}
		}
	})
}

// The end of a sandbox is the last that is told of it.
func TestNothingIsToldAfterTheEnd(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	events := subscribe(t, o)
	told := lines(t, o)
	create(t, o)
	l := m.listening(t, 0)
	l.lines <- said(1)
	m.host.Crash(string(id))
	if e := <-events; e.What != node.Crashed {
		t.Errorf("event = %+v", e)
	}
	select {
	case <-l.over:
	default:
		t.Error("somebody still listens")
	}
	wantLine(t, told, "line 1")
	wantNone(t, told)
}
