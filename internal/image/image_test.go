package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/image"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// tarOf returns an archive with one file.
func tarOf(t *testing.T, name, data string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// testImage is an image for this machine with a gzip and a zstd layer.
func testImage(t *testing.T, arch string) v1.Image {
	t.Helper()
	layers := []struct {
		data []byte
		opts []tarball.LayerOption
	}{
		{tarOf(t, "lower", "1"), nil},
		{tarOf(t, "upper", "2"), []tarball.LayerOption{tarball.WithCompression("zstd"), tarball.WithMediaType(types.OCILayerZStd)}},
	}
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	for _, l := range layers {
		opener := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(l.data)), nil }
		layer, err := tarball.LayerFromOpener(opener, l.opts...)
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	config.Config = v1.Config{
		Env: []string{"A=b"}, User: "app:app", WorkingDir: "/srv", Entrypoint: []string{"/init"}, Cmd: []string{"run"},
	}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

var wantConfig = image.Config{
	Env: []string{"A=b"}, User: "app:app", Workdir: "/srv", Entrypoint: []string{"/init"}, Cmd: []string{"run"},
}

// wantImage checks img against testImage. Each layer is read twice, as a build
// does.
func wantImage(t *testing.T, img *image.Image, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantConfig, img.Config); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	want := [][]byte{tarOf(t, "lower", "1"), tarOf(t, "upper", "2")}
	for range 2 {
		if diff := cmp.Diff(want, read(t, img)); diff != "" {
			t.Errorf("layers (-want +got):\n%s", diff)
		}
	}
}

func read(t *testing.T, img *image.Image) (layers [][]byte) {
	t.Helper()
	for _, open := range img.Layers {
		data, err := readLayer(t.Context(), open)
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, data)
	}
	return layers
}

func readLayer(ctx context.Context, open image.Layer) ([]byte, error) {
	r, err := open(ctx)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// index wraps images for several machines; what comes last is an attestation.
func index(t *testing.T) v1.ImageIndex {
	t.Helper()
	add := func(arch, os string) mutate.IndexAddendum {
		return mutate.IndexAddendum{Add: testImage(t, arch), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: os, Architecture: arch}}}
	}
	return mutate.AppendManifests(empty.Index, add("mips", "linux"), add(runtime.GOARCH, "linux"), add("unknown", "unknown"))
}

func writeLayout(t *testing.T, ii v1.ImageIndex) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := layout.Write(dir, ii); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestLayout(t *testing.T) {
	one := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: testImage(t, runtime.GOARCH)})
	tests := map[string]v1.ImageIndex{
		"one image":                   one,
		"for several machines":        index(t),
		"an index in an index":        mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index(t)}),
		"an image that is for anyone": mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: testImage(t, "")}),
	}
	for name, ii := range tests {
		t.Run(name, func(t *testing.T) {
			img, err := image.FromLayout(t.Context(), writeLayout(t, ii), "")
			wantImage(t, img, err)
			if !strings.HasPrefix(img.Digest, "sha256:") {
				t.Errorf("digest %q", img.Digest)
			}
		})
	}
}

func TestLayoutByName(t *testing.T) {
	named := func(ref string) mutate.IndexAddendum {
		return mutate.IndexAddendum{Add: testImage(t, runtime.GOARCH), Descriptor: v1.Descriptor{
			Annotations: map[string]string{"org.opencontainers.image.ref.name": ref}}}
	}
	dir := writeLayout(t, mutate.AppendManifests(empty.Index, named("a"), named("b")))
	img, err := image.FromLayout(t.Context(), dir, "b")
	wantImage(t, img, err)
	if _, err := image.FromLayout(t.Context(), dir, "c"); !cove.Is(err, cove.NotFound) {
		t.Errorf("an unknown name: %v", err)
	}
	if _, err := image.FromLayout(t.Context(), dir, ""); !cove.Is(err, cove.Invalid) {
		t.Errorf("no name: %v", err)
	}
}

func TestLayoutRefused(t *testing.T) {
	blobs := func(t *testing.T, dir string, f func(path string, data []byte)) {
		found, err := filepath.Glob(filepath.Join(dir, "blobs/sha256/*"))
		if err != nil || len(found) == 0 {
			t.Fatalf("no blobs: %v", err)
		}
		for _, p := range found {
			data, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			f(p, data)
		}
	}
	write := func(t *testing.T, p string, data []byte) {
		if err := os.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]func(t *testing.T, dir string){
		"no index": func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "index.json")) },
		"index that is no JSON": func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "index.json"), []byte("no"))
		},
		"endless index": func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "index.json"), bytes.Repeat([]byte(" "), 5<<20))
		},
		"index that leads out": func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "index.json"), []byte(`{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:../../../../etc/passwd","size":1}]}`))
		},
		"documents with other bytes": func(t *testing.T, dir string) {
			blobs(t, dir, func(p string, data []byte) {
				if data[0] == '{' {
					write(t, p, append(data, ' '))
				}
			})
		},
		"layer with other bytes": func(t *testing.T, dir string) {
			blobs(t, dir, func(p string, data []byte) {
				if data[0] != '{' {
					write(t, p, tarOf(t, "lower", "evil"))
				}
			})
		},
		"layer that is cut off": func(t *testing.T, dir string) {
			blobs(t, dir, func(p string, data []byte) {
				if data[0] != '{' {
					write(t, p, data[:len(data)/2])
				}
			})
		},
	}
	for name, damage := range tests {
		t.Run(name, func(t *testing.T) {
			dir := writeLayout(t, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: testImage(t, runtime.GOARCH)}))
			damage(t, dir)
			img, err := image.FromLayout(t.Context(), dir, "")
			if err == nil {
				_, err = readLayer(t.Context(), img.Layers[0])
			}
			if !cove.Is(err, cove.Invalid) {
				t.Errorf("got %v", err)
			}
		})
	}
	_, err := image.FromLayout(t.Context(), writeLayout(t, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: testImage(t, "mips")})), "")
	if !cove.Is(err, cove.Invalid) {
		t.Errorf("an image for another machine: %v", err)
	}
}

func TestFileDocker(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image.tar")
	one, two := name.MustParseReference("example.com/one:v1"), name.MustParseReference("two")
	if err := tarball.WriteToFile(file, one, testImage(t, runtime.GOARCH)); err != nil {
		t.Fatal(err)
	}
	img, err := image.FromFile(t.Context(), file, "")
	wantImage(t, img, err)

	if err := tarball.MultiRefWriteToFile(file, map[name.Reference]v1.Image{one: testImage(t, runtime.GOARCH), two: testImage(t, "")}); err != nil {
		t.Fatal(err)
	}
	img, err = image.FromFile(t.Context(), file, "example.com/one:v1")
	wantImage(t, img, err)
	if _, err := image.FromFile(t.Context(), file, "three"); !cove.Is(err, cove.NotFound) {
		t.Errorf("an unknown name: %v", err)
	}
	if _, err := image.FromFile(t.Context(), file, ""); !cove.Is(err, cove.Invalid) {
		t.Errorf("no name: %v", err)
	}
}

func TestFileLayout(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	if err := w.AddFS(os.DirFS(writeLayout(t, index(t)))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := image.FromFile(t.Context(), file, "")
	wantImage(t, img, err)

	packed := filepath.Join(t.TempDir(), "image.tar.gz")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(packed, zip(t, data), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := image.FromFile(t.Context(), packed, ""); !cove.Is(err, cove.Invalid) || !strings.Contains(fmt.Sprint(err), "decompress it first") {
		t.Errorf("compressed: %v", err)
	}
}

// TestFileDockerLinks: old versions of docker save link to layers they have
// written before, and a hostile archive links to itself or elsewhere.
func TestFileDockerLinks(t *testing.T) {
	layer := tarOf(t, "lower", "1")
	id, _, err := v1.SHA256(bytes.NewReader(layer))
	if err != nil {
		t.Fatal(err)
	}
	for target, ok := range map[string]bool{"../a/layer.tar": true, "layer.tar": false, "../../../../etc/passwd": false} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, f := range []struct{ name, data string }{
			{"manifest.json", `[{"Config":"c.json","Layers":["b/layer.tar"]}]`},
			{"c.json", `{"rootfs":{"type":"layers","diff_ids":["` + id.String() + `"]}}`},
			{"a/layer.tar", string(layer)},
		} {
			if err := w.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.data)), Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, f.data); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "b/layer.tar", Linkname: target}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "image.tar")
		if err := os.WriteFile(file, buf.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		img, err := image.FromFile(t.Context(), file, "")
		if err == nil {
			_, err = readLayer(t.Context(), img.Layers[0])
		}
		if (err == nil) != ok {
			t.Errorf("a link to %s: %v", target, err)
		}
	}
}

func zip(t *testing.T, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestFileSystem(t *testing.T) {
	plain := tarOf(t, "etc/hostname", "x")
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"plain": plain, "gzip": zip(t, plain), "zstd": z.EncodeAll(plain, nil)} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "rootfs.tar")
			if err := os.WriteFile(file, data, 0o644); err != nil {
				t.Fatal(err)
			}
			img, err := image.FromFile(t.Context(), file, "")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([][]byte{plain}, read(t, img)); diff != "" {
				t.Errorf("layers (-want +got):\n%s", diff)
			}
			if _, err := image.FromFile(t.Context(), file, "name"); !cove.Is(err, cove.NotFound) {
				t.Errorf("by name: %v", err)
			}
		})
	}
	if _, err := image.FromFile(t.Context(), filepath.Join(t.TempDir(), "none"), ""); err == nil {
		t.Error("a file that does not exist was read")
	}
}

func TestLayerStopsWithContext(t *testing.T) {
	dir := writeLayout(t, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: testImage(t, runtime.GOARCH)}))
	img, err := image.FromLayout(t.Context(), dir, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := img.Layers[0](ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cancel()
	if _, err := r.Read(make([]byte, 1)); err != context.Canceled {
		t.Errorf("got %v", err)
	}
}
