package debian

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	cove "github.com/cove-sandbox/cove"
	"golang.org/x/sys/unix"
)

// execute runs a command to its end. It is the first process of a PID
// namespace and lives in a mount namespace: when it dies, and it dies with us
// or with ctx, the kernel ends everything it started and unmounts everything it
// mounted.
func execute(ctx context.Context, path string, args, env []string, output io.Writer) error {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = env
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNS,
		Pdeathsig:    syscall.SIGKILL,
		Setpgid:      true,
	}
	cmd.WaitDelay = 10 * time.Second
	// The death signal is tied to the thread that starts the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return cmd.Run()
}

// lock takes the lock at path, which ends with the file or the process.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, cove.E(cove.Conflict, "debian.lock", err, "the base system is already being built by another process")
		}
		return nil, err
	}
	return f, nil
}
