// Package pen keeps together what comes of one command, however far it runs.
//
// A pen is a control group of the sandbox's own kernel. A process that is
// started in one stays in it with all its descendants: those that leave their
// process group or session, and those whose parents have ended, too. The kernel
// refuses (EAGAIN) what would make more tasks than a pen, or all pens together,
// may hold, so that nothing inside can outgrow that while the guard is looking
// elsewhere; and it ends a pen in one step that nothing being born escapes.
//
// The tree of pens is mounted nowhere: only the daemon has it. A root user who
// mounts it and moves out is none of its concern; he harms his own sandbox.
//
// Only the packages of the daemon import it. It starts no goroutines.
package pen

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Pens are all pens of a sandbox. It is safe for concurrent use.
type Pens struct {
	dir int // of all pens; open for good
	max int // tasks in one

	mu   sync.Mutex
	last int    // guarded by mu; the name of the newest
	pens []*Pen // guarded by mu; those that may hold somebody, oldest first
}

// A Pen holds one command and its descendants.
type Pen struct {
	dir   int // of all pens
	name  string
	ended atomic.Bool
}

// Open makes a place for pens that hold at most all tasks, processes and their
// threads, of which one pen leaves spare to the others.
func Open(all, spare int) (*Pens, error) {
	root, err := mount()
	if err != nil {
		return nil, fmt.Errorf("control groups: %w", err)
	}
	defer unix.Close(root)
	// The engine counts for each controller that is on. It may have switched
	// them all on; this is the only one that is of use.
	for _, name := range []string{"cpu", "cpuset", "memory"} {
		_ = write(root, "cgroup.subtree_control", "-"+name) // off already: as good
	}
	if err := write(root, "cgroup.subtree_control", "+pids"); err != nil {
		return nil, fmt.Errorf("control groups: %w", err)
	}
	dir, err := makeDir(root, "pens")
	if err != nil {
		return nil, fmt.Errorf("control groups: %w", err)
	}
	err = errors.Join(write(dir, "pids.max", strconv.Itoa(all)), write(dir, "cgroup.subtree_control", "+pids"))
	if err != nil {
		unix.Close(dir)
		return nil, fmt.Errorf("control groups: %w", err)
	}
	return &Pens{dir: dir, max: all - spare}, nil
}

// mount returns the root of the control groups, mounted nowhere.
func mount() (int, error) {
	config, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return 0, err
	}
	defer unix.Close(config)
	if err := unix.FsconfigCreate(config); err != nil {
		return 0, err
	}
	return unix.Fsmount(config, unix.FSMOUNT_CLOEXEC, 0)
}

// Start calls start with the descriptor of a new pen, which is to become that of
// SysProcAttr.CgroupFD. If start fails, the pen is gone.
func (p *Pens) Start(start func(fd int) error) error {
	p.mu.Lock()
	p.last++
	pen := &Pen{dir: p.dir, name: strconv.Itoa(p.last)}
	p.mu.Unlock()
	fd, err := makeDir(p.dir, pen.name)
	if err != nil {
		return fmt.Errorf("a control group: %w", err)
	}
	defer unix.Close(fd)
	if err = write(fd, "pids.max", strconv.Itoa(p.max)); err == nil {
		err = start(fd)
	}
	if err != nil {
		pen.remove()
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pens = append(p.pens, pen)
	return nil
}

// List returns the pens that may hold somebody, oldest first; none in which
// something is just being started.
func (p *Pens) List() []*Pen {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*Pen(nil), p.pens...)
}

// Sweep removes the pens that are empty.
func (p *Pens) Sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := p.pens[:0]
	for _, pen := range p.pens {
		if !pen.remove() {
			left = append(left, pen)
		}
	}
	clear(p.pens[len(left):])
	p.pens = left
}

// remove removes the pen if it is empty.
func (p *Pen) remove() bool {
	return unix.Unlinkat(p.dir, p.name, unix.AT_REMOVEDIR) == nil
}

// maxRead bounds what is read of a control group's file, in bytes.
const maxRead = 64 << 10

// Processes returns the processes in the pen that have not ended.
func (p *Pen) Processes() []int {
	fd, err := unix.Openat(p.dir, p.name+"/cgroup.procs", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // it is gone
	}
	defer unix.Close(fd)
	buf := make([]byte, maxRead)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return nil
	}
	var out []int
	for _, line := range bytes.Fields(buf[:n]) {
		if pid, err := strconv.Atoi(string(line)); err == nil && pid > 0 {
			out = append(out, pid)
		}
	}
	return out
}

// End kills all who are in the pen.
func (p *Pen) End() error {
	p.ended.Store(true)
	if err := write(p.dir, p.name+"/cgroup.kill", "1"); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("end a control group: %w", err)
	}
	return nil
}

// Ended reports whether the pen was ended. Who is still in it is about to go.
func (p *Pen) Ended() bool { return p.ended.Load() }

func makeDir(parent int, name string) (int, error) {
	if err := unix.Mkdirat(parent, name, 0o755); err != nil {
		return 0, fmt.Errorf("make %s: %w", name, err)
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", name, err)
	}
	return fd, nil
}

func write(dir int, name, value string) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
