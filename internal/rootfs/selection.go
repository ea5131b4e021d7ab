package rootfs

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// An Image is one of this package's, open for reading.
type Image struct {
	base *base
	tree *tree
}

// Open opens an image.
func Open(ctx context.Context, name string) (*Image, error) {
	const op = "rootfs.Open"
	b, err := openBase(name)
	if err != nil {
		return nil, outcome(op, err)
	}
	t := newTree(Limits{}.orDefaults())
	if err := b.fill(ctx, t); err != nil {
		b.close()
		return nil, outcome(op, b.wrong(err))
	}
	return &Image{b, t}, nil
}

// Close closes the image. Its selections are of no use then.
func (i *Image) Close() { i.base.close() }

// A Selection is what a source of a COPY names in an image.
type Selection struct {
	base *base
	// Single says that it is one file: the place it is copied to may be its name.
	// Else it is the contents of a directory, or all that a pattern matches.
	Single bool
	// Empty says that a pattern matched nothing.
	Empty bool

	picked []pick
	unique bool // no two of picked have the same name, so that links can refer to them
}

// A pick is a file with its name in the archive.
type pick struct {
	name string // "." for the directory itself
	*node
}

// maxSource is how long a source may be: matching it costs time for each name.
const maxSource = 4096

// Select finds what a source names by the rules of a Dockerfile: a directory
// stands for its contents, segments may have *, ? and [a-z], links on the way and
// at the end are followed, and lead nowhere but into the image. Only links that a
// pattern matches are what they are. What cannot be found is Invalid, unless it
// is a pattern.
func (i *Image) Select(source string) (*Selection, error) {
	s := &Selection{base: i.base}
	if len(source) > maxSource || strings.ContainsRune(source, 0) {
		return nil, unfound(source, "it cannot be a path")
	}
	// Nothing is above the root, as in a container.
	parts := targetParts(path.Clean("/" + source))
	if wild := slices.IndexFunc(parts, func(p string) bool { return strings.ContainsAny(p, `*?[\`) }); wild >= 0 {
		return s, s.match(i.tree, parts, wild)
	}
	return s, s.find(i.tree, source, parts)
}

func unfound(source, why string) error {
	return cove.E(cove.Invalid, "rootfs.Select", nil, "%q: %s", source, why)
}

// find selects what has a name.
func (s *Selection) find(t *tree, source string, parts []string) error {
	n, err := t.lookup(parts)
	switch {
	case err != nil:
		return unfound(source, "its links lead nowhere")
	case n == nil:
		return unfound(source, "there is no such file")
	case n.ino.isDir():
		s.unique = true
		s.contents(n, ".")
	default:
		s.Single = true
		s.picked = []pick{{path.Base(path.Clean("/" + source)), n}}
	}
	return nil
}

// match selects what a pattern matches. What is in matched directories comes
// side by side.
func (s *Selection) match(t *tree, parts []string, wild int) error {
	dir, err := t.find(parts[:wild])
	if err != nil || dir == nil {
		s.Empty = true
		return nil
	}
	at := []*node{dir}
	for i, part := range parts[wild:] {
		if _, err := path.Match(part, ""); err != nil {
			return unfound(strings.Join(parts, "/"), "the pattern makes no sense")
		}
		var next []*node
		last := wild+i == len(parts)-1
		for _, d := range at {
			for _, c := range d.sorted() {
				if ok, _ := path.Match(part, c.name); ok && (last || c.ino.isDir()) {
					next = append(next, c)
				}
			}
		}
		at = next
	}
	for _, n := range at {
		if n.ino.isDir() {
			s.contents(n, "")
		} else {
			s.picked = append(s.picked, pick{n.name, n})
		}
	}
	s.Empty = len(at) == 0
	s.Single = len(at) == 1 && !at[0].ino.isDir()
	return nil
}

// contents selects what is in a directory; top is the directory's own name,
// empty if it is not selected itself.
func (s *Selection) contents(dir *node, top string) {
	if top != "" {
		s.picked = append(s.picked, pick{top, dir})
	}
	var visit func(n *node, prefix string)
	visit = func(n *node, prefix string) {
		for _, c := range n.sorted() {
			s.picked = append(s.picked, pick{prefix + c.name, c})
			visit(c, prefix+c.name+"/")
		}
	}
	visit(dir, "")
}

// lookup returns what parts lead to, through links; nil: nothing.
func (t *tree) lookup(parts []string) (*node, error) {
	for range maxHops {
		if len(parts) == 0 {
			return t.root, nil
		}
		dir, err := t.find(parts[:len(parts)-1])
		if err != nil || dir == nil {
			return nil, err
		}
		n := dir.children[parts[len(parts)-1]]
		if n == nil || !n.ino.isSymlink() {
			return n, nil
		}
		// Whatever is in the target, find goes there as the kernel would; only
		// its last segment is looked at here.
		to := n.ino.target
		if !strings.HasPrefix(to, "/") {
			to = dir.path() + "/" + to
		}
		parts = targetParts(to)
		if len(parts) > 0 && parts[len(parts)-1] == ".." {
			return t.find(parts)
		}
	}
	return nil, errors.New("too many links")
}

// Name returns the name of the one file that is selected.
func (s *Selection) Name() string { return s.picked[0].name }

// Digest names what is selected: names, modes, links and contents, but neither
// times nor owners, which differ with every checkout of the same files.
func (s *Selection) Digest(ctx context.Context) (string, error) {
	h := sha256.New()
	first := map[*inode]string{}
	for _, p := range s.picked {
		mode, _ := diskMode(p.ino.mode)
		fmt.Fprintf(h, "%q %o %d %q %q\n", p.name, mode, p.ino.size, p.ino.target, first[p.ino])
		if !p.ino.mode.IsRegular() || first[p.ino] != "" {
			continue
		}
		first[p.ino] = p.name
		if err := s.content(ctx, h, p.ino); err != nil {
			return "", outcome("rootfs.Digest", err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// content writes a file's bytes.
func (s *Selection) content(ctx context.Context, w io.Writer, ino *inode) error {
	const piece = 16 << 20 // between two looks at ctx
	at := int64(ino.content.entry) << blockBits
	for done := int64(0); done < ino.size; done += piece {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(piece, ino.size-done)
		if copied, err := io.Copy(w, io.NewSectionReader(s.base.file, at+done, n)); err != nil {
			return err
		} else if copied < n {
			return s.base.wrong(io.ErrUnexpectedEOF)
		}
	}
	return nil
}

// Archive writes what is selected as a tar archive, with owners and times.
func (s *Selection) Archive(ctx context.Context, out io.Writer) error {
	const op = "rootfs.Archive"
	buffered := bufio.NewWriterSize(out, 1<<20)
	w := tar.NewWriter(buffered)
	first := map[*inode]string{}
	for _, p := range s.picked {
		h := p.header(first[p.ino])
		if err := w.WriteHeader(h); err != nil {
			return outcome(op, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if s.unique {
			first[p.ino] = p.name
		}
		if err := s.content(ctx, w, p.ino); err != nil {
			return outcome(op, err)
		}
	}
	return outcome(op, errors.Join(w.Close(), buffered.Flush()))
}

// header describes a pick. first is the name that its file already has in the
// archive; empty: none.
func (p pick) header(first string) *tar.Header {
	mode, _ := diskMode(p.ino.mode)
	h := &tar.Header{
		Name: p.name, Mode: int64(mode & 0o7777), Uid: int(p.ino.uid), Gid: int(p.ino.gid),
		ModTime: p.ino.mtime.Truncate(time.Microsecond), Format: tar.FormatPAX,
	}
	switch p.ino.mode.Type() {
	case fs.ModeDir:
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	case fs.ModeSymlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, p.ino.target
	case fs.ModeNamedPipe:
		h.Typeflag = tar.TypeFifo
	default:
		h.Typeflag, h.Size = tar.TypeReg, p.ino.size
		if first != "" {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		}
	}
	return h
}
