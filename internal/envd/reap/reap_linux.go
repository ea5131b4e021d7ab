// Package reap starts the daemon's children and collects what has ended.
//
// It exists because the daemon is the sandbox's first process: every orphan
// becomes its child and must be waited for, or it stays as a zombie. Waiting
// for "any child" would take the exit status of the daemon's own children away
// from whoever waits for them; so here is the only place of the daemon that
// waits, and the only one that starts and signals. Package os's Process and
// os/exec are therefore not used.
//
// Only the packages of the daemon import it. Run owns no goroutine but its own.
package reap

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// ErrGone says that a process has ended and been waited for.
var ErrGone = errors.New("process has ended")

// A Reaper is the parent of all processes. It is safe for concurrent use.
type Reaper struct {
	orphans bool

	// mu is held while a child is started, signalled or waited for: no status
	// arrives before its process is registered, and no signal hits a process
	// that took over the number of one that has ended.
	mu       sync.Mutex
	children map[int]chan syscall.WaitStatus // guarded by mu
}

// New returns a Reaper. Only the first process of a sandbox collects orphans;
// another would steal the statuses that the rest of its program waits for.
func New(orphans bool) *Reaper {
	return &Reaper{orphans: orphans, children: map[int]chan syscall.WaitStatus{}}
}

// Start starts a program as syscall.StartProcess does. The channel gets the
// process's status once, within Run, as soon as it has ended.
func (r *Reaper) Start(path string, argv []string, attr *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, _, err := syscall.StartProcess(path, argv, attr)
	if err != nil {
		return 0, nil, err
	}
	status := make(chan syscall.WaitStatus, 1)
	r.children[pid] = status
	return pid, status, nil
}

// Signal sends sig to a process that Start started; ErrGone if it has ended.
func (r *Reaper) Signal(pid int, sig syscall.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.children[pid]; !ok {
		return ErrGone
	}
	return syscall.Kill(pid, sig)
}

// Run collects ended processes until ctx is done.
func (r *Reaper) Run(ctx context.Context) error {
	ended := make(chan os.Signal, 1) // one is enough: a pass collects all there are
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	for {
		r.collect()
		select {
		case <-ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *Reaper) collect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.orphans {
		for pid := -1; ; {
			if ended := r.wait(pid); ended <= 0 {
				return
			}
		}
	}
	for pid := range r.children {
		r.wait(pid)
	}
}

// wait waits for pid without blocking, hands the status on and returns who it
// was; 0 or less if there was nobody. r.mu is held.
func (r *Reaper) wait(pid int) int {
	var status syscall.WaitStatus
	for {
		ended, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || ended <= 0 {
			return -1
		}
		if waiting, ok := r.children[ended]; ok {
			delete(r.children, ended)
			waiting <- status
		}
		return ended
	}
}
