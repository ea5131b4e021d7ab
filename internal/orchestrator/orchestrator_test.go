package orchestrator_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/node/nodetest"
	"github.com/cove-sandbox/cove/internal/orchestrator"
)

const id = cove.SandboxID("i1")

func spec() cove.Spec {
	return cove.Spec{ID: id, Execution: "x1", Build: "b", Internet: true,
		Resources: cove.Resources{CPUs: 1, MemoryMB: 64, DiskMB: 64}, EndAt: time.Now().Add(time.Hour)}
}

// serve runs o until the returned function is called, which waits for its end.
func serve(t *testing.T, o *orchestrator.Orchestrator) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	<-o.Ready()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func subscribe(t *testing.T, o *orchestrator.Orchestrator) <-chan node.Event {
	t.Helper()
	events := make(chan node.Event, 10)
	if err := o.Subscribe(t.Context(), func(e node.Event) { events <- e }); err != nil {
		t.Fatal(err)
	}
	return events
}

func create(t *testing.T, o *orchestrator.Orchestrator) {
	t.Helper()
	if err := o.Create(t.Context(), spec()); err != nil {
		t.Fatalf("create: %v", err)
	}
}

func wantList(t *testing.T, o *orchestrator.Orchestrator, n int) {
	t.Helper()
	list, err := o.List(t.Context())
	if err != nil || len(list) != n {
		t.Errorf("list = %v, %v; want %d", list, err, n)
	}
}

func wantClean(t *testing.T, m *machine) {
	t.Helper()
	if left := m.left(t, id); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestCreateAndKill(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	events := subscribe(t, o)
	create(t, o)
	wantList(t, o, 1)
	if err := o.Create(t.Context(), spec()); !cove.Is(err, cove.Conflict) {
		t.Errorf("second create: %v, want conflict", err)
	}
	if err := o.Kill(t.Context(), id, "another execution"); err != nil || len(m.left(t, id)) != 4 {
		t.Errorf("a kill of another execution did something: %v", err)
	}
	for range 2 { // the second time there is nothing to do
		if err := o.Kill(t.Context(), id, "x1"); err != nil {
			t.Errorf("kill: %v", err)
		}
	}
	wantClean(t, m)
	wantList(t, o, 0)
	if e := <-events; e != (node.Event{ID: id, Execution: "x1", What: node.Killed}) {
		t.Errorf("event = %+v", e)
	}
}

func TestEachFailingStepLeavesNothing(t *testing.T) {
	for _, step := range []string{"images", "network", "cgroup", "runtime", "daemon", "identity", "directory", "record"} {
		t.Run(step, func(t *testing.T) {
			m := newMachine(t)
			o := m.orchestrator(t, nil)
			serve(t, o)
			switch step {
			case "directory": // a file stands where the directory should be
				if err := os.Remove(m.dir); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(m.dir, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			case "record": // a directory stands where the record should be
				if err := os.MkdirAll(filepath.Join(m.dir, string(id), "sandbox.json.new"), 0o700); err != nil {
					t.Fatal(err)
				}
			default:
				m.broken = step
			}
			err := o.Create(t.Context(), spec())
			if err == nil {
				t.Fatal("it booted")
			}
			wantClean(t, m)
			wantList(t, o, 0)
			m.broken = ""
			if step == "directory" {
				if err := os.Remove(m.dir); err != nil {
					t.Fatal(err)
				}
			}
			create(t, o) // the place is free again
		})
	}
}

func TestBootEndsWithItsRequest(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, func(c *orchestrator.Config) { c.BootTimeout = time.Nanosecond })
	serve(t, o)
	if err := o.Create(t.Context(), spec()); !cove.Is(err, cove.DeadlineExceeded) {
		t.Errorf("err = %v, want deadline exceeded", err)
	}
	wantClean(t, m)
}

func TestLimit(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, func(c *orchestrator.Config) { c.MaxSandboxes = 1 })
	serve(t, o)
	create(t, o)
	other := spec()
	other.ID = "i2"
	if err := o.Create(t.Context(), other); !cove.Is(err, cove.Exhausted) {
		t.Errorf("err = %v, want exhausted", err)
	}
}

func TestCrashIsNoticedAndCleaned(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	events := subscribe(t, o)
	create(t, o)
	m.host.Crash(string(id))
	if e := <-events; e.What != node.Crashed {
		t.Errorf("event = %+v", e)
	}
	wantClean(t, m)
}

func TestNodeItselfEndsTheSandbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		o := m.orchestrator(t, nil)
		stop := serve(t, o)
		create(t, o)
		if err := o.SetEnd(t.Context(), id, "x1", time.Now().Add(2*time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2*time.Hour - time.Nanosecond)
		synctest.Wait()
		wantList(t, o, 1)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		wantList(t, o, 0)
		wantClean(t, m)
		if err := o.SetEnd(t.Context(), id, "x1", time.Now()); !cove.Is(err, cove.NotFound) {
			t.Errorf("moving the end of an ended one: %v", err)
		}
		stop()
	})
}

func TestEndCanMoveCloser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t)
		o := m.orchestrator(t, nil)
		stop := serve(t, o)
		create(t, o)
		// It may end while its new end is still being written down.
		if err := o.SetEnd(t.Context(), id, "x1", time.Now()); err != nil && !cove.Is(err, cove.NotFound) {
			t.Fatal(err)
		}
		time.Sleep(time.Nanosecond) // a timer that is due now fires when time moves on
		synctest.Wait()
		wantClean(t, m)
		stop()
	})
}

func TestRestartTakesOver(t *testing.T) {
	m := newMachine(t)
	first := m.orchestrator(t, nil)
	stop := serve(t, first)
	create(t, first)
	end := time.Now().Add(3 * time.Hour).Round(0)
	if err := first.SetEnd(t.Context(), id, "x1", end); err != nil {
		t.Fatal(err)
	}
	stop()
	if n := m.host.Running(string(id)); n != 1 {
		t.Fatalf("%d run after the server stopped, want 1", n)
	}
	if err := first.Kill(t.Context(), id, "x1"); !cove.Is(err, cove.Unavailable) {
		t.Errorf("a stopped orchestrator killed: %v", err)
	}

	second := m.orchestrator(t, nil)
	serve(t, second)
	list, err := second.List(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != id || !list[0].EndAt.Equal(end) {
		t.Fatalf("list = %+v, %v", list, err)
	}
	if err := second.Kill(t.Context(), id, "x1"); err != nil {
		t.Fatal(err)
	}
	wantClean(t, m)
}

func TestRestartClearsWhatEndedMeanwhile(t *testing.T) {
	m := newMachine(t)
	stop := serve(t, m.orchestrator(t, func(c *orchestrator.Config) {}))
	stop()
	first := m.orchestrator(t, nil)
	stop = serve(t, first)
	create(t, first)
	stop()
	m.host.Crash(string(id))
	second := m.orchestrator(t, nil)
	serve(t, second)
	wantList(t, second, 0)
	wantClean(t, m)
}

func TestRestartClearsAHalfStartedSandbox(t *testing.T) {
	m := newMachine(t)
	stop := serve(t, m.orchestrator(t, nil))
	stop()
	// As if the server had been killed between the engine's start and commit.
	dir := filepath.Join(m.dir, string(id))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sandbox.json"), []byte(`{"id":"i1","execution":"x1","slot":7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	m.slots[7], m.groups[id] = true, true
	serve(t, m.orchestrator(t, nil))
	wantClean(t, m)
}

func TestDial(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	if _, err := o.Dial(t.Context(), id, 80); !cove.Is(err, cove.NotFound) {
		t.Errorf("dialing nobody: %v", err)
	}
	create(t, o)
	if _, err := o.Dial(t.Context(), id, 80); !errors.Is(err, node.ErrPortClosed) {
		t.Errorf("dialing a closed port: %v", err)
	}
	m.open[80], m.local[81] = true, true
	for _, port := range []uint16{80, 81} {
		conn, err := o.Dial(t.Context(), id, port)
		if err != nil {
			t.Fatalf("port %d: %v", port, err)
		}
		defer conn.Close()
		read := make(chan error, 1)
		go func() {
			_, err := conn.Read(make([]byte, 1))
			read <- err
		}()
		if port == 81 {
			if err := o.Kill(t.Context(), id, "x1"); err != nil {
				t.Fatal(err)
			}
			if err := <-read; err == nil {
				t.Error("the connection outlived the sandbox")
			}
		}
	}
}

func TestNodeSuite(t *testing.T) {
	var m *machine
	var said int64
	nodetest.Run(t, nodetest.Bench{
		Open: func(t *testing.T) node.Node {
			m = newMachine(t)
			o := m.orchestrator(t, nil)
			serve(t, o)
			return o
		},
		Crash: func(_ *testing.T, id cove.SandboxID) { m.host.Crash(string(id)) },
		Say: func(t *testing.T, _ cove.SandboxID, message string) {
			said++
			m.listening(t, 0).lines <- orchestrator.Said{Seq: said, Level: cove.LogWarn, Logger: "guard", Message: message}
		},
	})
}

func TestRestartEndsAnEngineWhoseDirectoryIsGone(t *testing.T) {
	m := newMachine(t)
	first := m.orchestrator(t, nil)
	stop := serve(t, first)
	create(t, first)
	stop()
	if err := os.RemoveAll(m.dir); err != nil { // somebody started afresh
		t.Fatal(err)
	}
	serve(t, m.orchestrator(t, nil))
	wantClean(t, m)
}

func TestTooManyConnections(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	create(t, o)
	m.open[80] = true
	for i := range 4096 {
		if _, err := o.Dial(t.Context(), id, 80); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	if _, err := o.Dial(t.Context(), id, 80); !cove.Is(err, cove.Exhausted) {
		t.Errorf("err = %v, want exhausted", err)
	}
}

func TestDialEndsWithTheSandbox(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	create(t, o)
	m.hang = make(chan struct{}) // nobody answers, nobody refuses
	result := make(chan error, 1)
	go func() {
		_, err := o.Dial(t.Context(), id, 80)
		result <- err
	}()
	<-m.hang // it is on its way
	if err := o.Kill(t.Context(), id, "x1"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-result:
		if !cove.Is(err, cove.NotFound) {
			t.Errorf("err = %v, want not found", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the attempt to connect outlived the sandbox")
	}
}

func TestASlotThatCannotBeAdoptedYetDoesNotCostTheSandbox(t *testing.T) {
	m := newMachine(t)
	first := m.orchestrator(t, nil)
	stop := serve(t, first)
	create(t, first)
	stop()
	m.balk = 2
	second := m.orchestrator(t, nil)
	serve(t, second)
	if list, err := second.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("list = %v, %v", list, err)
	}
}
