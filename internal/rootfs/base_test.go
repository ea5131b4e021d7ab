package rootfs_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/rootfs"
	"github.com/erofs/go-erofs"
	"github.com/google/go-cmp/cmp"
)

// buildOver builds layers over the image base.
func buildOver(t *testing.T, base string, layers ...[]entry) (string, rootfs.Info) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "image")
	info, err := rootfs.Build(t.Context(), over(t, base, out, layers...))
	if err != nil {
		t.Fatal(err)
	}
	return out, info
}

func over(t *testing.T, base, out string, layers ...[]entry) rootfs.Options {
	t.Helper()
	o := rootfs.Options{Base: base, Out: out}
	for _, l := range layers {
		o.Layers = append(o.Layers, layerOf(pack(t, l)))
	}
	return o
}

func readImage(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestBaseAlone: an image made of nothing but another one is the same in all
// but its identity, to the nanosecond and the order of files.
func TestBaseAlone(t *testing.T) {
	at := time.Unix(1_700_000_000, 123_456_789)
	base, want := build(t, rootfs.Limits{}, append(manySizes(),
		dir("./").mode(0o711).owner(1, 2).mtime(at),
		dir("tmp/").mode(0o1777).owner(70000, 80000).mtime(at),
		file("su", "x").mode(0o6755).mtime(at), hard("tmp/su", "su"),
		pipe("pipe").owner(5, 6), link("here", "su").owner(7, 8).mtime(at), hard("there", "here"),
	), []entry{file(".wh.f4096", ""), file("f1", "replaced, so no longer in the order of names")})
	out, info := buildOver(t, base)
	want.Digest, info.Digest = "", ""
	if diff := cmp.Diff(want, info); diff != "" {
		t.Errorf("info (-want +got):\n%s", diff)
	}
	const block = 4096
	if a, b := readImage(t, base), readImage(t, out); !bytes.Equal(a[block:], b[block:]) {
		t.Error("the image is not like its base")
	}
}

// TestBaseIsALayer: whether a layer comes as such or by way of an image makes no
// difference.
func TestBaseIsALayer(t *testing.T) {
	for name, test := range mergeTests {
		t.Run(name, func(t *testing.T) {
			out, _ := build(t, rootfs.Limits{})
			for _, layer := range test.layers {
				out, _ = buildOver(t, out, layer)
			}
			if diff := cmp.Diff(test.want, show(t, out)); diff != "" {
				t.Errorf("image (-want +got):\n%s", diff)
			}
		})
	}
}

// TestBaseContents: what is copied is what was there, wherever a layer has made
// holes.
func TestBaseContents(t *testing.T) {
	base, _ := build(t, rootfs.Limits{}, manySizes())
	out, _ := buildOver(t, base, []entry{file(".wh.f4095", ""), file("f100000", "new"), file(".wh.many", ""), file("g", "new")})
	gone := map[string]bool{"f4095": true, "f100000": true}
	fsys := open(t, out)
	for _, e := range manySizes() {
		if e.h.Typeflag != tar.TypeReg || strings.HasPrefix(e.h.Name, "many/") || gone[e.h.Name] {
			continue
		}
		if data, err := fs.ReadFile(fsys, e.h.Name); err != nil || string(data) != e.data {
			t.Errorf("%s: %d bytes, %v; want %d", e.h.Name, len(data), err, len(e.data))
		}
	}
	for _, name := range []string{"f100000", "g"} {
		if data, err := fs.ReadFile(fsys, name); err != nil || string(data) != "new" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
}

// TestBaseHardLinks: names that share a file in the base share it in the image,
// also with a layer's.
func TestBaseHardLinks(t *testing.T) {
	base, _ := build(t, rootfs.Limits{}, []entry{file("a", strings.Repeat("x", 1<<20)), hard("d/b", "a"), hard("lost", "a")})
	out, info := buildOver(t, base, []entry{hard("c", "d/b"), file("lost", "1")})
	if info.Bytes > 2<<20 || info.Content != 3<<20+1 {
		t.Errorf("info %+v", info)
	}
	var first int64
	for _, name := range []string{"a", "d/b", "c"} {
		st, err := fs.Stat(open(t, out), name)
		if err != nil {
			t.Fatal(err)
		}
		raw := st.Sys().(*erofs.Stat)
		if first == 0 {
			first = raw.Ino
		}
		if raw.Nlink != 3 || raw.Ino != first {
			t.Errorf("%s: %+v; the first is %d", name, raw, first)
		}
	}
}

func TestBaseIdentity(t *testing.T) {
	const uuid = 1024 + 48
	layer := []entry{file("a", "1")}
	base, _ := build(t, rootfs.Limits{}, []entry{file("a", "0")})
	other, _ := build(t, rootfs.Limits{}, []entry{file("a", "other")})
	seen := make(map[string]string)
	for name, image := range map[string]string{
		"the base": base,
		"alone":    first(buildOver(t, base)), "with a layer": first(buildOver(t, base, layer)),
		"over another": first(buildOver(t, other, layer)), "no base": first(build(t, rootfs.Limits{}, layer)),
	} {
		id := string(readImage(t, image)[uuid : uuid+16])
		if seen[id] != "" {
			t.Errorf("%q has the identity of %q", name, seen[id])
		}
		seen[id] = name
	}
	_, once := buildOver(t, base, layer)
	if _, again := buildOver(t, base, layer); again != once {
		t.Errorf("built twice: %+v and %+v", once, again)
	}
}

func first(image string, _ rootfs.Info) string { return image }

// TestBaseIsOut: an image can be replaced by one that is built on it.
func TestBaseIsOut(t *testing.T) {
	base, _ := build(t, rootfs.Limits{}, []entry{file("a", "1")})
	if _, err := rootfs.Build(t.Context(), over(t, base, base, []entry{file("b", "2")})); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a = 1", "b = 2"}, show(t, base)); diff != "" {
		t.Errorf("image (-want +got):\n%s", diff)
	}
}

func TestBaseLimits(t *testing.T) {
	base, _ := build(t, rootfs.Limits{}, []entry{file("aaaa", strings.Repeat("x", 5000)), link("bbbb", "target")})
	for name, limits := range map[string]rootfs.Limits{
		"entries": {Entries: 2}, "bytes": {Bytes: 5000}, "names": {Names: 14},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := over(t, base, filepath.Join(dir, "image"), []entry{file("c", "1")})
			o.Limits = limits
			if _, err := rootfs.Build(t.Context(), o); !cove.Is(err, cove.Exhausted) {
				t.Errorf("got %v", err)
			}
			wantEmpty(t, dir)
		})
	}
}

// smallImage is an image with two directories and two files, as small as the
// places that damage is done to are easy to find.
func smallImage(t testing.TB) []byte {
	out := filepath.Join(t.TempDir(), "image")
	_, err := rootfs.Pack(t.Context(), out, []rootfs.File{packed("/d/a", "1", 0o644), packed("/z", "2", 0o644)})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestDamagedBase: a base that is not as it was written is refused, and not as
// the layers' fault.
func TestDamagedBase(t *testing.T) {
	const (
		root    = 4096      // its inode
		entries = root + 64 // of the root: ".", "..", "d" and "z", twelve bytes each
		d, z    = entries + 2*12, entries + 3*12
		names   = entries + 4*12 // "." ".." "d" "z"
	)
	le := binary.LittleEndian
	inodeOf := func(image []byte, entry int) []byte { return image[le.Uint64(image[entry:])*32:] }
	tests := map[string]struct {
		damage func(image []byte) []byte
		want   string
	}{
		"nothing":         {func(b []byte) []byte { return nil }, "are not an image"},
		"half a block":    {func(b []byte) []byte { return b[:2048] }, "are not an image"},
		"cut off":         {func(b []byte) []byte { return b[:len(b)-4096] }, "bytes instead of"},
		"longer":          {func(b []byte) []byte { return append(b, 0) }, "bytes instead of"},
		"no image":        {func(b []byte) []byte { return make([]byte, len(b)) }, "superblock"},
		"identity":        {func(b []byte) []byte { b[1024+48] ^= 1; return b }, "superblock"},
		"a kind of inode": {func(b []byte) []byte { b[root] = 0xff; return b }, "makes no sense"},
		"a mode":          {func(b []byte) []byte { b[root+5] = 0; return b }, "makes no sense"},
		"attributes":      {func(b []byte) []byte { b[root+2] = 1; return b }, "makes no sense"},
		"root is a file":  {func(b []byte) []byte { copy(b[root:root+64], inodeOf(b, z)); return b }, "root is not a directory"},
		"a file's size":   {func(b []byte) []byte { le.PutUint64(inodeOf(b, z)[8:], 1<<40); return b }, "makes no sense"},
		"negative size":   {func(b []byte) []byte { le.PutUint64(inodeOf(b, z)[8:], 1<<63); return b }, "makes no sense"},
		"a file's block":  {func(b []byte) []byte { le.PutUint32(inodeOf(b, z)[16:], 1<<31); return b }, "makes no sense"},
		"inline file":     {func(b []byte) []byte { inodeOf(b, z)[0] = 1 | 2<<1; return b }, "makes no sense"},
		"no target":       {func(b []byte) []byte { b[z+10] = 7; inodeOf(b, z)[5] = 0o240; inodeOf(b, z)[8] = 0; return b }, "impossible target"},
		"circle":          {func(b []byte) []byte { copy(b[d:d+8], b[entries:]); return b }, "two names"},
		"far away":        {func(b []byte) []byte { b[z+7] = 0xff; return b }, "behind its end"},
		"another number":  {func(b []byte) []byte { copy(b[z:z+8], inodeOf(b, d)[64+2*12:]); return b }, "inodes instead of"},
		"another type":    {func(b []byte) []byte { b[z+10] = 2; return b }, "not what its directory says"},
		"a slash":         {func(b []byte) []byte { b[names+3] = '/'; return b }, "cannot be a name"},
		"a zero":          {func(b []byte) []byte { b[names+4] = 0; return b }, "out of order"},
		"order":           {func(b []byte) []byte { b[names+4] = 'a'; return b }, "out of order"},
		"no entries":      {func(b []byte) []byte { b[entries+8] = 0; return b }, "makes no sense"},
		"many entries":    {func(b []byte) []byte { b[entries+9] = 0xff; return b }, "makes no sense"},
		"names backwards": {func(b []byte) []byte { b[d+8] = 0xff; return b }, "makes no sense"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			base := filepath.Join(t.TempDir(), "base")
			if err := os.WriteFile(base, test.damage(smallImage(t)), 0o600); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			_, err := rootfs.Build(t.Context(), over(t, base, filepath.Join(dir, "image")))
			if err == nil || cove.KindOf(err) != cove.Internal || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			wantEmpty(t, dir)
		})
	}
}

func TestNoBase(t *testing.T) {
	dir := t.TempDir()
	_, err := rootfs.Build(t.Context(), over(t, filepath.Join(dir, "none"), filepath.Join(dir, "image")))
	if err == nil || cove.KindOf(err) != cove.Internal {
		t.Errorf("got %v", err)
	}
	wantEmpty(t, dir)
}
