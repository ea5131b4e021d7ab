package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	cove "github.com/cove-sandbox/cove"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// maxIndexDepth is how many indexes may stand above a manifest.
const maxIndexDepth = 4

// Files of an OCI layout, from the OCI image specification (image-layout.md).
const (
	layoutFile = "oci-layout"
	indexFile  = "index.json"
	refKey     = "org.opencontainers.image.ref.name"
)

// A files opens files of a layout by their slash-separated names.
type files interface {
	open(name string) (io.ReadCloser, error)
}

// FromLayout reads an OCI layout directory. ref selects an image by its name
// in the index, if there are several; it may be empty.
func FromLayout(ctx context.Context, dir, ref string) (*Image, error) {
	return fromLayout(ctx, dirFiles(dir), ref)
}

// dirFiles are the files below a directory; links cannot lead out of it.
type dirFiles string

func (d dirFiles) open(name string) (io.ReadCloser, error) {
	root, err := os.OpenRoot(string(d))
	if err != nil {
		return nil, err
	}
	f, err := root.Open(name)
	return f, errors.Join(err, root.Close())
}

func fromLayout(ctx context.Context, in files, ref string) (*Image, error) {
	index, err := readIndex(in, indexFile, v1.Hash{})
	if err != nil {
		return nil, err
	}
	if ref != "" {
		named := index.Manifests[:0:0]
		for _, d := range index.Manifests {
			if d.Annotations[refKey] == ref {
				named = append(named, d)
			}
		}
		if len(named) == 0 {
			return nil, cove.E(cove.NotFound, "image.FromLayout", nil, "image %q not found", ref)
		}
		index.Manifests = named
	}
	for range maxIndexDepth {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d, err := pick(index)
		if err != nil {
			return nil, err
		}
		name, err := blobName(d.Digest)
		if err != nil {
			return nil, err
		}
		if d.MediaType.IsImage() {
			return fromManifest(in, name, d.Digest)
		}
		if index, err = readIndex(in, name, d.Digest); err != nil {
			return nil, err
		}
	}
	return nil, invalid(nil, "its indexes are nested too deeply")
}

func readIndex(in files, name string, want v1.Hash) (*v1.IndexManifest, error) {
	data, err := readFrom(in, name, "index", want)
	if err != nil {
		return nil, err
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(data))
	if err != nil {
		return nil, invalid(err, "its index is not readable")
	}
	return index, nil
}

func fromManifest(in files, name string, digest v1.Hash) (*Image, error) {
	data, err := readFrom(in, name, "manifest", digest)
	if err != nil {
		return nil, err
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(data))
	if err != nil {
		return nil, invalid(err, "its manifest is not readable")
	}
	if name, err = blobName(manifest.Config.Digest); err != nil {
		return nil, err
	}
	config, err := readFrom(in, name, "configuration", manifest.Config.Digest)
	if err != nil {
		return nil, err
	}
	var blobs []blob
	for _, d := range manifest.Layers {
		if err := checkLayer(d); err != nil {
			return nil, err
		}
		name, err := blobName(d.Digest)
		if err != nil {
			return nil, err
		}
		blobs = append(blobs, func(context.Context) (io.ReadCloser, error) { return in.open(name) })
	}
	return assemble(digest.String(), config, blobs)
}

// checkLayer refuses what is not a file system, such as signatures and models
// that are kept in registries too.
func checkLayer(d v1.Descriptor) error {
	if !d.MediaType.IsLayer() {
		return invalid(nil, "it has a layer of the type %q, which is no file system", d.MediaType)
	}
	return nil
}

func blobName(h v1.Hash) (string, error) {
	// v1.Hash has only let hexadecimal digits through when it was parsed.
	if h.Algorithm != "sha256" {
		return "", invalid(nil, "it uses the unknown digest algorithm %q", h.Algorithm)
	}
	return "blobs/sha256/" + h.Hex, nil
}

func readFrom(in files, name, what string, want v1.Hash) ([]byte, error) {
	f, err := in.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, invalid(err, "its %s is missing", what)
	}
	if err != nil {
		return nil, fmt.Errorf("open the image's %s: %w", what, err)
	}
	data, err := readDocument(f, what, want)
	return data, errors.Join(err, f.Close())
}
