package rootfs_test

import (
	"path/filepath"
	"testing"

	"github.com/cove-sandbox/cove/internal/rootfs"
)

// FuzzBuild feeds arbitrary bytes as layers: a build may refuse them, and what
// it accepts can be read back, which Build itself checks.
func FuzzBuild(f *testing.F) {
	f.Add([]byte{}, []byte("no tar"))
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
