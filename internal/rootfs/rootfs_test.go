package rootfs_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/rootfs"
	"github.com/erofs/go-erofs"
	"github.com/google/go-cmp/cmp"
)

// An entry is one of a layer.
type entry struct {
	h    tar.Header
	data string
}

func file(name, data string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}, data}
}

func dir(name string) entry {
	return entry{h: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}}
}

func link(name, target string) entry {
	return entry{h: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}}
}

func hard(name, target string) entry {
	return entry{h: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target}}
}

func device(name string) entry {
	return entry{h: tar.Header{Typeflag: tar.TypeChar, Name: name, Devmajor: 1, Devminor: 3}}
}

// whiteout is that of an overlay: a character device without a number.
func whiteout(name string) entry {
	return entry{h: tar.Header{Typeflag: tar.TypeChar, Name: name}}
}

// opaque is a directory of an overlay that hides what is below it.
func opaque(name string) entry { return dir(name).pax("SCHILY.xattr.trusted.overlay.opaque", "y") }

func pipe(name string) entry {
	return entry{h: tar.Header{Typeflag: tar.TypeFifo, Name: name, Mode: 0o644}}
}

func (e entry) mode(m int64) entry        { e.h.Mode = m; return e }
func (e entry) owner(uid, gid int) entry  { e.h.Uid, e.h.Gid = uid, gid; return e }
func (e entry) mtime(t time.Time) entry   { e.h.ModTime, e.h.Format = t, tar.FormatPAX; return e }
func (e entry) pax(key, val string) entry { e.h.PAXRecords = map[string]string{key: val}; return e }

func pack(t testing.TB, entries []entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		if err := w.WriteHeader(&e.h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func layerOf(data []byte) rootfs.Layer {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

func buildTo(t *testing.T, out string, limits rootfs.Limits, layers ...[]entry) (rootfs.Info, error) {
	t.Helper()
	o := rootfs.Options{Out: out, Limits: limits}
	for _, l := range layers {
		o.Layers = append(o.Layers, layerOf(pack(t, l)))
	}
	return rootfs.Build(t.Context(), o)
}

func build(t *testing.T, limits rootfs.Limits, layers ...[]entry) (string, rootfs.Info) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image")
	info, err := buildTo(t, out, limits, layers...)
	if err != nil {
		t.Fatal(err)
	}
	return out, info
}

// tryBuild returns the error of a build that must leave nothing behind.
func tryBuild(t *testing.T, limits rootfs.Limits, layers ...[]entry) error {
	t.Helper()
	dir := t.TempDir()
	_, err := buildTo(t, filepath.Join(dir, "image"), limits, layers...)
	if err == nil {
		t.Error("the build succeeded")
	}
	wantEmpty(t, dir)
	return err
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// open opens an image with the reader of the EROFS library.
func open(t *testing.T, image string) fs.FS {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	fsys, err := erofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	return fsys
}

// show lists an image, one line per name: what it is, and mode and owner where
// they are not the usual ones.
func show(t *testing.T, image string) []string {
	t.Helper()
	fsys := open(t, image)
	var lines []string
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*erofs.Stat)
		line, usual := p, int64(0o644)
		switch d.Type() {
		case fs.ModeDir:
			line, usual = p+"/", 0o755
		case fs.ModeSymlink:
			target, err := fs.ReadLink(fsys, p)
			if err != nil {
				return err
			}
			line, usual = p+" -> "+target, 0o777
		case fs.ModeNamedPipe:
			line = p + " |"
		default:
			data, err := fs.ReadFile(fsys, p)
			if err != nil {
				return err
			}
			line = p + " = " + string(data)
		}
		if m := bits(st.Mode); m != usual {
			line += fmt.Sprintf(" 0%o", m)
		}
		if st.UID != 0 || st.GID != 0 {
			line += fmt.Sprintf(" %d:%d", st.UID, st.GID)
		}
		if len(st.Xattrs) > 0 {
			line += " with attributes"
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func bits(m fs.FileMode) int64 {
	b := int64(m.Perm())
	for bit, flag := range map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&flag != 0 {
			b |= bit
		}
	}
	return b
}

// sizes around the block size and the room for inline data.
func manySizes() (layer []entry) {
	for _, n := range []int{0, 1, 4000, 4031, 4032, 4033, 4064, 4095, 4096, 4097, 8192, 100_000, 5 << 20} {
		data := strings.Repeat(fmt.Sprintf("%07d\n", n), n/8+1)[:n]
		layer = append(layer, file(fmt.Sprintf("f%d", n), data).mtime(time.Unix(int64(n), 0)))
	}
	for i := range 500 { // a directory of several blocks
		layer = append(layer, file(fmt.Sprintf("many/a rather long name for a file %d", i), fmt.Sprint(i)))
	}
	return append(layer, link("long", strings.Repeat("t/", 2000)))
}

func TestRoundTrip(t *testing.T) {
	entries := manySizes()
	out, info := build(t, rootfs.Limits{}, entries)
	fsys := open(t, out)
	var content int64
	for _, e := range entries {
		if e.h.Typeflag != tar.TypeReg {
			continue
		}
		content += e.h.Size
		data, err := fs.ReadFile(fsys, e.h.Name)
		if err != nil || string(data) != e.data {
			t.Errorf("%s: %d bytes, %v; want %d", e.h.Name, len(data), err, len(e.data))
		}
		st, err := fs.Stat(fsys, e.h.Name)
		if err != nil {
			t.Fatal(err)
		}
		if want := max(e.h.ModTime.Unix(), 0); st.ModTime().Unix() != want {
			t.Errorf("%s: modified at %d, want %d", e.h.Name, st.ModTime().Unix(), want)
		}
	}
	st, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	if info.Bytes != st.Size() || info.Content != content || info.Entries != len(entries)+2 {
		t.Errorf("info %+v; the file has %d bytes and was made of %d entries with %d bytes", info, st.Size(), len(entries), content)
	}
}

// TestKernel has the other readers look at the same image: the kernel's and
// the checker of erofs-utils, where they are installed.
func TestKernel(t *testing.T) {
	out, _ := build(t, rootfs.Limits{}, manySizes())
	if path, err := exec.LookPath("fsck.erofs"); err == nil {
		if msg, err := exec.Command(path, out).CombinedOutput(); err != nil {
			t.Errorf("fsck.erofs: %v\n%s", err, msg)
		}
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil || !bytes.Contains(known, []byte("\terofs\n")) {
		return // this kernel has no opinion
	}
	at := t.TempDir()
	if msg, err := exec.Command("mount", "-t", "erofs", "-o", "loop,ro", out, at).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, msg)
	}
	t.Cleanup(func() {
		if msg, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, msg)
		}
	})
	for _, e := range manySizes() {
		if e.h.Typeflag != tar.TypeReg {
			continue
		}
		if data, err := os.ReadFile(filepath.Join(at, e.h.Name)); err != nil || string(data) != e.data {
			t.Errorf("%s: %d bytes, %v; want %d", e.h.Name, len(data), err, len(e.data))
		}
	}
}

func TestDeterministic(t *testing.T) {
	layer := []entry{file("b/x", "1"), file("a", "2"), hard("c", "a")}
	first, info := build(t, rootfs.Limits{}, layer)
	second, again := build(t, rootfs.Limits{}, layer)
	if diff := cmp.Diff(info, again); diff != "" {
		t.Errorf("info differs:\n%s", diff)
	}
	a, _ := os.ReadFile(first)
	b, _ := os.ReadFile(second)
	if !bytes.Equal(a, b) {
		t.Error("the same layers gave two images")
	}
	third, other := build(t, rootfs.Limits{}, []entry{file("b/x", "2"), file("a", "2"), hard("c", "a")})
	c, _ := os.ReadFile(third)
	const uuid = 1024 + 48
	if other.Digest == info.Digest || bytes.Equal(a[uuid:uuid+16], c[uuid:uuid+16]) {
		t.Error("different contents gave the same identity")
	}
}

// TestHardLinks: names of one file share it.
func TestHardLinks(t *testing.T) {
	out, info := build(t, rootfs.Limits{Bytes: 2 << 20}, []entry{
		file("a", strings.Repeat("x", 1<<20)), hard("d/b", "a"), hard("c", "d/b"),
	})
	if info.Bytes > 2<<20 || info.Content != 3<<20 {
		t.Errorf("info %+v", info)
	}
	fsys := open(t, out)
	var inodes []int64
	for _, name := range []string{"a", "d/b", "c"} {
		st, err := fs.Stat(fsys, name)
		if err != nil {
			t.Fatal(err)
		}
		raw := st.Sys().(*erofs.Stat)
		if inodes = append(inodes, raw.Ino); raw.Nlink != 3 || raw.Ino != inodes[0] || raw.Size != 1<<20 {
			t.Errorf("%s: %+v; the others are %v", name, raw, inodes)
		}
	}
}

// TestLinkCounts: a directory is linked to by its name, itself and its
// subdirectories.
func TestLinkCounts(t *testing.T) {
	out, _ := build(t, rootfs.Limits{}, []entry{dir("a/b/"), dir("a/c/"), file("a/d", "")})
	for name, want := range map[string]int{".": 3, "a": 4, "a/b": 2, "a/d": 1} {
		st, err := fs.Stat(open(t, out), name)
		if err != nil || st.Sys().(*erofs.Stat).Nlink != want {
			t.Errorf("%s: %+v, %v; want %d links", name, st.Sys(), err, want)
		}
	}
}

// TestFilesHaveBlocks: the engine cannot map a file that is stored behind its
// inode, so there is none, however small.
func TestFilesHaveBlocks(t *testing.T) {
	out, _ := build(t, rootfs.Limits{}, manySizes())
	err := fs.WalkDir(open(t, out), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		st, err := d.Info()
		if err == nil && st.Sys().(*erofs.Stat).InodeLayout != 0 {
			t.Errorf("%s has layout %d", p, st.Sys().(*erofs.Stat).InodeLayout)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAttributes: the engine cannot read inodes with extended attributes.
func TestAttributes(t *testing.T) {
	out, info := build(t, rootfs.Limits{}, []entry{
		file("ping", "x").pax("SCHILY.xattr.security.capability", "\x01\x00\x00\x02"), device("null"),
		opaque("d/"), whiteout("gone"), // marks of an overlay are not left out: they are obeyed
	})
	if diff := cmp.Diff([]string{"d/", "ping = x"}, show(t, out)); diff != "" {
		t.Errorf("image (-want +got):\n%s", diff)
	}
	if info.Attributes != 1 || info.Devices != 1 {
		t.Errorf("left out %d attributes and %d devices, want 1 and 1", info.Attributes, info.Devices)
	}
}

func TestBuildStops(t *testing.T) {
	good := pack(t, []entry{file("a", strings.Repeat("x", 10_000))})
	tests := map[string]struct {
		layer func() rootfs.Layer
		kind  cove.Kind
	}{
		"cut off":      {func() rootfs.Layer { return layerOf(good[:5000]) }, cove.Invalid},
		"not a tar":    {func() rootfs.Layer { return layerOf(bytes.Repeat([]byte("no"), 1000)) }, cove.Invalid},
		"other file":   {func() rootfs.Layer { return changing(good, pack(t, []entry{file("a", "y")})) }, cove.Invalid},
		"fewer files":  {func() rootfs.Layer { return changing(good, pack(t, nil)) }, cove.Invalid},
		"cannot open":  {func() rootfs.Layer { return failing(errors.New("gone")) }, cove.Internal},
		"disk is full": {func() rootfs.Layer { return failing(&fs.PathError{Op: "write", Err: errFull}) }, cove.NoSpace},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := rootfs.Build(t.Context(), rootfs.Options{Out: filepath.Join(dir, "image"), Layers: []rootfs.Layer{test.layer()}})
			if err == nil || cove.KindOf(err) != test.kind {
				t.Errorf("got %v, want %v", err, test.kind)
			}
			wantEmpty(t, dir)
		})
	}
}

func TestBuildCancelled(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	data := pack(t, []entry{file("a", strings.Repeat("x", 20<<20))})
	_, err := rootfs.Build(ctx, rootfs.Options{
		Out: filepath.Join(dir, "image"), Layers: []rootfs.Layer{layerOf(data)},
		Progress: func(_, total int64) {
			if total > 0 { // the image is being written
				cancel()
			}
		},
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	wantEmpty(t, dir)
}

func TestProgress(t *testing.T) {
	data := pack(t, []entry{file("a", strings.Repeat("x", 20<<20))})
	var unknown, known int
	var last int64
	_, err := rootfs.Build(t.Context(), rootfs.Options{
		Out: filepath.Join(t.TempDir(), "image"), Layers: []rootfs.Layer{layerOf(data)},
		Progress: func(done, total int64) {
			if total == 0 {
				unknown++
				return
			}
			known++
			if done < last || done > total {
				t.Errorf("%d of %d after %d", done, total, last)
			}
			last = done
		},
	})
	if err != nil || unknown == 0 || known == 0 {
		t.Errorf("%d and %d reports, %v", unknown, known, err)
	}
}
