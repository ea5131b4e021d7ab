package rootfs_test

import (
	"strings"
	"testing"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/rootfs"
	"github.com/google/go-cmp/cmp"
)

// mergeTests are layers and what becomes of them.
var mergeTests = map[string]struct {
	layers [][]entry
	want   []string // as show prints them; the root is left out
}{
	"nothing": {},
	"one layer": {
		layers: [][]entry{{dir("etc/"), file("etc/hostname", "x"), link("bin", "usr/bin")}},
		want:   []string{"bin -> usr/bin", "etc/", "etc/hostname = x"},
	},
	"names may begin with a slash or a dot": {
		layers: [][]entry{{file("/a", "1"), file("./b", "2"), file(".//c/./d", "3")}},
		want:   []string{"a = 1", "b = 2", "c/", "c/d = 3"},
	},
	"missing directories are made": {
		layers: [][]entry{{file("a/b/c", "x")}},
		want:   []string{"a/", "a/b/", "a/b/c = x"},
	},
	"the last of equal names wins": {
		layers: [][]entry{{file("a", "1"), file("a", "2")}, {file("a", "3"), file("a", "4")}},
		want:   []string{"a = 4"},
	},
	"whiteout of a file": {
		layers: [][]entry{{file("a", "1"), file("b", "2")}, {file(".wh.a", "")}},
		want:   []string{"b = 2"},
	},
	"whiteout of a directory": {
		layers: [][]entry{{file("d/a", "1"), file("d/e/b", "2"), file("f", "3")}, {file(".wh.d", "")}},
		want:   []string{"f = 3"},
	},
	"whiteout of nothing": {
		layers: [][]entry{{file("a", "1")}, {file(".wh.b", ""), file("no/such/.wh.c", "")}},
		want:   []string{"a = 1"},
	},
	"whiteout spares its own layer, whatever the order": {
		layers: [][]entry{{file("d/old", "1")}, {file("d/new", "2"), file(".wh.d", "")}},
		want:   []string{"d/", "d/new = 2"},
	},
	"whiteout and again": {
		layers: [][]entry{{file("a", "1")}, {file(".wh.a", "")}, {file("a", "2")}},
		want:   []string{"a = 2"},
	},
	"opaque directory": {
		layers: [][]entry{{file("d/old", "1"), file("d/e/old", "1")}, {dir("d/"), file("d/new", "2"), file("d/.wh..wh..opq", "")}},
		want:   []string{"d/", "d/new = 2"},
	},
	"opaque root": {
		layers: [][]entry{{file("old", "1")}, {file(".wh..wh..opq", ""), file("new", "2")}},
		want:   []string{"new = 2"},
	},
	"bookkeeping of AUFS": {
		layers: [][]entry{{file(".wh..wh.plnk", ""), file("a", "1")}},
		want:   []string{"a = 1"},
	},
	"directory over directory keeps what is in it": {
		layers: [][]entry{{file("d/a", "1")}, {dir("d/").mode(0o700)}},
		want:   []string{"d/ 0700", "d/a = 1"},
	},
	"hard link": {
		layers: [][]entry{{file("a", "1").mode(0o4755), hard("b", "a")}},
		want:   []string{"a = 1 04755", "b = 1 04755"},
	},
	"hard link into a lower layer keeps the old file": {
		layers: [][]entry{{file("a", "1")}, {hard("b", "/a"), file("a", "2")}},
		want:   []string{"a = 2", "b = 1"},
	},
	"hard link to a symbolic link": {
		layers: [][]entry{{link("a", "nowhere"), hard("b", "a")}},
		want:   []string{"a -> nowhere", "b -> nowhere"},
	},
	"parent is a symbolic link": {
		layers: [][]entry{{dir("usr/lib/"), link("lib", "usr/lib")}, {file("lib/x.so", "1")}},
		want:   []string{"lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/x.so = 1"},
	},
	"parent is an absolute symbolic link, which stays inside": {
		layers: [][]entry{{link("etc", "/../../../private/etc")}, {file("etc/passwd", "1")}},
		want:   []string{"etc -> /../../../private/etc", "private/", "private/etc/", "private/etc/passwd = 1"},
	},
	"whiteout below a symbolic link": {
		layers: [][]entry{{file("usr/lib/x", "1"), link("lib", "usr/lib")}, {file("lib/.wh.x", "")}},
		want:   []string{"lib -> usr/lib", "usr/", "usr/lib/"},
	},
	"directory replaces a symbolic link": {
		layers: [][]entry{{link("d", "e"), file("e/a", "1")}, {dir("d/"), file("d/b", "2")}},
		want:   []string{"d/", "d/b = 2", "e/", "e/a = 1"},
	},
	"devices are left out, pipes are not": {
		layers: [][]entry{{device("dev/null"), pipe("run/pipe"), file("a", "1")}},
		want:   []string{"a = 1", "run/", "run/pipe |"},
	},
	"devices hide what is below, and so do their hard links": {
		layers: [][]entry{{file("a", "1"), file("b", "1"), file("c", "1")}, {device("a"), hard("b", "a")}},
		want:   []string{"c = 1"},
	},
	"whiteouts of an overlay": {
		layers: [][]entry{{file("a", "1"), file("d/b", "1"), file("e/f/c", "1")}, {dir("./"), whiteout("./a"), dir("./d/"), whiteout("./d/b"), whiteout("./e")}},
		want:   []string{"d/"},
	},
	"all whiteouts of an overlay are one inode": {
		layers: [][]entry{{file("a", "1"), file("d/b", "1"), file("e/f/c", "1")}, {dir("./"), dir("./d/"), whiteout("./d/b"), hard("./a", "./d/b"), hard("./e", "./d/b")}},
		want:   []string{"d/"},
	},
	"whiteout of an overlay spares its own layer, whatever the order": {
		layers: [][]entry{{file("a", "1"), file("b", "1"), file("d/x", "1"), file("e/x", "1")}, {
			whiteout("a"), file("a", "2"), file("b", "2"), whiteout("b"),
			whiteout("d"), dir("d/"), file("d/y", "2"), dir("e/"), file("e/y", "2"), whiteout("e"),
		}},
		want: []string{"a = 2", "b = 2", "d/", "d/y = 2", "e/", "e/y = 2"},
	},
	"whiteout of an overlay, and a file in the directory again": {
		layers: [][]entry{{file("d/x", "1")}, {whiteout("d")}, {file("d/y", "2")}},
		want:   []string{"d/", "d/y = 2"},
	},
	"whiteout of what an overlay's whiteout has hidden": {
		layers: [][]entry{{file("a", "1")}, {whiteout("a")}, {file(".wh.a", ""), whiteout("a"), file("b/.wh.c", "")}},
	},
	"opaque directory of an overlay": {
		layers: [][]entry{{file("d/old", "1"), file("d/e/old", "1")}, {opaque("./d/").mode(0o700), file("./d/new", "2"), dir("./d/e/")}},
		want:   []string{"d/ 0700", "d/e/", "d/new = 2"},
	},
	"opaque directory of an overlay, after what is in it": {
		layers: [][]entry{{file("d/old", "1"), file("d/e/old", "1")}, {file("d/new", "2"), dir("d/e/"), opaque("d/")}},
		want:   []string{"d/", "d/e/", "d/new = 2"},
	},
	"opaque by the other attribute, and not by another value": {
		layers: [][]entry{{file("d/old", "1"), file("e/old", "1")}, {
			dir("d/").pax("SCHILY.xattr.user.overlay.opaque", "y"), dir("e/").pax("SCHILY.xattr.trusted.overlay.opaque", "x"),
		}},
		want: []string{"d/", "e/", "e/old = 1"},
	},
	"opaque root of an overlay": {
		layers: [][]entry{{file("old", "1")}, {file("new", "2"), opaque("./")}},
		want:   []string{"new = 2"},
	},
	"an overlay's renamed directory": {
		layers: [][]entry{{file("d/a", "1"), file("d/b", "1")}, {whiteout("./d"), opaque("./e/"), file("./e/a", "1"), hard("./e/b", "./e/a")}},
		want:   []string{"e/", "e/a = 1", "e/b = 1"},
	},
	"file over directory and back in an overlay": {
		layers: [][]entry{{file("d/a", "1"), file("f", "1"), link("l", "d")}, {file("./d", "2"), opaque("./f/"), file("./f/a", "2"), opaque("./l/"), file("./l/b", "2")}},
		want:   []string{"d = 2", "f/", "f/a = 2", "l/", "l/b = 2"},
	},
	"owners, modes and the sticky bit": {
		layers: [][]entry{{dir("tmp/").mode(0o1777), file("a", "1").mode(0o640).owner(1000, 70000)}},
		want:   []string{"a = 1 0640 1000:70000", "tmp/ 01777"},
	},
}

func TestMerge(t *testing.T) {
	for name, test := range mergeTests {
		t.Run(name, func(t *testing.T) {
			out, _ := build(t, rootfs.Limits{}, test.layers...)
			if diff := cmp.Diff(test.want, show(t, out)); diff != "" {
				t.Errorf("image (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMergeFileOverDirectoryAndBack(t *testing.T) {
	layers := [][]entry{{file("x/a", "1")}, {file("x", "2")}}
	out, _ := build(t, rootfs.Limits{}, layers...)
	if diff := cmp.Diff([]string{"x = 2"}, show(t, out)); diff != "" {
		t.Errorf("after the second layer (-want +got):\n%s", diff)
	}
	out, _ = build(t, rootfs.Limits{}, append(layers, []entry{dir("x/"), file("x/b", "3")})...)
	if diff := cmp.Diff([]string{"x/", "x/b = 3"}, show(t, out)); diff != "" {
		t.Errorf("after the third layer (-want +got):\n%s", diff)
	}
}

func TestRefused(t *testing.T) {
	long := strings.Repeat("n", 256)
	deep := strings.Repeat("d/", 2000)
	tests := map[string]struct {
		limits rootfs.Limits
		layers [][]entry
		kind   cove.Kind
		want   string
	}{
		"path leaves the root":         {layers: [][]entry{{file("../a", "")}}, kind: cove.Invalid, want: "leaves its directory"},
		"path turns back":              {layers: [][]entry{{file("a/../../b", "")}}, kind: cove.Invalid, want: "leaves its directory"},
		"hard link leaves the root":    {layers: [][]entry{{hard("a", "../../etc/shadow")}}, kind: cove.Invalid, want: "leaves its directory"},
		"hard link to nothing":         {layers: [][]entry{{hard("a", "b")}}, kind: cove.Invalid, want: "which is not a file"},
		"hard link to a directory":     {layers: [][]entry{{dir("b/"), hard("a", "b")}}, kind: cove.Invalid, want: "which is not a file"},
		"file as a parent":             {layers: [][]entry{{file("a", ""), file("a/b", "")}}, kind: cove.Invalid, want: "is not a directory"},
		"links in a circle":            {layers: [][]entry{{link("a", "b"), link("b", "a"), file("a/c", "")}}, kind: cove.Invalid, want: "too many symbolic links"},
		"empty target":                 {layers: [][]entry{{link("a", "")}}, kind: cove.Invalid, want: "impossible target"},
		"whiteout of nothing":          {layers: [][]entry{{file(".wh.", "")}}, kind: cove.Invalid, want: "whiteout"},
		"whiteout of the parent":       {layers: [][]entry{{file("a/.wh...", "")}}, kind: cove.Invalid, want: "whiteout"},
		"long name":                    {layers: [][]entry{{file(long, "")}}, kind: cove.Invalid, want: "too long"},
		"long path":                    {layers: [][]entry{{file(deep+deep+deep+"x", "")}}, kind: cove.Invalid, want: "too long"},
		"long path by way of a link":   {layers: [][]entry{{dir(deep), link("l", deep), file("l/"+deep+"x", "")}}, kind: cove.Invalid, want: "nested too deeply"},
		"root is a file":               {layers: [][]entry{{file(".", "")}}, kind: cove.Invalid, want: "not a directory"},
		"too many entries":             {limits: rootfs.Limits{Entries: 2}, layers: [][]entry{{file("a", ""), file("b", ""), file("c", "")}}, kind: cove.Exhausted, want: "more than 2 files"},
		"too many implied directories": {limits: rootfs.Limits{Entries: 3}, layers: [][]entry{{file("a/b/c/d", "")}}, kind: cove.Exhausted, want: "more than 3 files"},
		"too many bytes":               {limits: rootfs.Limits{Bytes: 4096}, layers: [][]entry{{file("a", strings.Repeat("x", 5000))}}, kind: cove.Exhausted, want: "more than 4096 bytes"},
		"too many bytes of names":      {limits: rootfs.Limits{Names: 10}, layers: [][]entry{{file("abcdef", ""), file("ghijkl", "")}}, kind: cove.Exhausted, want: "bytes of names"},
		"links as a burden":            {limits: rootfs.Limits{Entries: 60}, layers: [][]entry{burden()}, kind: cove.Invalid, want: "take too long"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := tryBuild(t, test.limits, test.layers...)
			kind, msg := cove.Describe(err)
			if kind != test.kind || !strings.Contains(msg, test.want) {
				t.Errorf("got %v, %q; want %v with %q", kind, msg, test.kind, test.want)
			}
		})
	}
}

// burden is a small layer that takes long: each path goes through a chain of
// links, each of which goes up and down many times.
func burden() []entry {
	entries := []entry{dir("d/")}
	back := strings.Repeat("d/../", 100) + "d"
	for _, n := range []string{"a", "b", "c"} {
		entries = append(entries, link(n, back))
	}
	for i := range 40 {
		entries = append(entries, file("a/"+strings.Repeat("x", i+1), ""))
	}
	return entries
}
