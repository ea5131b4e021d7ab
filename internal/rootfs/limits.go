package rootfs

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"syscall"

	cove "github.com/cove-sandbox/cove"
)

// Limits bounds what a build accepts. Zero fields mean the defaults. A base
// counts like a layer, its bytes as far as they are in the image.
type Limits struct {
	Entries int   // files, directories and links of all layers; 0: 1,000,000
	Bytes   int64 // of all uncompressed layers, and of the image's files; 0: 32 GiB
	Names   int64 // bytes of names and link targets of all layers; 0: 256 MiB
}

// What Linux itself allows.
const (
	maxPath   = 4096
	maxName   = 255
	maxTarget = 4095 // a symbolic link's target
	maxHops   = 40   // symbolic links followed for one path
)

// stepsPerEntry bounds the walking that symbolic links can cause: a budget of
// directory look-ups per allowed entry, for the whole build.
const stepsPerEntry = 64

func (l Limits) orDefaults() Limits {
	if l.Entries == 0 {
		l.Entries = 1_000_000
	}
	if l.Bytes == 0 {
		l.Bytes = 32 << 30
	}
	if l.Names == 0 {
		l.Names = 256 << 20
	}
	return l
}

func tooBig(what string, limit int64) error {
	return cove.E(cove.Exhausted, "rootfs", nil, "the image is too big: more than %d %s", limit, what)
}

func malformed(cause error, format string, args ...any) error {
	return cove.E(cove.Invalid, "rootfs", cause, "invalid image layer: %s", fmt.Sprintf(format, args...))
}

// outcome gives err, if it has no words for a caller yet, those that fit it.
func outcome(op string, err error) error {
	switch _, ours := errors.AsType[*cove.Error](err); {
	case err == nil || ours:
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", op, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return cove.E(cove.NoSpace, op, err, "the disk of the server is full: free some space and build the image again")
	}
	return fmt.Errorf("%s: %w", op, err)
}

// reportEvery is how many bytes pass between two reports of progress.
const reportEvery = 4 << 20

// meter counts the bytes of a build's streams, ends them with ctx and refuses
// more than max.
type meter struct {
	ctx    context.Context // the build's; a meter lives no longer
	max    int64
	report func(done int64) // may be nil
	hash   hash.Hash        // of what readers read; may be nil

	done, reported int64
}

func (m *meter) add(n int) error {
	m.done += int64(n)
	if m.done > m.max {
		return tooBig("bytes", m.max)
	}
	if m.report != nil && m.done-m.reported >= reportEvery {
		m.reported = m.done
		m.report(m.done)
	}
	return m.ctx.Err()
}

// reader counts what is read from r.
func (m *meter) reader(r io.Reader) io.Reader { return &meteredReader{m, r} }

type meteredReader struct {
	m *meter
	r io.Reader
}

func (r *meteredReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if r.m.hash != nil {
		r.m.hash.Write(p[:n])
	}
	if over := r.m.add(n); over != nil {
		return n, over
	}
	return n, err
}
