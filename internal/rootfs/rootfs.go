// Package rootfs makes root file systems: it merges tar layers the way a
// container engine does and writes the result as one read-only EROFS image. The
// lowest of them may be such an image itself.
//
// It is not a source of layers: package image and package debian below are, and
// they meet this one only in package builder. Nothing is ever unpacked on the
// host: names, owners and links exist in memory, contents go from the layer's
// stream to the image. Layers come from strangers, so everything read from one
// is counted against Limits. Engines and the server may import it; it starts no
// goroutines.
package rootfs

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"io/fs"
)

// Layer opens an uncompressed tar stream: a layer of an OCI image, or the
// writable layer of a sandbox as the engine puts it out. What a layer hides, it
// may say in either way, by names (".wh.") or by an overlay's device nodes and
// attributes.
//
// A build opens each layer twice, and both streams must be the same. The engine
// puts out names in another order every time, so its layer has to be kept until
// it is built. It is an alias, so that whoever supplies layers need not import
// this package.
type Layer = func(ctx context.Context) (io.ReadCloser, error)

// Options says what to build.
type Options struct {
	Out    string  // the image file; replaced atomically
	Base   string  // an image of this package's that lies under all layers; may be empty, may be Out
	Layers []Layer // lowest first
	Limits Limits
	Plain  bool // layers hide nothing: names that begin with ".wh." are names like others

	// Progress, if set, is called now and then from the building goroutine: with
	// bytes read and a total of 0 while the layers are merged, then with bytes
	// written and the size of the image.
	Progress func(done, total int64)
}

// Info describes a finished image.
type Info struct {
	Bytes   int64  // size of the image
	Content int64  // bytes of all regular files; hard links count again
	Entries int    // everything that has a name, the root included
	Digest  string // "sha256:" and the hash of the image in hexadecimal

	// What the layers had and the image does not.
	Devices    int // device nodes, but not an overlay's whiteouts: the engine mounts its own /dev
	Attributes int // entries with extended attributes: the engine refuses inodes that have any
}

// Build merges the layers over the base and writes the image. The same input
// gives the same bytes. A layer that is malformed or hostile is Invalid, one
// that is too big is Exhausted, a full disk is NoSpace; a damaged base, which is
// our own work, is Internal. After an error Out is as it was.
func Build(ctx context.Context, o Options) (Info, error) {
	const op = "rootfs.Build"
	report := o.Progress
	if report == nil {
		report = func(_, _ int64) {}
	}
	t := newTree(o.Limits.orDefaults())
	m := &merge{tree: t, plain: o.Plain, meter: &meter{
		ctx: ctx, max: t.limits.Bytes, hash: newIdentity(buildVersion), report: func(done int64) { report(done, 0) },
	}}
	var under *base
	if o.Base != "" {
		var err error
		if under, err = openBase(o.Base); err != nil {
			return Info{}, outcome(op, err)
		}
		defer under.close()
		if err := m.base(ctx, under); err != nil {
			return Info{}, outcome(op, err)
		}
	}
	for i, layer := range o.Layers {
		if err := m.layer(ctx, i+1, layer); err != nil {
			return Info{}, outcome(op, fmt.Errorf("layer %d: %w", i+1, err))
		}
	}
	t.dropDevices()
	p, err := newPlan(t)
	if err != nil {
		return Info{}, outcome(op, err)
	}
	p.info.Devices, p.info.Attributes = m.devices, m.attributes
	info, err := writeImage(ctx, o.Out, p, identity(m.meter.hash), report, func(w *writing) error {
		if err := w.copyBase(under); err != nil {
			return err
		}
		return w.copyLayers(ctx, o.Layers)
	})
	return info, outcome(op, err)
}

// newIdentity begins the hash an image's UUID is made of.
//
// The engine restores a snapshot only over the image it was taken with, and
// tells images apart by superblock and UUID. So the UUID stands for everything
// the image is a function of: its input, and the version of what made it, which
// is raised when the same input gives other bytes.
func newIdentity(version int) hash.Hash {
	h := sha256.New()
	fmt.Fprintf(h, "cove rootfs %d\n", version)
	return h
}

const (
	buildVersion = 2 // 1 took no notice of an overlay's marks and of what devices hide
	packVersion  = 1
)

func identity(h hash.Hash) (uuid [16]byte) {
	copy(uuid[:], h.Sum(nil))
	uuid[6] = uuid[6]&0x0f | 0x80 // version 8, RFC 9562: made by a rule of one's own
	uuid[8] = uuid[8]&0x3f | 0x80
	return uuid
}

// File is a regular file for Pack. It belongs to root.
type File struct {
	Path string                        // absolute, without ".."
	Mode fs.FileMode                   // permission bits
	Size int64                         // exact
	Open func() (io.ReadCloser, error) // called twice
}

// Pack writes an image of a few files, with the directories they need.
func Pack(ctx context.Context, out string, files []File) (Info, error) {
	const op = "rootfs.Pack"
	t := newTree(Limits{}.orDefaults())
	id := newIdentity(packVersion)
	m := &meter{ctx: ctx, max: t.limits.Bytes, hash: id}
	for i, f := range files {
		if err := t.pack(f, i); err != nil {
			return Info{}, outcome(op, err)
		}
		fmt.Fprintf(id, "%q %v %d\n", f.Path, f.Mode.Perm(), f.Size)
		err := f.read(func(r io.Reader) error {
			_, err := io.CopyN(io.Discard, m.reader(r), f.Size)
			if err == io.EOF {
				err = malformed(nil, "%q has fewer than %d bytes", f.Path, f.Size)
			}
			return err
		})
		if err != nil {
			return Info{}, outcome(op, err)
		}
	}
	p, err := newPlan(t)
	if err != nil {
		return Info{}, outcome(op, err)
	}
	info, err := writeImage(ctx, out, p, identity(id), func(_, _ int64) {}, func(w *writing) error {
		return w.copyFiles(files)
	})
	return info, outcome(op, err)
}

// pack puts the i-th file of Pack into the tree.
func (t *tree) pack(f File, i int) error {
	parts, err := split(f.Path)
	if err != nil {
		return err
	}
	if len(parts) == 0 || f.Size < 0 {
		return malformed(nil, "%q with %d bytes cannot be a file", f.Path, f.Size)
	}
	dir, err := t.makeDirs(parts[:len(parts)-1], 0)
	if err != nil {
		return err
	}
	ino := &inode{mode: f.Mode.Perm(), size: f.Size, content: content{entry: i}}
	return t.put(dir, parts[len(parts)-1], ino, 0)
}
