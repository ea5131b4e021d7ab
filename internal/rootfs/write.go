package rootfs

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
)

// A writing is a plan on its way to disk, from the image's first byte to its
// last.
type writing struct {
	*plan
	buf   *bufio.Writer // to the file and to hash
	hash  hash.Hash
	meter *meter // of what is written
	next  int    // of plan.files
	chunk []byte // one buffer for all files: there are many
}

// writeImage writes the image that p describes. fill is called to supply the
// contents of the plan's files, in their order.
func writeImage(ctx context.Context, out string, p *plan, id [16]byte, report func(done, total int64), fill func(*writing) error) (Info, error) {
	file, err := newOutput(out)
	if err != nil {
		return Info{}, err
	}
	defer file.discard()

	w := &writing{plan: p, hash: sha256.New(), chunk: make([]byte, 256<<10)}
	w.buf = bufio.NewWriterSize(io.MultiWriter(file.f, w.hash), 1<<20)
	w.meter = &meter{ctx: ctx, max: math.MaxInt64, report: func(done int64) { report(done, p.info.Bytes) }}
	if err := w.metadata(id); err != nil {
		return Info{}, err
	}
	if err := fill(w); err != nil {
		return Info{}, err
	}
	if w.next < len(w.files) {
		return Info{}, errChanged()
	}
	if err := w.buf.Flush(); err != nil {
		return Info{}, err
	}
	report(p.info.Bytes, p.info.Bytes)
	info := p.info
	info.Digest = "sha256:" + hex.EncodeToString(w.hash.Sum(nil))
	if err := verify(file.f, info); err != nil {
		return Info{}, err
	}
	return info, file.keep()
}

func errChanged() error { return malformed(nil, "it changed while it was being read") }

// metadata writes everything up to the first file.
func (w *writing) metadata(id [16]byte) error {
	root := w.inodes[0].number()
	if err := w.write(superblock(uint16(root), uint64(len(w.inodes)), w.blocks, id)); err != nil {
		return err
	}
	for n, i := range w.inodes {
		if err := w.padTo(i.offset); err != nil {
			return err
		}
		data := i.encode(uint32(n) + 1)
		if i.inline {
			data = append(data, w.data(i)...)
		}
		if err := w.write(data); err != nil {
			return err
		}
	}
	for _, i := range w.apart {
		if err := w.padTo(int64(i.block) << blockBits); err != nil {
			return err
		}
		if err := w.write(w.data(i)); err != nil {
			return err
		}
	}
	return w.padTo(roundUp(w.meter.done))
}

func (w *writing) write(data []byte) error {
	if _, err := w.buf.Write(data); err != nil {
		return err
	}
	return w.meter.add(len(data))
}

// padTo writes zeros up to an offset, which is never far.
func (w *writing) padTo(offset int64) error {
	n := offset - w.meter.done
	if n < 0 || n > 2*blockSize {
		return fmt.Errorf("image layout: at %d instead of %d", w.meter.done, offset)
	}
	return w.write(make([]byte, n))
}

// wants reports whether c is the content that comes next.
func (w *writing) wants(c content) bool {
	return w.next < len(w.files) && w.files[w.next].ino.content == c
}

// supply writes the next file.
func (w *writing) supply(r io.Reader) error {
	f := w.files[w.next]
	w.next++
	if err := w.padTo(int64(f.block) << blockBits); err != nil {
		return err
	}
	n, err := io.CopyBuffer(meteredWriter{w}, io.LimitReader(r, f.size), w.chunk)
	if err != nil {
		return err
	}
	if n < f.size {
		return malformed(nil, "%q has %d bytes instead of %d", f.node.path(), n, f.size)
	}
	return w.padTo(roundUp(w.meter.done))
}

// meteredWriter is w.write as an io.Writer.
type meteredWriter struct{ w *writing }

func (m meteredWriter) Write(p []byte) (int, error) {
	if err := m.w.write(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// copyLayers reads the layers a second time, for the contents that made it
// into the image.
func (w *writing) copyLayers(ctx context.Context, layers []Layer) error {
	for index, open := range layers {
		m := &meter{ctx: ctx, max: math.MaxInt64} // the first reading has counted
		err := eachEntry(ctx, open, m, func(entry int, h *tar.Header, r io.Reader) error {
			if !w.wants(content{index + 1, entry}) {
				return nil
			}
			if h.Size != w.files[w.next].size {
				return errChanged()
			}
			return w.supply(r)
		})
		if err != nil {
			return fmt.Errorf("layer %d: %w", index+1, err)
		}
	}
	return nil
}

// copyFiles is copyLayers for files given to Pack.
func (w *writing) copyFiles(files []File) error {
	for i, f := range files {
		if !w.wants(content{entry: i}) {
			continue
		}
		if err := f.read(w.supply); err != nil {
			return err
		}
	}
	return nil
}

// read opens the file for do, which must find exactly as many bytes in it as
// announced.
func (f File) read(do func(io.Reader) error) (err error) {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := do(r); err != nil {
		return err
	}
	if n, _ := io.ReadFull(r, make([]byte, 1)); n > 0 {
		return malformed(nil, "%q has more than %d bytes", f.Path, f.Size)
	}
	return nil
}
