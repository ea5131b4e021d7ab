package copying

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cove-sandbox/cove/internal/envd/account"
	"github.com/cove-sandbox/cove/internal/envd/reply"
)

const (
	permissions = 0o7777
	chunk       = 64 << 10 // bytes that are read before they are written
)

// An unpacking is one archive on its way to its places.
type unpacking struct {
	plan
	ownership
	copied
	found bool // something was meant
	buf   []byte

	links    map[string]struct{} // names of the archive that are symbolic links
	dirs     []dated             // directories that were copied
	madeDest bool                // dest is a directory that was not there before
}

// dated is a directory that gets its time when nothing more is put into it.
type dated struct {
	path string
	time time.Time
}

// all copies the entries of archive, to its end.
func (u *unpacking) all(ctx context.Context, archive io.Reader) error {
	end := &ending{from: archive}
	entries := tar.NewReader(end)
	for {
		h, err := entries.Next()
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // no name leaves the context here
			return damaged()
		}
		if err := u.entry(ctx, h, entries); err != nil {
			return err
		}
	}
	if end.zeros < endBlock {
		return damaged()
	}
	for _, dir := range u.dirs {
		if err := setTime(dir.path, dir.time); err != nil {
			return failure(err, dir.path)
		}
	}
	// The sum of what is compressed stands at the end. What follows that is not
	// ours.
	if _, err := io.Copy(io.Discard, archive); err != nil && !errors.Is(err, gzip.ErrHeader) {
		return damaged()
	}
	return nil
}

// endBlock is how many zeros the end of an archive has at the least.
const endBlock = 512

// ending counts the zeros that reading ended with: package tar takes an archive
// that was cut in some places for one that is complete.
type ending struct {
	from  io.Reader
	zeros int // of the bytes read last
}

// Read reads and counts.
func (e *ending) Read(p []byte) (int, error) {
	n, err := e.from.Read(p)
	e.zeros += n
	if other := bytes.TrimRight(p[:n], "\x00"); len(other) > 0 {
		e.zeros = n - len(other)
	}
	return n, err
}

// entry copies one entry, if it is meant.
func (u *unpacking) entry(ctx context.Context, h *tar.Header, content io.Reader) error {
	name := clean(h.Name)
	if h.Typeflag == tar.TypeXGlobalHeader || u.throughLink(name) {
		return nil
	}
	target, ok := u.place(name, h.Typeflag == tar.TypeDir)
	if !ok {
		return nil
	}
	u.found = true
	if h.Typeflag == tar.TypeDir {
		return u.directory(target, h)
	}
	u.Files++
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.regular(ctx, target, h, content)
	case tar.TypeSymlink:
		u.links[name] = struct{}{}
		return u.make(target, h, func() error { return os.Symlink(h.Linkname, target) })
	case tar.TypeLink:
		return u.hardLink(target, h)
	case tar.TypeFifo, tar.TypeChar, tar.TypeBlock:
		return u.make(target, h, func() error { return makeNode(target, h) })
	}
	return reply.Errorf(http.StatusBadRequest, "'%s' is of a kind that cannot be copied", h.Name)
}

// throughLink reports whether name lies below a link of this archive. Clients
// that look for files also look behind links, so the archive has both the link
// and what they saw there; the link is what is copied, and where it leads is
// not theirs to write to.
func (u *unpacking) throughLink(name string) bool {
	if len(u.links) == 0 {
		return false
	}
	for i := range len(name) {
		if name[i] != '/' {
			continue
		}
		if _, ok := u.links[name[:i]]; ok {
			return true
		}
	}
	return false
}

// directory copies a directory. One that is there already is merged into and
// becomes as the archive has it. Only the destination itself stays as it was, as
// does what a link leads to: both are the image's own, whatever the directory
// that is poured into them looks like.
func (u *unpacking) directory(target string, h *tar.Header) error {
	made, err := u.makeDir(target)
	if err != nil {
		return err
	}
	if target == u.dest {
		if !u.madeDest || u.glob { // a pattern's matches share it
			return nil
		}
	} else if !made {
		if info, err := os.Lstat(target); err == nil && !info.IsDir() {
			return nil
		}
	}
	u.dirs = append(u.dirs, dated{target, h.ModTime})
	uid, gid := u.of(h)
	return own(target, uid, gid, u.modeOf(h))
}

// makeDir makes the directory path and those above it, and reports whether path
// is new.
func (u *unpacking) makeDir(path string) (made bool, err error) {
	err = os.Mkdir(path, 0o755)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		if err := u.makeParent(path); err != nil {
			return false, err
		}
		err = os.Mkdir(path, 0o755)
	}
	if errors.Is(err, fs.ErrExist) {
		if info, err := os.Stat(path); err != nil || !info.IsDir() {
			return false, overFile(path)
		}
		return false, nil
	}
	if err != nil {
		return false, failure(err, path)
	}
	mode := uint32(0o755)
	if path == u.dest {
		u.madeDest = true
	} else if u.mode != nil {
		mode = *u.mode
	}
	return true, own(path, u.uid, u.gid, mode)
}

// makeParent makes the directory that path is in. Above the destination
// directories are root's: they are no part of what is copied.
func (u *unpacking) makeParent(path string) error {
	parent := filepath.Dir(path)
	if path == u.dest {
		if err := (account.User{}).MakeDirs(parent); err != nil {
			return failure(err, parent)
		}
		return nil
	}
	_, err := u.makeDir(parent)
	return err
}

// make puts something at target with the help of create, which must refuse to
// overwrite, and gives it its owner, mode and time. What was there goes first,
// unless it is a directory; a link goes, and not what it leads to.
func (u *unpacking) make(target string, h *tar.Header, create func() error) error {
	if err := u.replace(target, create); err != nil {
		return err
	}
	uid, gid := u.of(h)
	if h.Typeflag == tar.TypeSymlink {
		if err := os.Lchown(target, uid, gid); err != nil {
			return failure(err, target)
		}
	} else if err := own(target, uid, gid, u.modeOf(h)); err != nil {
		return err
	}
	if err := setTime(target, h.ModTime); err != nil {
		return failure(err, target)
	}
	return nil
}

// replace calls create, after it has made room if need be.
func (u *unpacking) replace(target string, create func() error) error {
	err := create()
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		if err := u.makeParent(target); err != nil {
			return err
		}
		err = create()
	case errors.Is(err, fs.ErrExist):
		if info, err := os.Lstat(target); err == nil && info.IsDir() {
			return reply.Errorf(http.StatusBadRequest, "cannot copy a file over a directory: %s", target)
		}
		if err := os.Remove(target); err != nil {
			return failure(err, target)
		}
		err = create()
	}
	if err != nil {
		return failure(err, target)
	}
	return nil
}

// regular copies a file with contents. One that cannot be completed is removed.
func (u *unpacking) regular(ctx context.Context, target string, h *tar.Header, content io.Reader) error {
	return u.make(target, h, func() error {
		file, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		n, err := u.fill(ctx, file, content)
		if err = errors.Join(err, file.Close()); err != nil {
			return errors.Join(failure(err, target), os.Remove(target))
		}
		u.Bytes += n
		return nil
	})
}

// fill writes content to a new file and returns how long it is. Zeros are left
// out as holes: that is what most of them were.
func (u *unpacking) fill(ctx context.Context, file *os.File, content io.Reader) (int64, error) {
	var size, written int64
	for {
		n, readErr := readFull(content, u.buf)
		if piece := u.buf[:n]; n > 0 && !zeros(piece) {
			if _, err := file.WriteAt(piece, size); err != nil {
				return 0, err
			}
			written = size + int64(n)
		}
		size += int64(n)
		if err := ctx.Err(); err != nil {
			return 0, err // a hole is as long as it says, and costs nothing to send
		}
		if readErr == nil {
			continue
		}
		if readErr != io.EOF {
			return 0, damaged()
		}
		if written < size {
			return size, file.Truncate(size)
		}
		return size, nil
	}
}

// readFull reads until buf is full or reading fails. Unlike io.ReadFull it
// returns the error as it is, so that an end is not taken for a damage.
func readFull(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// zeros reports whether all of piece, which is not empty, is zero.
func zeros(piece []byte) bool {
	return piece[0] == 0 && bytes.Equal(piece[:len(piece)-1], piece[1:])
}

// hardLink makes target another name of a file that was copied before.
func (u *unpacking) hardLink(target string, h *tar.Header) error {
	first, ok := u.place(clean(h.Linkname), false)
	was, err := os.Lstat(first)
	if !ok || u.throughLink(clean(h.Linkname)) || err != nil {
		return reply.Errorf(http.StatusBadRequest, "'%s' is a hard link to '%s', which is not copied", h.Name, h.Linkname)
	}
	if is, err := os.Lstat(target); err == nil && os.SameFile(was, is) {
		return nil
	}
	return u.replace(target, func() error { return os.Link(first, target) })
}

// makeNode makes a pipe or a device.
func makeNode(target string, h *tar.Header) error {
	kind := map[byte]uint32{tar.TypeFifo: unix.S_IFIFO, tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK}
	return unix.Mknod(target, kind[h.Typeflag]|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
}

// modeOf returns the permissions of what h describes.
func (u *unpacking) modeOf(h *tar.Header) uint32 {
	if u.mode != nil {
		return *u.mode
	}
	return uint32(h.Mode) & permissions
}

// own gives path, which is no link, its owner and its mode, in the order in
// which the first does not take away from the second.
func own(path string, uid, gid int, mode uint32) error {
	err := os.Lchown(path, uid, gid)
	if err == nil {
		err = unix.Chmod(path, mode)
	}
	if err != nil {
		return failure(err, path)
	}
	return nil
}

// setTime sets when path, or the link that it is, was changed last.
func setTime(path string, at time.Time) error {
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: at.Unix(), Nsec: int64(at.Nanosecond())}}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW)
}
