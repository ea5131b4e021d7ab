package runsc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/runtime"
)

// The engine keeps a sandbox's memory in one file and its writable layer in
// another. Neither has a name on the host, so they are found among the engine's
// open files. What they hold is exactly what the sandbox's own kernel says is
// used: freed pages and deleted blocks are given back as holes.
const (
	memoryFile = iota
	diskFile
)

// memoryName is what the engine calls the file that is a sandbox's memory.
const memoryName = "/memfd:runsc-memory"

// nameless follows the name of a file that has none any more.
const nameless = " (deleted)"

// A file is an open file of the engine's. A zero file has not been found.
type file struct {
	fd       string
	dev, ino uint64 // tell another file that was opened under the same number
}

// Usage implements runtime.Process.
func (p *process) Usage(dir string) (runtime.Usage, error) {
	const op = "runsc.Usage"
	p.mu.Lock()
	files, gone := p.files, p.pidfd == nil
	p.mu.Unlock()
	if gone {
		return runtime.Usage{}, cove.E(cove.NotFound, op, nil, "the sandbox has ended")
	}
	sizes, err := p.sizes(files)
	if err != nil { // not looked for yet, or not there any more
		if files, err = p.find(dir); err == nil {
			sizes, err = p.sizes(files)
		}
	}
	// What was read counts only if the process was still the one that is meant.
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd == nil {
		return runtime.Usage{}, cove.E(cove.NotFound, op, err, "the sandbox has ended")
	}
	if err != nil {
		return runtime.Usage{}, cove.E(cove.Internal, op, err, "the sandbox could not be measured; the server's log says why")
	}
	p.files = files
	return runtime.Usage{Memory: sizes[memoryFile], Disk: sizes[diskFile]}, nil
}

func (p *process) fds() string { return fmt.Sprintf("/proc/%d/fd", p.handle.PID) }

// sizes returns how many bytes the files hold.
func (p *process) sizes(files [2]file) (sizes [2]int64, err error) {
	for i, f := range files {
		if f.fd == "" {
			return sizes, errors.New("the engine's file was not found")
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(p.fds(), f.fd), &st); err != nil {
			return sizes, err
		}
		if st.Dev != f.dev || st.Ino != f.ino {
			return sizes, errors.New("the engine's file is another one")
		}
		sizes[i] = st.Blocks * 512
	}
	return sizes, nil
}

// find looks through the engine's open files for the two.
func (p *process) find(dir string) (files [2]file, err error) {
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return files, err
	}
	fds, err := os.ReadDir(p.fds())
	if err != nil {
		return files, err
	}
	for _, fd := range fds {
		path := filepath.Join(p.fds(), fd.Name())
		target, err := os.Readlink(path)
		target, deleted := strings.CutSuffix(target, nameless)
		if err != nil || !deleted {
			continue
		}
		which := diskFile
		switch {
		case target == memoryName:
			which = memoryFile
		case filepath.Dir(target) != dir:
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			continue // closed meanwhile
		}
		files[which] = file{fd: fd.Name(), dev: st.Dev, ino: st.Ino}
	}
	return files, nil
}
