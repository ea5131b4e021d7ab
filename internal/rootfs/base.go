package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// A base is an image of this package's, as what lies under all layers of
// another. It is read as format.go writes it, and not by the library that
// verifies images: this way nothing has a meaning but what we write, so that
// damage is an error where it is met, and every inode is read once.
type base struct {
	file *os.File
	head []byte // the superblock's block
	super
	size int64
	seen map[uint64]stored // by the numbers of inodes: names share them
}

func openBase(name string) (*base, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	b := &base{file: f, head: make([]byte, blockSize), seen: make(map[uint64]stored)}
	if err := b.open(); err != nil {
		return nil, errors.Join(b.wrong(err), f.Close())
	}
	return b, nil
}

func (b *base) close() { b.file.Close() }

// wrong says which file err is about.
func (b *base) wrong(err error) error { return fmt.Errorf("base image %s: %w", b.file.Name(), err) }

func damaged(format string, args ...any) error {
	return fmt.Errorf("it is damaged: %s", fmt.Sprintf(format, args...))
}

func (b *base) open() error {
	st, err := b.file.Stat()
	if err != nil {
		return err
	}
	b.size = st.Size()
	if b.size < blockSize {
		return damaged("%d bytes are not an image", b.size)
	}
	if err := b.read(b.head, 0); err != nil {
		return err
	}
	var ours bool
	if b.super, ours = parseSuperblock(b.head); !ours {
		return damaged("the superblock is not one of ours")
	}
	if want := int64(b.blocks) << blockBits; b.size != want {
		return damaged("%d bytes instead of %d", b.size, want)
	}
	return nil
}

func (b *base) read(p []byte, at int64) error {
	_, err := b.file.ReadAt(p, at)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// base puts what b has into the tree. The image's identity depends on b's,
// which is that of all that b was made of.
func (m *merge) base(ctx context.Context, b *base) error {
	fmt.Fprintf(m.meter.hash, "a base\n%s", b.head)
	if err := b.fill(ctx, m.tree); err != nil {
		return b.wrong(err)
	}
	return nil
}

func (b *base) fill(ctx context.Context, t *tree) error {
	root, err := b.inode(uint64(b.root))
	if err != nil {
		return err
	}
	if !root.ino.isDir() {
		return damaged("its root is not a directory")
	}
	t.root.ino = root.ino
	type dir struct {
		node *node
		stored
	}
	for todo := []dir{{t.root, root}}; len(todo) > 0; {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if err := ctx.Err(); err != nil {
			return err
		}
		err := b.eachEntry(d.stored, func(e storedEntry) error {
			s, err := b.inode(e.number)
			if err != nil {
				return err
			}
			if _, kind := diskMode(s.ino.mode); kind != e.kind {
				return damaged("%q is not what its directory says", e.name)
			}
			n, err := t.add(d.node, e.name, s.ino, baseLayer)
			if err == nil && s.ino.isDir() {
				todo = append(todo, dir{n, s})
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if n := uint64(len(b.seen)); n != b.inodes {
		return damaged("%d inodes instead of %d", n, b.inodes)
	}
	return nil
}

// inode returns an inode. The same number gives the same one, but a directory
// is found only once: it has one name.
func (b *base) inode(number uint64) (stored, error) {
	if s, ok := b.seen[number]; ok {
		if s.ino.isDir() {
			return s, damaged("a directory has two names")
		}
		return s, nil
	}
	if number > uint64(b.size-inodeSize)/slotSize {
		return stored{}, damaged("inode %d is behind its end", number)
	}
	offset := int64(number) * slotSize
	raw := make([]byte, inodeSize)
	if err := b.read(raw, offset); err != nil {
		return stored{}, err
	}
	s, ok := decodeInode(raw, offset)
	if !ok || s.at > b.size || s.size > b.size-s.at {
		return stored{}, damaged("inode %d makes no sense", number)
	}
	if s.ino.isSymlink() {
		target := make([]byte, min(s.size, maxTarget))
		if err := b.read(target, s.at); err != nil {
			return stored{}, err
		}
		if s.ino.target = string(target); s.size > maxTarget || s.size == 0 || strings.ContainsRune(s.ino.target, 0) {
			return stored{}, damaged("inode %d has an impossible target", number)
		}
	}
	b.seen[number] = s
	return s, nil
}

// eachEntry calls f for what is in a directory. The entries are in order, so a
// name comes only once.
func (b *base) eachEntry(dir stored, f func(storedEntry) error) error {
	last := ""
	for done := int64(0); done < dir.size; done += blockSize {
		block := make([]byte, min(blockSize, dir.size-done))
		if err := b.read(block, dir.at+done); err != nil {
			return err
		}
		entries, ok := decodeEntries(block)
		if !ok {
			return damaged("a directory makes no sense")
		}
		for _, e := range entries {
			if e.name <= last {
				return damaged("%q is out of order", e.name)
			}
			if last = e.name; e.name == "." || e.name == ".." {
				continue
			}
			if parts, err := split(e.name); err != nil || len(parts) != 1 || parts[0] != e.name {
				return damaged("%q cannot be a name", e.name)
			}
			if err := f(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyBase writes the files that come from b, in the order of their bytes
// there.
func (w *writing) copyBase(b *base) error {
	for w.next < len(w.files) && w.files[w.next].ino.content.layer == baseLayer {
		ino := w.files[w.next].ino
		if err := w.supply(io.NewSectionReader(b.file, int64(ino.content.entry)<<blockBits, ino.size)); err != nil {
			return b.wrong(err)
		}
	}
	return nil
}
