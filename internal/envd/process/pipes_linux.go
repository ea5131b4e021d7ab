package process

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	pb "github.com/cove-sandbox/cove/internal/gen/process"
)

// childEnds are the descriptors that become a process's standard ones. They
// stay raw: wrapping them in files would make them non-blocking for the process.
type childEnds struct {
	stdin, stdout, stderr int
	tty                   bool // all three are one terminal
}

func (e childEnds) close() {
	for _, fd := range []int{e.stdin, e.stdout, e.stderr} {
		if fd >= 0 {
			unix.Close(fd)
		}
		if e.tty {
			return
		}
	}
}

// open opens what joins p to the daemon, as req asks for it. A terminal belongs
// to uid. On an error the
// caller closes p; the child's ends are closed already.
func open(p *process, uid uint32, req *pb.StartRequest) (_ childEnds, err error) {
	if req.GetPty() != nil {
		return openPTY(p, uid, req.GetPty().GetSize())
	}
	ends := childEnds{stdin: -1, stdout: -1, stderr: -1}
	defer func() {
		if err != nil {
			ends.close()
		}
	}()
	p.input = newInput(nil, false)
	if req.Stdin == nil || req.GetStdin() {
		// Absent means yes: clients that do not know the field expect it.
		var file *os.File
		if ends.stdin, file, err = pipe(true); err != nil {
			return ends, err
		}
		p.input = newInput(file, false)
	} else if ends.stdin, err = unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return ends, err
	}
	for _, out := range []struct {
		fd   *int
		wrap func([]byte) *pb.ProcessEvent
	}{{&ends.stdout, stdoutEvent}, {&ends.stderr, stderrEvent}} {
		fd, file, err := pipe(false)
		if err != nil {
			return ends, err
		}
		*out.fd = fd
		p.outputs = append(p.outputs, output{file, chunkStd, out.wrap})
	}
	return ends, nil
}

// pipe returns the process's end of a pipe, and ours, which can be waited on
// with a deadline.
func pipe(weWrite bool) (int, *os.File, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, nil, err
	}
	theirs, ours := fds[1], fds[0]
	if weWrite {
		theirs, ours = ours, theirs
	}
	if err := unix.SetNonblock(ours, true); err != nil {
		unix.Close(theirs)
		unix.Close(ours)
		return -1, nil, err
	}
	return theirs, os.NewFile(uintptr(ours), "pipe"), nil
}

// openPTY opens a terminal. Package pty would do it too, but leaves our side
// blocking, so that a read could not be stopped.
func openPTY(p *process, uid uint32, size *pb.PTY_Size) (childEnds, error) {
	none := childEnds{stdin: -1, stdout: -1, stderr: -1}
	ours, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return none, err
	}
	master := os.NewFile(uintptr(ours), "pty")
	p.pty = master
	p.outputs = []output{{master, chunkPTY, ptyEvent}}
	p.input = newInput(master, true)
	if err := unix.IoctlSetPointerInt(ours, unix.TIOCSPTLCK, 0); err != nil {
		return none, err
	}
	n, err := unix.IoctlGetUint32(ours, unix.TIOCGPTN)
	if err != nil {
		return none, err
	}
	if size.GetCols() == 0 || size.GetRows() == 0 {
		size = &pb.PTY_Size{Cols: 80, Rows: 24}
	}
	if err := resize(master, size); err != nil {
		return none, err
	}
	theirs, err := unix.Open("/dev/pts/"+strconv.FormatUint(uint64(n), 10), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return none, err
	}
	// Programs that open their terminal by name must be let in. Where the file
	// system cannot do this, they still have the descriptors.
	_ = unix.Fchown(theirs, int(uid), -1)
	return childEnds{stdin: theirs, stdout: theirs, stderr: theirs, tty: true}, nil
}

// resize sets the size of the terminal. Sizes beyond what one has are cut.
func resize(master *os.File, size *pb.PTY_Size) error {
	raw, err := master.SyscallConn()
	if err != nil {
		return err
	}
	ws := &unix.Winsize{Col: uint16(min(size.GetCols(), 1<<16-1)), Row: uint16(min(size.GetRows(), 1<<16-1))}
	var ioctlErr error
	if err := raw.Control(func(fd uintptr) { ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, ws) }); err != nil {
		return err
	}
	return ioctlErr
}
