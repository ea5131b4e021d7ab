package runsc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/runtime"
	"github.com/cove-sandbox/cove/internal/runtime/runsc/launch"
)

// maxStderr is how much of a failed launcher's complaint is kept for the log.
const maxStderr = 16 << 10

// launch runs the launcher and returns what it started. If ctx ends first, the
// launcher and whatever it started are killed.
func (r *Runtime) launch(ctx context.Context, version string, spec runtime.Spec, bundle string) (launch.Response, error) {
	const op = "runsc.launch"
	req := launch.Request{
		ID: spec.ID, StateDir: r.cfg.StateDir, Bundle: bundle,
		Rootfs: spec.Rootfs, UpperDir: spec.Dir, UpperBytes: spec.DiskBytes,
		Restore: spec.Restore, FilesOnly: spec.FilesOnly, Cgroups: spec.Cgroups, CPUs: spec.CPUs, MemoryBytes: spec.MemoryBytes,
		Output: spec.Output != nil, PanicLog: filepath.Join(spec.Dir, runtime.PanicLog),
	}
	for _, image := range spec.Images {
		req.Images = append(req.Images, image.Source)
	}
	if n := spec.Network; n != nil {
		req.Network = &launch.Network{NetNS: n.NetNS, Interface: n.Interface, Address: n.Address, Gateway: n.Gateway, MTU: n.MTU}
	}
	engine, err := r.engine(version)
	if err != nil {
		return launch.Response{}, err
	}
	var files []*os.File
	if spec.Output != nil {
		files = []*os.File{spec.Output} // launch.OutputFD
	}
	resp, err := ask(ctx, engine, launch.Verb, req, files...)
	if err == nil {
		return resp, nil
	}
	err = errors.Join(err, r.killLeftover(spec.ID))
	switch {
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission):
		return launch.Response{}, cove.E(cove.Unavailable, op, err, "the sandbox engine is missing on the server: run \"make build\" or reinstall cove")
	case ctx.Err() != nil:
		return launch.Response{}, cove.E(cove.DeadlineExceeded, op, err, "the sandbox did not start in time; try again")
	}
	return launch.Response{}, failure(op, err, "the sandbox could not be started")
}

// farewell is how long an engine binary that is not needed any more may take to
// leave the sandbox as it found it: it cannot hurry a stop that is under way.
const farewell = 30 * time.Second

// ask runs an engine binary with one question and returns its answer. files are
// its file descriptors from 3 on. If ctx ends first, it is asked to leave.
func ask(ctx context.Context, engine, verb string, question any, files ...*os.File) (launch.Response, error) {
	input, err := json.Marshal(question)
	if err != nil {
		return launch.Response{}, err
	}
	cmd := exec.CommandContext(ctx, engine, verb)
	var stdout bytes.Buffer
	stderr := &tail{max: maxStderr}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, stderr
	cmd.Env = []string{"TMPDIR=" + os.TempDir()} // nothing of the server's environment reaches the engine
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = farewell
	runErr := cmd.Run()

	var resp launch.Response
	if err := json.Unmarshal(stdout.Bytes(), &resp); err != nil {
		resp.Error = fmt.Sprintf("no answer: %v", err)
	}
	if runErr == nil && resp.Error == "" {
		return resp, nil
	}
	return launch.Response{}, fmt.Errorf("launcher: %s (%w): %s", resp.Error, errors.Join(runErr, ctx.Err()), stderr)
}

// versionLimit bounds the engine's answer to the question which it is.
const versionLimit = 20 * time.Second

// Version returns the version of an engine binary: what it writes, only an
// engine of the same version can go on from.
func Version(ctx context.Context, engine string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, engine, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("asking the engine for its version: %w", err)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	_, version, ok := bytes.Cut(line, []byte("version "))
	if !ok || bytes.Contains(version, []byte("MISSING")) {
		return "", fmt.Errorf("the engine has no version (%q): build it with \"make build\"", line)
	}
	return string(version), nil
}

// killLeftover ends an engine whose launcher died before it could say so. It is
// found by its arguments.
func (r *Runtime) killLeftover(id string) error {
	pids, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range pids {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // the process has ended
		}
		args := bytes.Split(bytes.TrimSuffix(line, []byte{0}), []byte{0})
		// The state directory tells this server's engines from those of another
		// server on a copy of the same data.
		own := slices.ContainsFunc(args, func(arg []byte) bool { return string(arg) == "--root="+r.cfg.StateDir })
		if string(args[0]) != "runsc-sandbox" || string(args[len(args)-1]) != id || !own {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(path, "/proc/%d/cmdline", &pid); err != nil {
			continue
		}
		errs = append(errs, killAndWait(pid))
	}
	errs = append(errs, removeSocket(filepath.Join(r.cfg.StateDir, "runsc-"+id+".sock")))
	return errors.Join(errs...)
}

// killAndWait kills a process and waits, for at most five seconds, until it is
// gone.
func killAndWait(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // it has ended
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return err
	}
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, int(time.Until(deadline).Milliseconds())); err != unix.EINTR && (err != nil || n > 0) {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // ECHILD: not ours to reap
			return err
		}
	}
	return fmt.Errorf("engine process %d does not end", pid)
}

// failure classifies an error of the host for the caller.
func failure(op string, err error, msg string) error {
	if errors.Is(err, syscall.ENOSPC) || bytes.Contains([]byte(err.Error()), []byte("no space left on device")) {
		return cove.E(cove.NoSpace, op, err, "the server's disk is full: free space in its data directory")
	}
	return cove.E(cove.Internal, op, err, "%s; the server's log says why", msg)
}

// tail keeps the last max bytes written to it.
type tail struct {
	max int
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.buf) }
