package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	cove "github.com/cove-sandbox/cove"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// dockerFile is the table of contents of what docker save writes.
const dockerFile = "manifest.json"

// maxArchiveFiles is how many entries of a tar are looked at to see what it
// is; an archive of an image has far fewer.
const maxArchiveFiles = 10_000

// FromFile reads an image from a tar file: an archive of docker save or of an
// OCI layout, or else a file system, compressed or not. ref selects an image
// by its name if there are several; it may be empty.
func FromFile(ctx context.Context, name, ref string) (*Image, error) {
	const op = "image.FromFile"
	a := &archive{name: name, entries: make(map[string]section)}
	kind, err := a.scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	switch kind {
	case dockerFile:
		return a.docker(ref)
	case layoutFile:
		return fromLayout(ctx, a, ref)
	}
	if ref != "" {
		return nil, cove.E(cove.NotFound, op, nil, "image %q not found: the file is not an archive of images", ref)
	}
	open := blob(func(context.Context) (io.ReadCloser, error) { return os.Open(name) })
	return &Image{Layers: []Layer{open.layer("")}}, nil
}

// An archive is a tar file whose entries are read in place.
type archive struct {
	name    string
	entries map[string]section
}

type section struct {
	offset, size int64
	link         string // another entry; old versions of docker share layers so
}

// scan looks at the entries and says what the archive is: dockerFile,
// layoutFile or "". docker save writes both tables since its version 25, and
// the OCI layout knows more.
func (a *archive) scan(ctx context.Context) (kind string, err error) {
	f, err := os.Open(a.name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	head := make([]byte, len(zstdMagic))
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return "", err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	if compressed(head[:n]) {
		return "", a.refuseCompressed(ctx, f)
	}
	r := tar.NewReader(f)
	for range maxArchiveFiles {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return "", tarError(err)
		}
		// The reader takes exactly the headers and seeks over contents.
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return "", err
		}
		s := section{offset: at, size: h.Size}
		if h.Typeflag == tar.TypeSymlink || h.Typeflag == tar.TypeLink {
			s.link = h.Linkname
			if h.Typeflag == tar.TypeSymlink {
				s.link = path.Join(path.Dir(h.Name), h.Linkname)
			}
		} else if h.Typeflag != tar.TypeReg {
			continue
		}
		a.entries[path.Clean(h.Name)] = s
	}
	for _, kind := range []string{layoutFile, dockerFile} {
		if _, ok := a.entries[kind]; ok {
			return kind, nil
		}
	}
	return "", nil
}

// refuseCompressed tells a compressed archive of images, which cannot be read
// in place, from a compressed file system, which can be read as it is.
func (a *archive) refuseCompressed(ctx context.Context, f io.Reader) error {
	plain, err := decompress(f)
	if err != nil {
		return err
	}
	defer plain.Close()
	r := tar.NewReader(plain)
	for range maxArchiveFiles {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return tarError(err)
		}
		switch path.Clean(h.Name) {
		case dockerFile, layoutFile:
			return invalid(nil, "it is a compressed archive of images: decompress it first")
		}
		if strings.Count(path.Clean(h.Name), "/") > 2 {
			return nil // deeper than any archive of images
		}
	}
	return nil
}

func tarError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrFieldTooLong) {
		return invalid(err, "it is not a complete tar archive")
	}
	return err
}

// open opens an entry, following one link.
func (a *archive) open(name string) (io.ReadCloser, error) {
	s, ok := a.entries[path.Clean(name)]
	if ok && s.link != "" {
		s, ok = a.entries[path.Clean(s.link)]
	}
	if !ok || s.link != "" {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	f, err := os.Open(a.name)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, s.offset, s.size), f}, nil
}

// dockerImage is an element of docker save's table.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (a *archive) docker(ref string) (*Image, error) {
	data, err := readFrom(a, dockerFile, "table of contents", v1.Hash{})
	if err != nil {
		return nil, err
	}
	var images []dockerImage
	if err := json.Unmarshal(data, &images); err != nil {
		return nil, invalid(err, "its table of contents is not readable")
	}
	chosen, err := chooseDocker(images, ref)
	if err != nil {
		return nil, err
	}
	config, err := readFrom(a, chosen.Config, "configuration", v1.Hash{})
	if err != nil {
		return nil, err
	}
	var blobs []blob
	for _, name := range chosen.Layers {
		blobs = append(blobs, func(context.Context) (io.ReadCloser, error) { return a.open(name) })
	}
	return assemble("", config, blobs)
}

func chooseDocker(images []dockerImage, ref string) (dockerImage, error) {
	if ref == "" {
		if len(images) != 1 {
			return dockerImage{}, invalid(nil, "there are %d images in it, and nothing says which one is meant", len(images))
		}
		return images[0], nil
	}
	for _, img := range images {
		for _, tag := range img.RepoTags {
			if tag == ref || tag == ref+":latest" {
				return img, nil
			}
		}
	}
	return dockerImage{}, cove.E(cove.NotFound, "image.FromFile", nil, "image %q not found", ref)
}
