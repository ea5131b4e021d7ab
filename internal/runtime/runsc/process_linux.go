package runsc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/runtime"
	"github.com/cove-sandbox/cove/internal/runtime/runsc/launch"
)

// process is a running engine. Its watch goroutine, which ends with the
// engine, closes done and then pidfd.
type process struct {
	runtime *Runtime
	handle  runtime.Handle
	done    chan struct{} // closed by wait once the engine is gone and reaped

	mu    sync.Mutex // not held during I/O other than a signal
	pidfd *os.File   // nil once the engine is gone; guarded by mu
	files [2]file    // where Usage found what it looks at; guarded by mu
}

var errGone = errors.New("no such process")

// watch opens the process a handle names and starts to wait for its end. A
// handle without a start time, of a process just started, gets one.
func (r *Runtime) watch(h runtime.Handle) (*process, error) {
	fd, err := unix.PidfdOpen(h.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("opening the engine's process: %w", err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	// The start time is read after the process was opened: if it fits, the
	// descriptor names the process that was meant.
	start, err := startTime(h.PID)
	if err == nil && h.Start != "" && h.Start != start {
		err = errGone
	}
	if err != nil {
		pidfd.Close()
		return nil, err
	}
	h.Start = start
	p := &process{runtime: r, handle: h, done: make(chan struct{}), pidfd: pidfd}
	go p.wait()
	return p, nil
}

// Handle implements runtime.Process.
func (p *process) Handle() runtime.Handle { return p.handle }

// Done implements runtime.Process.
func (p *process) Done() <-chan struct{} { return p.done }

// Kill implements runtime.Process.
func (p *process) Kill(ctx context.Context) error {
	const op = "runsc.Kill"
	if err := p.signal(unix.SIGKILL); err != nil {
		return cove.E(cove.Internal, op, err, "the sandbox could not be ended; the server's log says why")
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return cove.E(cove.DeadlineExceeded, op, ctx.Err(), "the sandbox did not end in time")
	}
	if err := removeSocket(p.handle.Socket); err != nil {
		return cove.E(cove.Internal, op, err, "the sandbox's control socket could not be removed")
	}
	return nil
}

// checkpointLimit bounds one checkpoint. Memory and disk are written at disk
// speed, so it is generous.
const checkpointLimit = 15 * time.Minute

// Checkpoint implements runtime.Process.
func (p *process) Checkpoint(ctx context.Context, dir string, filesOnly bool) error {
	const op = "runsc.Checkpoint"
	// Not given up halfway: the order alone knows how to let the sandbox go on.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkpointLimit)
	defer cancel()
	order := launch.Order{Do: launch.Checkpoint, ID: p.handle.ID, Socket: p.handle.Socket, Dir: dir, FilesOnly: filesOnly}
	if _, err := p.order(ctx, order); err != nil {
		return failure(op, err, "the sandbox's state could not be saved; it goes on running")
	}
	return nil
}

// Thaw implements runtime.Process.
func (p *process) Thaw(ctx context.Context) error {
	const op = "runsc.Thaw"
	order := launch.Order{Do: launch.Thaw, ID: p.handle.ID, Socket: p.handle.Socket}
	if _, err := p.order(ctx, order); err != nil {
		return failure(op, err, "the stopped sandbox could not go on")
	}
	return nil
}

// order has the engine do something, by its own kind: the two must understand
// each other.
func (p *process) order(ctx context.Context, order launch.Order, files ...*os.File) (launch.Response, error) {
	engine, err := p.runtime.engine(p.handle.Engine)
	if err != nil {
		engine = p.runtime.cfg.Engine // the newest may do
	}
	return ask(ctx, engine, launch.OrderVerb, order, files...)
}

func (p *process) signal(sig unix.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd == nil {
		return nil
	}
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = conn.Control(func(fd uintptr) { serr = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if errors.Is(serr, unix.ESRCH) {
		serr = nil
	}
	return errors.Join(err, serr)
}

// wait blocks in the poller until the engine has ended, and reaps it if it is
// a child of this process: the server takes in orphans (see server) and so is
// the engine's parent once the launcher has left.
func (p *process) wait() {
	conn, err := p.pidfd.SyscallConn()
	if err == nil {
		// The read callback is asked again each time the descriptor may have
		// become readable, which for a pidfd means: the process has ended.
		_ = conn.Read(func(fd uintptr) bool { return ended(int(fd)) })
	}
	var status unix.WaitStatus
	_, _ = unix.Wait4(p.handle.PID, &status, unix.WNOHANG, nil) // ECHILD: somebody else's child
	p.mu.Lock()
	p.pidfd.Close()
	p.pidfd = nil
	p.mu.Unlock()
	close(p.done)
}

func ended(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return n > 0 || (err != nil && err != unix.EINTR)
}

// startTime returns field 22 of /proc/pid/stat, which together with the PID
// names a process for as long as the host is up, and the host's boot, which
// tells one uptime from the next.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", errGone
	}
	// The second field is a name in parentheses that may hold anything.
	_, rest, ok := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
	fields := bytes.Fields(rest)
	if !ok || len(fields) < 20 {
		return "", errGone
	}
	if state := string(fields[0]); state == "Z" || state == "X" {
		return "", errGone
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	return string(fields[19]) + "@" + string(bytes.TrimSpace(boot)), nil
}
