package engine_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cove-sandbox/cove/internal/runtime/runsc/engine"
)

// description is what a checkpoint has in place of a file's content.
func description(numbers ...uint64) string {
	var b []byte
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return string(b)
}

// names makes the tar stream of a checkpoint.
func names(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.Linkname
		if h.Typeflag == tar.TypeReg {
			h.Linkname, h.Size = "", int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.WriteString(w, content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// file is a regular file; names puts its description where its content belongs.
func file(name string, numbers ...uint64) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Linkname: description(numbers...)}
}

func TestLayerHasContents(t *testing.T) {
	disk := strings.Repeat("-", 4096) + "first" + strings.Repeat("-", 4091) + "second" + strings.Repeat("-", 4090)
	in := names(t,
		tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "./new/", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.opaque": "y"}},
		file("./empty", 0),
		file("./hole", 5),
		file("./one", 5, 0, 4096, 4096),
		file("./two", 4096+7, 0, 4096, 4096, 4096, 8192, 8192),
		file("./late", 8192, 4096, 8192, 8192),
		file("./room", 5, 0, 4096, 4096, 8192, 12288, 0), // asked for beyond its end
		tar.Header{Name: "./link", Typeflag: tar.TypeLink, Linkname: "./one"},
		tar.Header{Name: "./sym", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
		tar.Header{Name: "./gone", Typeflag: tar.TypeChar},
		tar.Header{Name: "./" + strings.Repeat("long", 100), Typeflag: tar.TypeFifo},
	)
	var out bytes.Buffer
	if err := engine.CopyLayer(&out, bytes.NewReader(append(in, make([]byte, 8192)...)), strings.NewReader(disk)); err != nil {
		t.Fatal(err)
	}
	got, kinds := map[string]string{}, ""
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil || int64(len(content)) != h.Size {
			t.Errorf("%s: %d bytes of %d, %v", h.Name, len(content), h.Size, err)
		}
		kinds += string(h.Typeflag)
		switch h.Typeflag {
		case tar.TypeReg:
			got[h.Name] = string(content)
		case tar.TypeLink, tar.TypeSymlink:
			got[h.Name] = h.Linkname
		default:
			got[h.Name] = h.PAXRecords["SCHILY.xattr.trusted.overlay.opaque"]
		}
	}
	want := map[string]string{
		"./": "", "./new/": "y", "./empty": "", "./hole": strings.Repeat("\x00", 5), "./one": "first", "./two": disk[4096:8192] + "second-",
		"./late": strings.Repeat("\x00", 4096) + disk[8192:], "./room": "first", "./link": "./one", "./sym": "/etc/passwd", "./gone": "",
		"./" + strings.Repeat("long", 100): "",
	}
	if diff := cmp.Diff(want, got); diff != "" || kinds != "550000001236" {
		t.Errorf("kinds %s; -want +got:\n%s", kinds, diff)
	}
}

// TestLayerThatLies gives descriptions that no sound engine writes.
func TestLayerThatLies(t *testing.T) {
	disk := strings.Repeat("-", 8192)
	for name, in := range map[string][]byte{
		"no size":                 names(t, tar.Header{Name: "./f", Typeflag: tar.TypeReg, Linkname: "abc"}),
		"half a piece":            names(t, file("./f", 4096, 0, 4096)),
		"a size without a sign":   names(t, file("./f", math.MaxUint64)),
		"a piece backwards":       names(t, file("./f", 4096, 4096, 0, 0)),
		"a piece of nothing":      names(t, file("./f", 4096, 0, 0, 0)),
		"pieces out of order":     names(t, file("./f", 8192, 4096, 8192, 0, 0, 4096, 4096)),
		"pieces over each other":  names(t, file("./f", 8192, 0, 8192, 0, 4096, 8192, 0)),
		"a piece beyond the disk": names(t, file("./f", 4096, 0, 4096, 8192)),
		"a piece before the disk": names(t, file("./f", 4096, 0, 4096, math.MaxUint64)),
		"a piece at the very end": names(t, file("./f", 4096, 0, 4096, math.MaxInt64)),
		"a stream cut short":      names(t, file("./f", 4096, 0, 4096, 0))[:512+16],
		"no tar":                  []byte(strings.Repeat("no tar at all", 100)),
	} {
		if err := engine.CopyLayer(io.Discard, bytes.NewReader(in), strings.NewReader(disk)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// full takes so many bytes.
type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestLayerWithAHoleThatNobodyHasRoomFor(t *testing.T) {
	in := names(t, file("./f", math.MaxInt64))
	if err := engine.CopyLayer(&full{64 << 20}, bytes.NewReader(in), strings.NewReader("")); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("err = %v", err)
	}
}
