package rootfs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cove-sandbox/cove/internal/rootfs"
)

// FuzzBuild feeds arbitrary bytes as layers: a build may refuse them, and what
// it accepts can be read back, which Build itself checks.
func FuzzBuild(f *testing.F) {
	f.Add([]byte{}, []byte("no tar"))
	f.Add(pack(f, []entry{file("a/c", "y"), file("e", "z")}), pack(f, []entry{opaque("./a/"), whiteout("./e"), hard("./a/c", "./e")}))
	f.Fuzz(func(t *testing.T, lower, upper []byte) {
		good := pack(t, []entry{dir("a/"), file("a/b", "x"), link("c", "a"), hard("d", "c/b")})
		for _, layers := range [][]rootfs.Layer{
			{layerOf(lower), layerOf(upper)},
			{layerOf(good), layerOf(upper)},
		} {
			dir := t.TempDir()
			_, err := rootfs.Build(t.Context(), rootfs.Options{
				Out: filepath.Join(dir, "image"), Layers: layers,
				Limits: rootfs.Limits{Entries: 1000, Bytes: 1 << 20, Names: 1 << 16},
			})
			if err != nil {
				wantEmpty(t, dir)
			}
		}
	})
}

// FuzzBase damages a base: a build over it may fail, but not in another way.
func FuzzBase(f *testing.F) {
	f.Add(uint16(0), []byte{0xff}, []byte{})
	f.Add(uint16(64+2*12), []byte{128, 0}, []byte{}) // a directory in itself
	f.Fuzz(func(t *testing.T, at uint16, patch, layer []byte) {
		dir := t.TempDir()
		image := smallImage(t)
		const block = 4096 // the first one is protected by its checksum
		copy(image[min(block+int(at), len(image)):], patch)
		base := filepath.Join(t.TempDir(), "base")
		if err := os.WriteFile(base, image, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := rootfs.Build(t.Context(), rootfs.Options{
			Out: filepath.Join(dir, "image"), Base: base, Layers: []rootfs.Layer{layerOf(layer)},
			Limits: rootfs.Limits{Entries: 1000, Bytes: 1 << 20, Names: 1 << 16},
		})
		if err != nil {
			wantEmpty(t, dir)
		}
	})
}
