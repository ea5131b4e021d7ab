package rootfs

import (
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"
)

// A content says where a regular file's bytes are: the entry of a layer, or the
// block of the base where they begin, so that the order of contents is that of
// the bytes in the streams and in the base.
type content struct{ layer, entry int }

// baseLayer is the number of the base. Layers are counted from 1.
const baseLayer = 0

// An inode is what names stand for. Hard links share one, so that a name keeps
// its file when another name of it is replaced.
type inode struct {
	mode     fs.FileMode // type and permissions
	uid, gid uint32
	mtime    time.Time
	size     int64
	target   string // of a symbolic link
	content  content
}

func (i *inode) isDir() bool     { return i.mode.IsDir() }
func (i *inode) isSymlink() bool { return i.mode.Type() == fs.ModeSymlink }
func (i *inode) isDevice() bool  { return i.mode.Type() == fs.ModeDevice }

// A node is a name in a directory.
type node struct {
	name     string
	parent   *node // nil: the root
	pathLen  int   // length of the absolute path
	layer    int   // the layer that put it here last
	ino      *inode
	children map[string]*node // nil unless a directory has any
}

func (n *node) path() string {
	if n.parent == nil {
		return "/"
	}
	var parts []string
	for ; n.parent != nil; n = n.parent {
		parts = append(parts, n.name)
	}
	slices.Reverse(parts)
	return "/" + strings.Join(parts, "/")
}

// sorted returns n's children in the order of their names.
func (n *node) sorted() []*node {
	return slices.SortedFunc(maps.Values(n.children), func(a, b *node) int { return strings.Compare(a.name, b.name) })
}

// A tree is the merged file system while layers are read.
type tree struct {
	root   *node
	limits Limits

	entries int   // ever made; removing one does not give it back
	names   int64 // bytes
	steps   int   // directory look-ups so far
}

func newTree(limits Limits) *tree {
	return &tree{
		root:   &node{pathLen: 0, ino: &inode{mode: fs.ModeDir | 0o755}},
		limits: limits,
	}
}

// split cuts a name of a layer into its components. Names are relative to the
// root whether they say so or not.
func split(name string) ([]string, error) {
	if len(name) > maxPath {
		return nil, malformed(nil, "a path of %d bytes is too long", len(name))
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
		case part == "..":
			return nil, malformed(nil, "the path %q leaves its directory", name)
		case len(part) > maxName:
			return nil, malformed(nil, "the path %q has a name that is too long", name)
		case strings.ContainsRune(part, 0):
			return nil, malformed(nil, "the path %q has a zero byte", name)
		default:
			parts = append(parts, part)
		}
	}
	return parts, nil
}

// resolve follows parts from the root, and symbolic links on the way; links
// cannot leave the tree. A missing directory is made if layer is not negative,
// and otherwise the result is nil.
func (t *tree) resolve(parts []string, layer int) (*node, error) {
	at, hops := t.root, 0
	rest := slices.Clone(parts)
	for len(rest) > 0 {
		if err := t.step(); err != nil {
			return nil, err
		}
		part := rest[0]
		rest = rest[1:]
		if part == ".." {
			if at.parent != nil {
				at = at.parent
			}
			continue
		}
		next := at.children[part]
		if next != nil && next.ino.isDevice() {
			next = nil // it is there only for hard links
		}
		switch {
		case next == nil && layer < 0:
			return nil, nil
		case next == nil:
			var err error
			if next, err = t.add(at, part, &inode{mode: fs.ModeDir | 0o755}, layer); err != nil {
				return nil, err
			}
			at = next
		case next.ino.isSymlink():
			if hops++; hops > maxHops {
				return nil, malformed(nil, "too many symbolic links in %q", strings.Join(parts, "/"))
			}
			if strings.HasPrefix(next.ino.target, "/") {
				at = t.root
			}
			rest = append(targetParts(next.ino.target), rest...)
		case !next.ino.isDir():
			return nil, malformed(nil, "%q is not a directory", next.path())
		default:
			at = next
		}
	}
	return at, nil
}

// targetParts is split for the target of a link, where ".." is allowed.
func targetParts(target string) []string {
	return slices.DeleteFunc(strings.Split(target, "/"), func(s string) bool { return s == "" || s == "." })
}

// makeDirs returns the directory parts leads to, making what is missing.
func (t *tree) makeDirs(parts []string, layer int) (*node, error) { return t.resolve(parts, layer) }

// find returns the directory parts leads to, or nil.
func (t *tree) find(parts []string) (*node, error) { return t.resolve(parts, -1) }

// add makes a new name in dir.
func (t *tree) add(dir *node, name string, ino *inode, layer int) (*node, error) {
	n := &node{name: name, parent: dir, pathLen: dir.pathLen + 1 + len(name), layer: layer, ino: ino}
	if n.pathLen > maxPath {
		return nil, malformed(nil, "its directories are nested too deeply")
	}
	if t.entries++; t.entries > t.limits.Entries {
		return nil, tooBig("files", int64(t.limits.Entries))
	}
	if t.names += int64(len(name) + len(ino.target)); t.names > t.limits.Names {
		return nil, tooBig("bytes of names", t.limits.Names)
	}
	if dir.children == nil {
		dir.children = make(map[string]*node)
	}
	dir.children[name] = n
	return n, nil
}

// put gives name in dir a new meaning. A directory over a directory keeps what
// is in it; everything else replaces what was there.
func (t *tree) put(dir *node, name string, ino *inode, layer int) error {
	if old := dir.children[name]; old != nil && old.ino.isDir() && ino.isDir() {
		old.ino, old.layer = ino, layer
		return nil
	}
	_, err := t.add(dir, name, ino, layer)
	return err
}

// step pays for one look-up.
func (t *tree) step() error {
	if t.steps++; t.steps > stepsPerEntry*t.limits.Entries {
		return malformed(nil, "its directories, links and whiteouts take too long to follow")
	}
	return nil
}

// prune removes what layers below layer put under n, and reports whether
// nothing is left.
func (t *tree) prune(n *node, layer int) (empty bool, err error) {
	for name, c := range n.children {
		if err := t.step(); err != nil {
			return false, err
		}
		if empty, err := t.prune(c, layer); err != nil {
			return false, err
		} else if empty && c.layer < layer {
			delete(n.children, name)
		}
	}
	return len(n.children) == 0, nil
}

// whiteout hides name of dir as far as layers below layer put it there.
func (t *tree) whiteout(dir *node, name string, layer int) error {
	n := dir.children[name]
	if n == nil {
		return nil
	}
	empty, err := t.prune(n, layer)
	if err == nil && empty && n.layer < layer {
		delete(dir.children, name)
	}
	return err
}

// dropDevices removes the device nodes. They have hidden what they had to.
func (t *tree) dropDevices() {
	for todo := []*node{t.root}; len(todo) > 0; {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for name, c := range n.children {
			if c.ino.isDevice() {
				delete(n.children, name)
			} else {
				todo = append(todo, c)
			}
		}
	}
}

// walk calls f for every node, a directory before what is in it, in the order
// of names.
func (t *tree) walk(f func(*node) error) error {
	var visit func(n *node) error
	visit = func(n *node) error {
		if err := f(n); err != nil {
			return err
		}
		for _, c := range n.sorted() {
			if err := visit(c); err != nil {
				return err
			}
		}
		return nil
	}
	return visit(t.root)
}
