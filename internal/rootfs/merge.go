package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"strings"
)

// Names with a meaning in layers, from the OCI image specification (layer.md,
// "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	reservedPrefix = ".wh..wh." // AUFS's own bookkeeping
)

const xattrPrefix = "SCHILY.xattr." // PAX records of extended attributes

// The attributes that mark a directory of an overlay's upper layer as opaque,
// and their value (Linux, Documentation/filesystems/overlayfs.rst). Which of the
// two an overlay uses depends on how it was mounted.
const (
	opaqueTrusted = xattrPrefix + "trusted.overlay.opaque"
	opaqueUser    = xattrPrefix + "user.overlay.opaque"
	opaqueValue   = "y"
)

// A merge reads layers into a tree, for names and owners only.
type merge struct {
	tree  *tree
	meter *meter
	plain bool // see Options

	devices, attributes int // left out
}

func (m *merge) layer(ctx context.Context, index int, open Layer) error {
	err := eachEntry(ctx, open, m.meter, func(entry int, h *tar.Header, _ io.Reader) error {
		return m.entry(index, entry, h)
	})
	fmt.Fprintf(m.meter.hash, "end of a layer at %d\n", m.meter.done)
	return err
}

// eachEntry calls f for the entries of a layer. Afterwards it reads what is left
// of the stream, so that a layer that checks its own digest gets to do so.
func eachEntry(ctx context.Context, open Layer, m *meter, f func(int, *tar.Header, io.Reader) error) (err error) {
	stream, err := open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stream.Close()) }()
	in := m.reader(stream)
	r := tar.NewReader(in)
	for entry := 0; ; entry++ {
		h, err := r.Next()
		switch {
		case err == io.EOF:
			_, err = io.Copy(io.Discard, in)
			return err
		case errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, tar.ErrFieldTooLong):
			return malformed(err, "it is not a complete tar archive")
		case err != nil && !errors.Is(err, tar.ErrInsecurePath): // split decides about paths
			return err
		}
		if err := f(entry, h, r); err != nil {
			return err
		}
	}
}

// entry applies one entry of a layer to the tree.
func (m *merge) entry(layer, entry int, h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	parts, err := split(h.Name)
	if err != nil {
		return err
	}
	ino, err := m.inode(layer, entry, h)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		if !ino.isDir() {
			return malformed(nil, "its root is not a directory")
		}
		m.tree.root.ino = ino
		return m.opaque(m.tree.root, layer, h)
	}
	base := parts[len(parts)-1]
	if strings.HasPrefix(base, whiteoutPrefix) && !m.plain {
		return m.whiteout(parts[:len(parts)-1], base, layer)
	}
	if ino.isDevice() {
		return m.device(parts[:len(parts)-1], base, ino, layer)
	}
	dir, err := m.tree.makeDirs(parts[:len(parts)-1], layer)
	if err != nil {
		return err
	}
	if err := m.tree.put(dir, base, ino, layer); err != nil {
		return err
	}
	return m.opaque(dir.children[base], layer, h)
}

// opaque hides what lower layers have in n, if h is that of an opaque directory.
func (m *merge) opaque(n *node, layer int, h *tar.Header) error {
	if h.Typeflag != tar.TypeDir || h.PAXRecords[opaqueTrusted] != opaqueValue && h.PAXRecords[opaqueUser] != opaqueValue {
		return nil
	}
	_, err := m.tree.prune(n, layer)
	return err
}

// device applies a device node. It hides what lower layers have under its name,
// and one with the number 0/0, an overlay's whiteout, does nothing else. It is
// in the tree only until all layers are read, for the sake of hard links: the
// engine's overlay has one inode for all its whiteouts, so that all but the
// first of a layer are hard links to it.
func (m *merge) device(dir []string, base string, ino *inode, layer int) error {
	at, err := m.tree.find(dir)
	if err != nil || at == nil {
		return err
	}
	if err := m.tree.whiteout(at, base, layer); err != nil {
		return err
	}
	if at.children[base] != nil {
		return nil // this layer has put it there
	}
	_, err = m.tree.add(at, base, ino, layer)
	return err
}

func (m *merge) whiteout(dir []string, base string, layer int) error {
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if name == "" || name == "." || name == ".." {
		return malformed(nil, "%q is not the name of a whiteout", base)
	}
	if base != opaqueMarker && strings.HasPrefix(base, reservedPrefix) {
		return nil
	}
	at, err := m.tree.find(dir)
	if err != nil || at == nil {
		return err
	}
	if base == opaqueMarker {
		_, err := m.tree.prune(at, layer)
		return err
	}
	return m.tree.whiteout(at, name, layer)
}

// inode returns what h describes.
func (m *merge) inode(layer, entry int, h *tar.Header) (*inode, error) {
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= math.MaxUint32 || int64(h.Gid) >= math.MaxUint32 {
		return nil, malformed(nil, "%q has an impossible owner", h.Name)
	}
	ino := &inode{mode: permissions(h.Mode), uid: uint32(h.Uid), gid: uint32(h.Gid), mtime: h.ModTime}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		if h.Size > m.tree.limits.Bytes {
			return nil, tooBig("bytes", m.tree.limits.Bytes)
		}
		ino.size, ino.content = h.Size, content{layer, entry}
	case tar.TypeDir:
		ino.mode |= fs.ModeDir
	case tar.TypeFifo:
		ino.mode |= fs.ModeNamedPipe
	case tar.TypeSymlink:
		if len(h.Linkname) == 0 || len(h.Linkname) > maxTarget || strings.ContainsRune(h.Linkname, 0) {
			return nil, malformed(nil, "the symbolic link %q has an impossible target", h.Name)
		}
		ino.mode, ino.target = fs.ModeSymlink|0o777, h.Linkname
	case tar.TypeLink:
		return m.linked(h)
	case tar.TypeChar, tar.TypeBlock:
		if h.Typeflag == tar.TypeBlock || h.Devmajor != 0 || h.Devminor != 0 {
			m.devices++
		}
		ino.mode = fs.ModeDevice
		return ino, nil
	default:
		return nil, malformed(nil, "%q is of an unknown type", h.Name)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, xattrPrefix) && key != opaqueTrusted && key != opaqueUser {
			m.attributes++
			break
		}
	}
	return ino, nil
}

// linked returns the inode a hard link shares.
func (m *merge) linked(h *tar.Header) (*inode, error) {
	parts, err := split(h.Linkname)
	if err != nil {
		return nil, err
	}
	if len(parts) == 0 {
		return nil, malformed(nil, "%q is a hard link to the root", h.Name)
	}
	dir, err := m.tree.find(parts[:len(parts)-1])
	if err != nil {
		return nil, err
	}
	if dir != nil {
		if n := dir.children[parts[len(parts)-1]]; n != nil && !n.ino.isDir() {
			return n.ino, nil
		}
	}
	return nil, malformed(nil, "%q is a hard link to %q, which is not a file of the image", h.Name, h.Linkname)
}

// permissions turns the bits of a tar header into those of package fs.
func permissions(mode int64) fs.FileMode {
	perm := fs.FileMode(mode) & fs.ModePerm
	if mode&0o4000 != 0 {
		perm |= fs.ModeSetuid
	}
	if mode&0o2000 != 0 {
		perm |= fs.ModeSetgid
	}
	if mode&0o1000 != 0 {
		perm |= fs.ModeSticky
	}
	return perm
}
