package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"github.com/cove-sandbox/cove/internal/envd/account"
	pb "github.com/cove-sandbox/cove/internal/gen/process"
)

// A command is a program ready to be executed.
type command struct {
	name string // as asked for
	args []string
	env  map[string]string
	dir  string
	user account.User
}

// execError says why a program cannot be executed, and the status a shell would
// exit with.
type execError struct {
	name   string
	errno  syscall.Errno
	status uint32
}

// Error reads like a shell's complaint.
func (e *execError) Error() string {
	text := e.errno.Error()
	return e.name + ": " + strings.ToUpper(text[:1]) + text[1:]
}

func (e *execError) Unwrap() error { return e.errno }

func cannotExec(name string, errno syscall.Errno) error {
	status := uint32(126)
	if errno == syscall.ENOENT {
		status = 127
	}
	return &execError{name, errno, status}
}

// command checks what was asked for as far as that is an error of the call. A
// program that does not exist is not: that is an exit status.
func (s *Service) command(u account.User, cfg *pb.ProcessConfig) (command, error) {
	if cfg.GetCmd() == "" {
		return command{}, connect.NewError(connect.CodeInvalidArgument, errors.New("cmd is required"))
	}
	env := s.environ(u, cfg.GetEnvs())
	for k, v := range env {
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(v, 0) {
			return command{}, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("the environment variable %q cannot be set", k))
		}
	}
	hasZero := func(s string) bool { return strings.ContainsRune(s, 0) }
	if hasZero(cfg.GetCmd()) || slices.ContainsFunc(cfg.GetArgs(), hasZero) {
		return command{}, connect.NewError(connect.CodeInvalidArgument, errors.New("an argument cannot contain a zero byte"))
	}
	dir, err := s.workdir(u, cfg.GetCwd())
	if err != nil {
		return command{}, err
	}
	return command{name: cfg.GetCmd(), args: cfg.GetArgs(), env: env, dir: dir, user: u}, nil
}

// exec starts cmd directly: a shell in between would cost more than most
// commands take. The error is an *execError if cmd cannot be executed.
func (s *Service) exec(cmd command, ends childEnds) (int, <-chan syscall.WaitStatus, error) {
	path, errno := lookPath(cmd)
	if errno != 0 {
		return 0, nil, cannotExec(cmd.name, errno)
	}
	attr := &syscall.ProcAttr{
		Dir:   cmd.dir,
		Env:   joined(cmd.env),
		Files: []uintptr{uintptr(ends.stdin), uintptr(ends.stdout), uintptr(ends.stderr)},
		Sys: &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: cmd.user.UID, Gid: cmd.user.GID, Groups: cmd.user.Groups},
			// A group of its own, so that `kill 0` in a script ends the script
			// and not the daemon.
			Setpgid: !ends.tty,
			Setsid:  ends.tty,
			Setctty: ends.tty, // the controlling terminal is standard input
		},
	}
	pid, status, err := s.cfg.Reaper.Start(path, append([]string{cmd.name}, cmd.args...), attr)
	if errors.Is(err, syscall.ENOEXEC) {
		// A script without a first line that says what it is for.
		pid, status, err = s.cfg.Reaper.Start("/bin/sh", append([]string{"/bin/sh", path}, cmd.args...), attr)
	}
	if err == nil {
		return pid, status, nil
	}
	failed, ok := errors.AsType[syscall.Errno](err)
	if !ok || failed == syscall.EAGAIN || failed == syscall.ENOMEM {
		return 0, nil, connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("error starting process: %w", err))
	}
	return 0, nil, cannotExec(cmd.name, failed)
}

// lookPath finds the program as execvp does: a name without a slash in the
// directories of the process's own PATH, skipping what the user may not execute.
func lookPath(cmd command) (string, syscall.Errno) {
	if strings.Contains(cmd.name, "/") {
		return cmd.name, 0 // relative to cmd.dir, where the process will be
	}
	reason := syscall.ENOENT
	for _, dir := range filepath.SplitList(cmd.env["PATH"]) {
		if dir == "" {
			dir = "."
		}
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(cmd.dir, dir)
		}
		path := filepath.Join(dir, cmd.name)
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if permits(cmd.user, info, execute) {
			return path, 0
		}
		reason = syscall.EACCES
	}
	return "", reason
}

const execute = 0o1 // the bit of one class

// may reports whether u has the permission on the file at path and may search
// every directory on the way to it. It sees permission bits only, which is what
// a refusal in plain words needs; the kernel has the last word.
func may(u account.User, path string, bit fs.FileMode) bool {
	if u.UID == 0 {
		return true
	}
	for path = filepath.Clean(path); ; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil || !permits(u, info, bit) {
			return false
		}
		bit = execute
		if path == "/" || path == "." {
			return true
		}
	}
}

func permits(u account.User, info fs.FileInfo, bit fs.FileMode) bool {
	mode := info.Mode().Perm()
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return true
	case u.UID == 0:
		return info.IsDir() || mode&(bit|bit<<3|bit<<6) != 0
	case st.Uid == u.UID:
		return mode&(bit<<6) != 0
	case st.Gid == u.GID || slices.Contains(u.Groups, st.Gid):
		return mode&(bit<<3) != 0
	}
	return mode&bit != 0
}

// setOOMScore makes the process go before the daemon does when memory ends. The
// process may have ended already, and some kernels refuse: both are fine.
func (s *Service) setOOMScore(pid int) {
	if s.cfg.OOMScore == 0 {
		return
	}
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	unix.Write(fd, []byte(strconv.Itoa(s.cfg.OOMScore)))
}
