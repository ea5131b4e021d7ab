package rootfs_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"path/filepath"
	"syscall"
	"testing"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/rootfs"
	"github.com/google/go-cmp/cmp"
)

var errFull error = syscall.ENOSPC

// changing is a layer that is another one when it is opened again.
func changing(first, then []byte) rootfs.Layer {
	opened := false
	return func(context.Context) (io.ReadCloser, error) {
		data := first
		if opened {
			data = then
		}
		opened = true
		return io.NopCloser(bytes.NewReader(data)), nil
	}
}

func failing(err error) rootfs.Layer {
	return func(context.Context) (io.ReadCloser, error) { return nil, err }
}

func packed(path, data string, mode fs.FileMode) rootfs.File {
	return rootfs.File{Path: path, Mode: mode, Size: int64(len(data)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader([]byte(data))), nil
	}}
}

func TestPack(t *testing.T) {
	out := filepath.Join(t.TempDir(), "image")
	files := []rootfs.File{packed("/envd", "binary", 0o755), packed("/etc/empty", "", 0o600)}
	info, err := rootfs.Pack(t.Context(), out, files)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"envd = binary 0755", "etc/", "etc/empty =  0600"}
	if diff := cmp.Diff(want, show(t, out)); diff != "" {
		t.Errorf("image (-want +got):\n%s", diff)
	}
	again, err := rootfs.Pack(t.Context(), filepath.Join(t.TempDir(), "image"), files)
	if err != nil || again.Digest != info.Digest {
		t.Errorf("packed twice: %q and %q, %v", info.Digest, again.Digest, err)
	}
}

func TestPackRefuses(t *testing.T) {
	short := packed("/a", "abc", 0o644)
	short.Size = 5
	long := packed("/a", "abc", 0o644)
	long.Size = 2
	for name, f := range map[string]rootfs.File{
		"the root": packed("/", "x", 0o644), "a path that leaves": packed("/../x", "x", 0o644),
		"fewer bytes than announced": short, "more bytes than announced": long,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			_, err := rootfs.Pack(t.Context(), filepath.Join(dir, "image"), []rootfs.File{f})
			if !cove.Is(err, cove.Invalid) {
				t.Errorf("got %v", err)
			}
			wantEmpty(t, dir)
		})
	}
}
