package engine

import (
	"archive/tar"
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// A layer writes a sandbox's writable layer as a tar stream. It takes what the
// engine says of it for granted nowhere: it reads bounded pieces, and asks for
// no memory that grows with them.
type layer struct {
	to   *bufio.Writer // most files are small
	out  *tar.Writer   // to to
	disk io.ReaderAt   // the layer's file
	buf  []byte
	zero []byte
}

func newLayer(to io.Writer, disk io.ReaderAt) *layer {
	w := bufio.NewWriterSize(to, 256<<10)
	return &layer{to: w, out: tar.NewWriter(w), disk: disk, buf: make([]byte, 1<<20), zero: make([]byte, 64<<10)}
}

// close ends the stream.
func (l *layer) close() error {
	if err := l.out.Close(); err != nil {
		return err
	}
	return l.to.Flush()
}

// copy reads the tar stream of a checkpoint of files to its end and writes all
// that is in it, each regular file with its content.
func (l *layer) copy(names io.Reader) error {
	names = bufio.NewReaderSize(names, 64<<10)
	for in := tar.NewReader(names); ; {
		hdr, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the names of files: %w", err)
		}
		hdr.Format = tar.FormatUnknown // a size may need another one
		if hdr.Typeflag == tar.TypeReg {
			err = l.file(hdr, in)
		} else {
			err = l.out.WriteHeader(hdr)
		}
		if err != nil {
			return fmt.Errorf("writing %q: %w", hdr.Name, err)
		}
	}
	_, err := io.Copy(io.Discard, names) // the engine fills up its last block
	return err
}

// A piece is a part of a file and where in the layer's file it lies. What is in
// no piece is a hole.
type piece struct{ Start, End, At uint64 }

// Lengths of what a checkpoint has in place of a file's content: its size, then
// its pieces in order, all little endian.
const (
	sizeLength  = 8
	pieceLength = 24
)

// file writes a regular file, of which in says where its content is.
func (l *layer) file(hdr *tar.Header, in io.Reader) error {
	pieces := hdr.Size - sizeLength
	if pieces < 0 || pieces%pieceLength != 0 {
		return fmt.Errorf("its description has %d bytes", hdr.Size)
	}
	var size uint64
	if err := binary.Read(in, binary.LittleEndian, &size); err != nil {
		return err
	}
	if size > math.MaxInt64 {
		return fmt.Errorf("its size is %d", size)
	}
	hdr.Size = int64(size)
	if err := l.out.WriteHeader(hdr); err != nil {
		return err
	}
	var at uint64 // how much of it is written
	for range pieces / pieceLength {
		var p piece
		if err := binary.Read(in, binary.LittleEndian, &p); err != nil {
			return err
		}
		if p.Start < at || p.End <= p.Start || p.At > math.MaxInt64 {
			return fmt.Errorf("its piece %+v is out of place", p)
		}
		if p.Start >= size {
			break // room that was asked for beyond its end
		}
		if err := l.hole(p.Start - at); err != nil {
			return err
		}
		at = min(p.End, size)
		if err := l.content(p.At, at-p.Start); err != nil {
			return err
		}
	}
	return l.hole(size - at)
}

// content writes n bytes of the layer's file.
func (l *layer) content(at, n uint64) error {
	section := io.NewSectionReader(l.disk, int64(at), int64(n))
	written, err := io.CopyBuffer(l.out, section, l.buf)
	if err == nil && written != int64(n) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// hole writes n zeros.
func (l *layer) hole(n uint64) error {
	for n > 0 {
		some := min(n, uint64(len(l.zero)))
		if _, err := l.out.Write(l.zero[:some]); err != nil {
			return err
		}
		n -= some
	}
	return nil
}
