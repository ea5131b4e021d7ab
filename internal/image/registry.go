package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	cove "github.com/cove-sandbox/cove"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Registry says how registries are asked.
type Registry struct {
	// Credentials returns what to log in to a registry with; nil means
	// anonymously everywhere.
	Credentials func(host string) (user, password string, ok bool)

	// Mirrors are asked before a registry, in their order: by the registry's
	// host, prefixes that stand in for it, such as "mirror.example/hub" or
	// "http://10.0.0.5:5000". Docker Hub's host is "docker.io".
	Mirrors map[string][]string

	// Transport makes the requests; nil: http.DefaultTransport. References
	// come from tenants, so a server hands in one that stays away from its own
	// networks.
	Transport http.RoundTripper

	// CacheDir keeps layers; without it each reading of one is a download.
	CacheDir string

	MaxBytes int64 // of all compressed layers; 0: 16 GiB
}

const defaultMaxBytes = 16 << 30

// FromRegistry finds an image by its reference. The image's layers use ctx of
// their own opening. No such image is NotFound, no access Forbidden, a bad
// reference Invalid and everything else about the registry Unavailable.
func FromRegistry(ctx context.Context, ref string, r Registry) (*Image, error) {
	const op = "image.FromRegistry"
	candidates, err := r.candidates(ref)
	if err != nil {
		return nil, err
	}
	var failures []error
	for _, c := range candidates {
		img, err := r.image(ctx, c)
		if err == nil {
			return img, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w", op, ctx.Err())
		}
		failures = append(failures, err)
	}
	// The registry itself comes last, and its answer is the one that counts.
	last := failures[len(failures)-1]
	cause := errors.Join(failures...)
	if _, ours := errors.AsType[*cove.Error](last); ours {
		return nil, last
	}
	if e, ok := errors.AsType[*transport.Error](last); ok {
		switch e.StatusCode {
		case http.StatusNotFound:
			return nil, cove.E(cove.NotFound, op, cause, "image %q not found", ref)
		case http.StatusUnauthorized, http.StatusForbidden:
			return nil, cove.E(cove.Forbidden, op, cause, "image %q does not exist, or its registry asks for other credentials", ref)
		case http.StatusTooManyRequests:
			return nil, cove.E(cove.Unavailable, op, cause, "the registry of image %q asks to slow down: try again later", ref)
		}
	}
	return nil, cove.E(cove.Unavailable, op, cause, "the registry of image %q cannot be reached", ref)
}

// candidates returns the references to try, mirrors first.
func (r Registry) candidates(ref string) ([]name.Reference, error) {
	origin, err := name.ParseReference(ref)
	if err != nil {
		return nil, cove.E(cove.Invalid, "image.FromRegistry", err, "invalid image reference %q", ref)
	}
	host := origin.Context().RegistryStr()
	if host == name.DefaultRegistry {
		host = "docker.io"
	}
	separator := ":"
	if _, byDigest := origin.(name.Digest); byDigest {
		separator = "@"
	}
	var all []name.Reference
	for _, prefix := range r.Mirrors[host] {
		var opts []name.Option
		if plain, ok := strings.CutPrefix(prefix, "http://"); ok {
			prefix, opts = plain, append(opts, name.Insecure)
		}
		prefix = strings.TrimSuffix(strings.TrimPrefix(prefix, "https://"), "/")
		m, err := name.ParseReference(prefix+"/"+origin.Context().RepositoryStr()+separator+origin.Identifier(), opts...)
		if err != nil {
			return nil, fmt.Errorf("image mirror of %s: %w", host, err)
		}
		all = append(all, m)
	}
	return append(all, origin), nil
}

func (r Registry) options(ctx context.Context, repo name.Repository) []remote.Option {
	opts := []remote.Option{
		remote.WithContext(ctx),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: architecture}),
	}
	if r.Transport != nil {
		opts = append(opts, remote.WithTransport(r.Transport))
	}
	if r.Credentials != nil {
		if user, password, ok := r.Credentials(repo.RegistryStr()); ok {
			opts = append(opts, remote.WithAuth(&authn.Basic{Username: user, Password: password}))
		}
	}
	return opts
}

func (r Registry) image(ctx context.Context, ref name.Reference) (*Image, error) {
	img, err := remote.Image(ref, r.options(ctx, ref.Context())...)
	if err != nil {
		return nil, err
	}
	raw, err := img.RawManifest()
	if err != nil {
		return nil, err
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, invalid(err, "its manifest is not readable")
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	limit := r.MaxBytes
	if limit == 0 {
		limit = defaultMaxBytes
	}
	if manifest.Config.Size > maxDocument {
		return nil, invalid(nil, "its configuration is too long")
	}
	var total int64
	var blobs []blob
	for _, d := range manifest.Layers {
		if err := checkLayer(d); err != nil {
			return nil, err
		}
		if d.Size < 0 || d.Size > limit-total {
			return nil, cove.E(cove.Exhausted, "image.FromRegistry", nil, "the image is too big: more than %d bytes", limit)
		}
		total += d.Size
		blobs = append(blobs, r.blob(ref.Context(), d))
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	return assemble(digest.String(), config, blobs)
}

// blob returns a layer of repo, by way of the cache if there is one.
func (r Registry) blob(repo name.Repository, d v1.Descriptor) blob {
	download := func(ctx context.Context) (io.ReadCloser, error) {
		l, err := remote.Layer(repo.Digest(d.Digest.String()), r.options(ctx, repo)...)
		if err != nil {
			return nil, err
		}
		return l.Compressed() // checks the digest while it is read
	}
	if r.CacheDir == "" {
		return download
	}
	return func(ctx context.Context) (io.ReadCloser, error) {
		file := filepath.Join(r.CacheDir, d.Digest.Algorithm+"-"+d.Digest.Hex)
		if f, err := os.Open(file); err == nil {
			return f, nil
		}
		if err := save(ctx, file, d.Size, download); err != nil {
			return nil, err
		}
		return os.Open(file)
	}
}

// save stores a download of a known size under name, or nothing at all.
func save(ctx context.Context, name string, size int64, download blob) (err error) {
	in, err := download(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".*.partial")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // in vain once it is renamed
	// One byte more than promised shows a blob that is longer.
	n, err := io.Copy(f, io.LimitReader(in, size+1))
	if err == nil && n != size {
		err = invalid(nil, "a layer has another size than its manifest says")
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
