package reap_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/internal/envd/reap"
)

// patience bounds every wait of these tests.
const patience = 20 * time.Second

func run(t *testing.T) *reap.Reaper {
	t.Helper()
	r := reap.New(false, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

func start(t *testing.T, r *reap.Reaper, argv ...string) (int, <-chan syscall.WaitStatus) {
	t.Helper()
	attr := &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setpgid: true}}
	pid, status, err := r.Start("/bin/"+argv[0], argv, attr)
	if err != nil {
		t.Fatal(err)
	}
	return pid, status
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestWhoIsThere(t *testing.T) {
	r := run(t)
	if r.Any() {
		t.Error("somebody is there before anything was started")
	}
	pid, status := start(t, r, "sleep", "100")
	<-r.Started()
	if !r.Any() {
		t.Error("nobody is there though something was started")
	}
	if err := r.Signal(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if s := <-status; s.Signal() != syscall.SIGKILL {
		t.Errorf("status %v", s)
	}
	eventually(t, "nobody is there", func() bool { return !r.Any() })
	if err := r.Signal(pid, syscall.SIGKILL); err != reap.ErrGone {
		t.Errorf("err = %v", err)
	}
}

func TestHold(t *testing.T) {
	r := run(t)
	_, ends := start(t, r, "sleep", "0.1")
	r.Hold()
	started := make(chan (<-chan syscall.WaitStatus), 1)
	go func() {
		_, status := start(t, r, "true")
		started <- status
	}()
	<-ends // what has ended is collected all the same
	select {
	case <-started:
		t.Error("started while held")
	default:
	}
	r.Release()
	<-<-started
	r.Hold() // it can be held again
	r.Release()
}
