package filesystem

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	pb "github.com/cove-sandbox/cove/internal/gen/filesystem"
)

// A change is something that happened at path, which lies in a watched tree.
type change struct {
	path string
	kind pb.EventType
}

// errOverflow says that changes happened faster than they were read.
var errOverflow = errors.New("too many changes at once: some were lost")

// maxEarly bounds the memory of children reported before the kernel did.
const maxEarly = 4096

// An inotify watches a directory, or a tree, through the kernel. Close may be
// called by anybody; the rest is for one goroutine.
type inotify struct {
	root      string
	recursive bool
	file      *os.File

	paths map[int32]string    // of the watches
	early map[string]struct{} // reported as created before the kernel said so
	buf   []byte
}

const inotifyMask = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE |
	unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// newInotify starts watching root. Whatever happens from its return on is seen.
func newInotify(root string, recursive bool) (*inotify, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("start watching: %w", err)
	}
	n := &inotify{
		root:      root,
		recursive: recursive,
		file:      os.NewFile(uintptr(fd), "inotify"), // waits without a thread, as fd does not block
		paths:     map[int32]string{},
		early:     map[string]struct{}{},
		buf:       make([]byte, 64<<10),
	}
	if err := n.add(root, nil); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// Close ends a Read that waits.
func (n *inotify) Close() { n.file.Close() }

// add watches dir and, if the whole tree is, what is below it. found gets what
// is there already; nil if that is of no interest.
func (n *inotify) add(dir string, found *[]change) error {
	var wd int
	raw, err := n.file.SyscallConn()
	if err != nil {
		return err
	}
	var addErr error
	if err := raw.Control(func(fd uintptr) { wd, addErr = unix.InotifyAddWatch(int(fd), dir, inotifyMask) }); err != nil {
		return err
	}
	if addErr != nil {
		return fmt.Errorf("watch directory: %w", addErr)
	}
	n.paths[int32(wd)] = dir
	if !n.recursive {
		return nil
	}
	children, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("watch directory: %w", err)
	}
	for _, child := range children {
		path := filepath.Join(dir, child.Name())
		if found != nil {
			*found = append(*found, change{path, pb.EventType_EVENT_TYPE_CREATE})
			n.expect(path)
		}
		if !child.IsDir() {
			continue
		}
		if err := n.add(path, found); err != nil && !vanished(err) {
			return err
		}
	}
	return nil
}

// vanished reports whether a directory was gone before it could be watched.
func vanished(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}

// expect notes that the kernel may still report path as created.
func (n *inotify) expect(path string) {
	if len(n.early) >= maxEarly {
		clear(n.early)
	}
	n.early[path] = struct{}{}
}

// forget ends the watches of dir and what was below it, since their paths are
// not true any more.
func (n *inotify) forget(dir string) {
	raw, err := n.file.SyscallConn()
	if err != nil {
		return
	}
	for wd, path := range n.paths {
		if path == dir || strings.HasPrefix(path, dir+"/") {
			delete(n.paths, wd)
			raw.Control(func(fd uintptr) { unix.InotifyRmWatch(int(fd), uint32(wd)) })
		}
	}
}

// Read waits for changes and returns them in their order. The error is
// os.ErrClosed after Close, and errOverflow if some were lost.
func (n *inotify) Read() ([]change, error) {
	got, err := n.file.Read(n.buf)
	if err != nil {
		return nil, err
	}
	var out []change
	for rest := n.buf[:got]; len(rest) >= unix.SizeofInotifyEvent; {
		wd := int32(binary.NativeEndian.Uint32(rest[0:]))
		mask := binary.NativeEndian.Uint32(rest[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(rest[12:]))
		if size > len(rest) {
			return out, errors.New("the kernel sent half an event")
		}
		name := string(bytes.TrimRight(rest[unix.SizeofInotifyEvent:size], "\x00"))
		rest = rest[size:]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			return out, errOverflow
		}
		if err := n.translate(wd, mask, name, &out); err != nil {
			return out, err
		}
	}
	return out, nil
}

// translate adds what one event of the kernel means.
func (n *inotify) translate(wd int32, mask uint32, name string, out *[]change) error {
	dir, known := n.paths[wd]
	if mask&unix.IN_IGNORED != 0 {
		delete(n.paths, wd)
		return nil
	}
	if !known || name == "" && dir != n.root {
		// What happens to a directory itself is told by its parent as well, and
		// only the root's parent is not watched.
		return nil
	}
	path := dir
	if name != "" {
		path = filepath.Join(dir, name)
	}
	isDir := mask&unix.IN_ISDIR != 0 && n.recursive && name != ""
	if mask&unix.IN_MOVED_FROM != 0 && isDir {
		n.forget(path)
	}
	_, told := n.early[path]
	delete(n.early, path)
	if told && mask&unix.IN_CREATE != 0 {
		// Only a real creation can be the one told of before. A file moved there
		// may be another one; to tell of it twice is better than not at all.
		return nil
	}
	for _, k := range kinds {
		if mask&k.mask != 0 {
			*out = append(*out, change{path, k.kind})
		}
	}
	if mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0 && isDir {
		if err := n.add(path, out); err != nil && !vanished(err) {
			return err
		}
	}
	return nil
}

// kinds is what the kernel's bits mean, in the order in which clients expect
// what happened at once.
var kinds = [...]struct {
	mask uint32
	kind pb.EventType
}{
	{unix.IN_CREATE | unix.IN_MOVED_TO, pb.EventType_EVENT_TYPE_CREATE},
	{unix.IN_MOVED_FROM | unix.IN_MOVE_SELF, pb.EventType_EVENT_TYPE_RENAME},
	{unix.IN_ATTRIB, pb.EventType_EVENT_TYPE_CHMOD},
	{unix.IN_MODIFY, pb.EventType_EVENT_TYPE_WRITE},
	{unix.IN_DELETE | unix.IN_DELETE_SELF, pb.EventType_EVENT_TYPE_REMOVE},
}

// networkMagic are the file systems on which changes made elsewhere are not
// seen here: NFS, CIFS, SMB, SMB2 and FUSE, by the kernel's numbers.
var networkMagic = [...]int64{0x6969, 0xff534d42, 0x517b, 0xfe534d42, 0x65735546}

// onNetwork reports whether path lies on one of them.
func onNetwork(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, err
	}
	for _, magic := range networkMagic {
		// The type is a 32-bit number in a signed field of varying width.
		if uint32(st.Type) == uint32(magic) {
			return true, nil
		}
	}
	return false, nil
}
