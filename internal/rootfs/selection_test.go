package rootfs_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/rootfs"
)

// selected returns the archive of a selection, an entry a line.
func selected(t *testing.T, s *rootfs.Selection) (lines []string) {
	t.Helper()
	var buf bytes.Buffer
	if err := s.Archive(t.Context(), &buf); err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(&buf); ; {
		h, err := r.Next()
		if err == io.EOF {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %o %d:%d %s%s", h.Name, h.Mode, h.Uid, h.Gid, h.Linkname, data)))
	}
}

func selectionOf(t *testing.T, image, source string) *rootfs.Selection {
	t.Helper()
	i, err := rootfs.Open(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	s, err := i.Select(source)
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	return s
}

func TestSelect(t *testing.T) {
	image, _ := build(t, rootfs.Limits{}, []entry{
		dir("src/").mode(0o750).owner(1, 2), file("src/a.c", "a").owner(3, 4), file("src/b.c", "b").mode(0o4755), hard("src/c.c", "src/a.c"),
		dir("src/sub/"), file("src/sub/x", "x"), link("src/to", "sub/x"), link("src/gone", "nowhere"), pipe("src/pipe"),
		link("lib", "usr/lib"), dir("usr/lib/"), file("usr/lib/l.so", "l"), link("out", "/../../usr/./lib"), link("up", "src/sub/.."), link("loop", "loop"),
		file("we*ird", "w"), dir("empty/"),
	})
	sub := []string{"./ 755 0:0", "x 644 0:0 x"}
	for source, want := range map[string][]string{
		"src/a.c": {"a.c 644 3:4 a"}, "/src/../src//a.c": {"a.c 644 3:4 a"}, "../../src/a.c": {"a.c 644 3:4 a"},
		"src": {
			"./ 750 1:2", "a.c 644 3:4 a", "b.c 4755 0:0 b", "c.c 644 3:4 a.c", "gone 777 0:0 nowhere", "pipe 644 0:0",
			"sub/ 755 0:0", "sub/x 644 0:0 x", "to 777 0:0 sub/x",
		},
		"src/sub/": sub, "up/sub": sub,
		"src/to":      {"to 644 0:0 x"}, // a link that is named is followed
		"src/t?":      {"to 777 0:0 sub/x"},
		"src/*.c":     {"a.c 644 3:4 a", "b.c 4755 0:0 b", "c.c 644 3:4 a"},
		"s*/s*":       {"x 644 0:0 x"},
		"*/sub/[w-y]": {"x 644 0:0 x"},
		"we\\*ird":    {"we*ird 644 0:0 w"},
		"lib/l.so":    {"l.so 644 0:0 l"}, "out/*": {"l.so 644 0:0 l"}, "out": {"./ 755 0:0", "l.so 644 0:0 l"},
		"empty": {"./ 755 0:0"}, "none*": nil, "none/*": nil, "src/a.c/*": nil, "loop/*": nil,
	} {
		s := selectionOf(t, image, source)
		if diff := cmp.Diff(want, selected(t, s)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", source, diff)
		}
		if single := len(want) == 1 && !strings.HasPrefix(want[0], "./") && source != "s*/s*"; s.Single != single || s.Empty != (want == nil) {
			t.Errorf("%s: single %v, empty %v", source, s.Single, s.Empty)
		}
		if s.Single && !strings.HasPrefix(want[0], s.Name()+" ") {
			t.Errorf("%s is called %s", source, s.Name())
		}
	}
	i, err := rootfs.Open(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	for _, source := range []string{"none", "src/none", "src/a.c/x", "src/gone", "loop", "src/[", strings.Repeat("a/", 4000), "a\x00"} {
		if _, err := i.Select(source); !cove.Is(err, cove.Invalid) {
			t.Errorf("%q: %v", source, err)
		}
	}
	if s := selectionOf(t, image, "/"); len(selected(t, s)) != 19 {
		t.Errorf("all of it: %d entries", len(selected(t, s)))
	}
}

func TestSelectionDigest(t *testing.T) {
	digest := func(source string, layer ...entry) string {
		t.Helper()
		image, _ := build(t, rootfs.Limits{}, layer)
		d, err := selectionOf(t, image, source).Digest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	first := digest("d", file("d/a", "a"), file("other", "1"))
	if digest("d", file("d/a", "a").owner(5, 5).mtime(time.Unix(9, 0)), file("other", "2")) != first {
		t.Error("other files, times or owners count")
	}
	seen := map[string]bool{first: true}
	for _, layer := range [][]entry{{file("d/b", "a")}, {file("d/a", "b")}, {file("d/a", "a").mode(0o755)}, {link("d/a", "a")}, {file("d/a", "a"), file("d/b", "")}} {
		d := digest("d", layer...)
		if seen[d] {
			t.Errorf("%v has the digest of another", layer)
		}
		seen[d] = true
	}
}

func TestPlainLayers(t *testing.T) {
	out := filepath.Join(t.TempDir(), "image")
	_, err := rootfs.Build(t.Context(), rootfs.Options{Out: out, Plain: true, Layers: []rootfs.Layer{layerOf(pack(t, []entry{file("a", "a"), file(".wh.a", "b"), file(".wh..wh..opq", "c")}))}})
	if err != nil {
		t.Fatal(err)
	}
	if got := selected(t, selectionOf(t, out, "/")); len(got) != 4 {
		t.Errorf("%v", got)
	}
}

func TestSelectionOfWhatIsDamaged(t *testing.T) {
	image, _ := build(t, rootfs.Limits{}, manySizes())
	ctx, cancel := context.WithCancel(t.Context())
	s := selectionOf(t, image, "/")
	cancel()
	if err := s.Archive(ctx, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	if err := os.Truncate(image, 40<<10); err != nil {
		t.Fatal(err)
	}
	if err := s.Archive(t.Context(), io.Discard); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("err = %v", err)
	}
	if _, err := rootfs.Open(t.Context(), image); err == nil || cove.Is(err, cove.Invalid) {
		t.Errorf("err = %v", err)
	}
}
