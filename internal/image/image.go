// Package image reads container images: from a registry, an OCI layout
// directory, an archive of docker save or of the OCI layout, or a plain tar of
// a file system. What comes out is a configuration and the layers as tar
// streams.
//
// It merges and writes nothing; package rootfs does, and both meet in package
// builder. Images come from strangers: every document has a size limit, every
// digest is checked, and a layer's stream ends with an error if its bytes are
// not the ones the image promised. How much a layer may hold is its reader's
// limit. Engines and the server may import it; it starts no goroutines of its
// own.
package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"runtime"

	cove "github.com/cove-sandbox/cove"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Image is an image that has been found. Its layers are read on demand.
type Image struct {
	Digest  string // "sha256:..." of the manifest; empty if the source has none
	Config  Config
	Layers  []Layer  // lowest first
	DiffIDs []string // digests of the layers' tar streams; empty for a plain tar
}

// Layer opens a layer as an uncompressed tar stream. Reading it to the end
// checks its digest.
type Layer = func(ctx context.Context) (io.ReadCloser, error)

// Config is what an image says about the processes in it.
type Config struct {
	Env        []string // "NAME=value"
	User       string   // name or id, with an optional group after a colon
	Workdir    string
	Entrypoint []string
	Cmd        []string
}

// What an image may be made of.
const (
	maxLayers   = 128
	maxDocument = 4 << 20 // bytes of a manifest, index or configuration
)

// architecture is the one of images that run here.
const architecture = runtime.GOARCH

func invalid(cause error, format string, args ...any) error {
	return cove.E(cove.Invalid, "image", cause, "invalid image: %s", fmt.Sprintf(format, args...))
}

// A blob is a layer as it is stored, perhaps compressed.
type blob func(ctx context.Context) (io.ReadCloser, error)

// assemble makes an Image of a raw configuration and its layers.
func assemble(digest string, rawConfig []byte, blobs []blob) (*Image, error) {
	config, err := v1.ParseConfigFile(bytes.NewReader(rawConfig))
	if err != nil {
		return nil, invalid(err, "its configuration is not readable")
	}
	// An image that does not say is taken at its word by container engines too.
	if config.OS != "" && config.OS != "linux" || config.Architecture != "" && config.Architecture != architecture {
		return nil, invalid(nil, "it is for %s/%s, and this server runs linux/%s", config.OS, config.Architecture, architecture)
	}
	if len(blobs) > maxLayers {
		return nil, invalid(nil, "it has %d layers; %d are the most", len(blobs), maxLayers)
	}
	if len(config.RootFS.DiffIDs) != len(blobs) {
		return nil, invalid(nil, "it has %d layers and %d digests of layers", len(blobs), len(config.RootFS.DiffIDs))
	}
	img := &Image{Digest: digest, Config: Config{
		Env: config.Config.Env, User: config.Config.User, Workdir: config.Config.WorkingDir,
		Entrypoint: config.Config.Entrypoint, Cmd: config.Config.Cmd,
	}}
	for i, b := range blobs {
		id := config.RootFS.DiffIDs[i]
		if id.Algorithm != "sha256" {
			return nil, invalid(nil, "it uses the unknown digest algorithm %q", id.Algorithm)
		}
		img.DiffIDs = append(img.DiffIDs, id.String())
		img.Layers = append(img.Layers, b.layer(id.Hex))
	}
	return img, nil
}

// layer returns the tar stream in b, checked against want, a hash in
// hexadecimal; empty for none.
func (b blob) layer(want string) Layer {
	return func(ctx context.Context) (io.ReadCloser, error) {
		raw, err := b(ctx)
		if err != nil {
			return nil, err
		}
		src := &source{r: raw}
		plain, err := decompress(src)
		if err != nil {
			return nil, errors.Join(err, raw.Close())
		}
		s := &stream{ctx: ctx, src: src, r: plain, close: func() error { return errors.Join(plain.Close(), raw.Close()) }}
		if want != "" {
			s.hash, s.want = sha256.New(), want
		}
		return s, nil
	}
}

// A source remembers whether reading itself went wrong, to tell a broken
// connection from a broken layer.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// A stream ends with its context and, if it has been given a hash, with an
// error if that is not what was read.
type stream struct {
	ctx   context.Context // of the one who opened it; a stream lives no longer
	src   *source         // what r decompresses
	r     io.Reader
	close func() error
	hash  hash.Hash // nil: not checked
	want  string
}

func (s *stream) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF && s.src.err == nil {
		return n, invalid(err, "a layer is damaged")
	}
	if s.hash == nil {
		return n, err
	}
	s.hash.Write(p[:n])
	if err == io.EOF && hex.EncodeToString(s.hash.Sum(nil)) != s.want {
		return n, invalid(nil, "a layer is damaged: its digest is not the one the image names")
	}
	return n, err
}

func (s *stream) Close() error { return s.close() }

// readDocument reads a small file of an image and checks its digest, unless
// want is the zero Hash.
func readDocument(r io.Reader, what string, want v1.Hash) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	if len(data) > maxDocument {
		return nil, invalid(nil, "its %s is too long", what)
	}
	if sum := sha256.Sum256(data); want != (v1.Hash{}) && hex.EncodeToString(sum[:]) != want.Hex {
		return nil, invalid(nil, "its %s is damaged", what)
	}
	return data, nil
}

// pick chooses the manifest for this machine from an index.
func pick(index *v1.IndexManifest) (v1.Descriptor, error) {
	var plain []v1.Descriptor // of images that do not say what they are for
	for _, d := range index.Manifests {
		switch {
		case !d.MediaType.IsImage() && !d.MediaType.IsIndex():
		case d.Platform == nil:
			plain = append(plain, d)
		case d.Platform.OS == "linux" && d.Platform.Architecture == architecture:
			return d, nil
		}
	}
	switch len(plain) {
	case 0:
		return v1.Descriptor{}, invalid(nil, "it has nothing for linux/%s", architecture)
	case 1:
		return plain[0], nil
	}
	return v1.Descriptor{}, invalid(nil, "there are %d images in it, and nothing says which one is meant", len(plain))
}
