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
	"sync/atomic"
	"syscall"

	"github.com/cove-sandbox/cove/internal/envd/pen"
)

// ErrGone says that a process has ended and been waited for.
var ErrGone = errors.New("process has ended")

// A Reaper is the parent of all processes. It is safe for concurrent use.
type Reaper struct {
	orphans bool
	pens    *pen.Pens // nil without

	// mu is held while a child is started, signalled or waited for: no status
	// arrives before its process is registered, and no signal hits a process
	// that took over the number of one that has ended.
	mu       sync.Mutex
	children map[int]chan syscall.WaitStatus // guarded by mu
	kin      atomic.Bool                     // something may be running; written under mu

	// Lock order: entry, then mu, then forking; Hold leaves out mu.
	entry   sync.Mutex // held while nothing may be started
	forking sync.Mutex // held between fork and exec

	started chan struct{} // gets a value, if it has room, when kin becomes true
}

// New returns a Reaper. Only the first process of a sandbox collects orphans;
// another would steal the statuses that the rest of its program waits for. If
// pens is not nil, each child gets a pen.
func New(orphans bool, pens *pen.Pens) *Reaper {
	return &Reaper{orphans: orphans, pens: pens, children: map[int]chan syscall.WaitStatus{}, started: make(chan struct{}, 1)}
}

// Any reports whether there is a process that Start started or, if orphans are
// collected, any of their descendants: one of them is always a child here. It
// never waits.
func (r *Reaper) Any() bool { return r.kin.Load() }

// Started returns a channel that gets a value when Any may have become true. It
// is for one receiver.
func (r *Reaper) Started() <-chan struct{} { return r.started }

// Start starts a program as syscall.StartProcess does. The channel gets the
// process's status once, within Run, as soon as it has ended.
func (r *Reaper) Start(path string, argv []string, attr *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error) {
	r.entry.Lock()
	r.entry.Unlock() // only to wait: without mu, so that the ended are collected meanwhile
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := r.fork(path, argv, attr)
	if err != nil {
		return 0, nil, err
	}
	status := make(chan syscall.WaitStatus, 1)
	r.children[pid] = status
	if !r.kin.Swap(true) {
		select {
		case r.started <- struct{}{}:
		default: // it has not been received since the last time; once is enough
		}
	}
	return pid, status, nil
}

// fork starts a program in a pen of its own.
func (r *Reaper) fork(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	if r.pens == nil {
		r.forking.Lock()
		defer r.forking.Unlock()
		pid, _, err = syscall.StartProcess(path, argv, attr)
		return pid, err
	}
	penned, sys := *attr, *attr.Sys
	penned.Sys = &sys
	err = r.pens.Start(func(fd int) (err error) {
		sys.UseCgroupFD, sys.CgroupFD = true, fd
		r.forking.Lock()
		defer r.forking.Unlock()
		pid, _, err = syscall.StartProcess(path, argv, &penned)
		return err
	})
	return pid, err
}

// Hold waits until no child is between fork and exec, and makes Start wait until
// Release.
func (r *Reaper) Hold() {
	r.entry.Lock()
	r.forking.Lock()
}

// Release is the end of Hold.
func (r *Reaper) Release() {
	r.forking.Unlock()
	r.entry.Unlock()
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
	if r.pens != nil {
		defer r.pens.Sweep() // who was last in a pen has just been waited for
	}
	if r.orphans {
		for {
			_, err := r.wait(-1)
			if errors.Is(err, syscall.ECHILD) {
				r.kin.Store(false)
			}
			if err != nil {
				return
			}
		}
	}
	for pid := range r.children {
		r.wait(pid) // that it still runs is no failure
	}
	r.kin.Store(len(r.children) > 0)
}

var errRunning = errors.New("nobody has ended")

// wait waits for pid without blocking, hands the status on and returns who it
// was. The error is errRunning if there are children but none has ended.
// r.mu is held.
func (r *Reaper) wait(pid int) (int, error) {
	var status syscall.WaitStatus
	for {
		ended, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if ended <= 0 {
			return 0, errRunning
		}
		if waiting, ok := r.children[ended]; ok {
			delete(r.children, ended)
			waiting <- status
		}
		return ended, nil
	}
}
