package runsc

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/runtime/runsc/launch"
)

// exportLimit bounds one export, however slowly it is read: the sandbox stands
// still meanwhile.
const exportLimit = 15 * time.Minute

// Export implements runtime.Process.
func (p *process) Export(ctx context.Context, dir string, to *os.File) error {
	const op = "runsc.Export"
	disk, err := p.openDisk(dir)
	if err == nil {
		defer disk.Close()
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, exportLimit)
		defer cancel()
		_, err = p.order(ctx, launch.Order{Do: launch.Export, ID: p.handle.ID, Socket: p.handle.Socket}, to, disk)
	}
	switch {
	case err == nil:
		return nil
	case p.gone():
		return cove.E(cove.NotFound, op, err, "the sandbox has ended")
	case ctx.Err() != nil:
		return cove.E(cove.DeadlineExceeded, op, err, "the sandbox's files were not read in time")
	case strings.Contains(err.Error(), launch.Unknown):
		return cove.E(cove.Unimplemented, op, err, "the sandbox runs on an engine that is too old to export its files")
	}
	return failure(op, err, "the sandbox's files could not be read")
}

// openDisk opens the file that is the writable layer.
func (p *process) openDisk(dir string) (*os.File, error) {
	files, err := p.find(dir)
	if err != nil {
		return nil, err
	}
	want := files[diskFile]
	if want.fd == "" {
		return nil, errors.New("the engine's file was not found")
	}
	f, err := os.OpenFile(filepath.Join(p.fds(), want.fd), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &st); err == nil && (st.Dev != want.dev || st.Ino != want.ino || st.Mode&unix.S_IFMT != unix.S_IFREG) {
		err = errors.New("the engine's file is another one")
	}
	// What was found counts only if the process was still the one that is meant.
	if err == nil && p.gone() {
		err = errGone
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// gone reports whether the engine has ended.
func (p *process) gone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd == nil {
		return true
	}
	over := false
	conn, err := p.pidfd.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) { over = ended(int(fd)) })
	}
	return over || err != nil
}
