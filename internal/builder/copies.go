package builder

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder/plan"
	"github.com/cove-sandbox/cove/internal/rootfs"
)

// buildContext makes a root file system of the uploaded build context, so that
// what is copied from there is looked for and read as in all others. Empty:
// there is no context.
func (j *job) buildContext(ctx context.Context) (cove.BuildID, error) {
	hash := j.Order.Dockerfile.Context
	if hash == "" {
		return "", nil
	}
	archive, size, err := j.t.cfg.Files.Open(ctx, j.Team, hash)
	if cove.Is(err, cove.NotFound) {
		return "", cove.E(cove.Invalid, "builder.buildContext", err, "the build context was not uploaded")
	}
	if err != nil {
		return "", err
	}
	archive.Close() // it counts as used
	key := plan.Key("context", rootFormat, string(j.Team), hash, strconv.FormatInt(size, 10))
	root, err := j.findRoot(ctx, key)
	if !cove.Is(err, cove.NotFound) {
		return root, err
	}
	j.info(cove.BaseStep, "[base] Reading the build context (%d KiB)", (size+1023)>>10)
	open := func(ctx context.Context) (io.ReadCloser, error) {
		archive, _, err := j.t.cfg.Files.Open(ctx, j.Team, hash)
		if err != nil {
			return nil, err
		}
		return uncompressed(archive)
	}
	root, err = j.newRoot(ctx, key, rootfs.Options{Plain: true, Layers: []rootfs.Layer{open}, Limits: rootfs.Limits{Bytes: MaxUpload}})
	if err != nil && ctx.Err() == nil {
		err = cove.E(cove.KindOf(err), "builder.buildContext", err, "the build context cannot be read: %s", said(err))
	}
	return root, err
}

// uncompressed returns what is in an archive that may be compressed with gzip.
func uncompressed(archive io.ReadCloser) (io.ReadCloser, error) {
	in := bufio.NewReader(archive)
	if magic, err := in.Peek(2); err != nil || magic[0] != 0x1f || magic[1] != 0x8b {
		return readCloser{in, archive}, nil
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, errors.Join(cove.E(cove.Invalid, "builder.uncompressed", err, "the archive is damaged"), archive.Close())
	}
	return readCloser{z, archive}, nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

// sourceKey names what a step copies. Of the context that is the content of just
// these files, so that a change of others has nothing done again; of a stage or
// an image it is all that led to it, because the files are not there yet.
func (j *job) sourceKey(ctx context.Context, s plan.Step) (string, error) {
	switch {
	case s.Source.Stage >= 0:
		return j.stages.jobs[s.Source.Stage].plan.Files, nil
	case s.Source.Image != "":
		return j.stages.images[s.Source.Image].key, nil
	}
	source := s.Args[0]
	if d, ok := j.stages.digests[source]; ok {
		return d, nil
	}
	selected, err := j.stages.opened.Select(source)
	if err != nil {
		return "", err
	}
	digest, err := selected.Digest(ctx)
	j.stages.digests[source] = digest
	return digest, err
}

// image returns the file of a root file system.
func (j *job) image(root cove.BuildID) string {
	return filepath.Join(j.t.cfg.Roots.Dir(root), RootfsFile)
}

// sourceRoot returns the root file system that a step copies from.
func (j *job) sourceRoot(s *plan.Source) cove.BuildID {
	switch {
	case s.Stage >= 0:
		return j.stages.jobs[s.Stage].root
	case s.Image != "":
		return j.stages.images[s.Image].root
	}
	return j.stages.context
}

// bare reports whether the job begins with nothing, in which no command of ours
// can be counted on.
func (j *job) bare() bool { return j.origin != nil && j.origin.bare }

// copy carries out a step that copies files.
func (j *job) copy(ctx context.Context, s plan.Step) error {
	order := CopyOrder{Source: s.Args[0], Dest: s.Args[1], Workdir: s.Dir(), User: s.User}
	if len(s.Args) > 2 && (s.Args[2] != "" || s.Line > 0) {
		// Without an owner, files of another stage keep theirs.
		order.User, order.KeepOwners = s.Args[2], s.Args[2] == ""
	}
	if len(s.Args) > 3 {
		order.Mode = s.Args[3]
	}
	switch {
	case s.Content != nil:
		return j.copyInline(ctx, s, order)
	case s.Source != nil:
		return j.copySelected(ctx, s, order)
	}
	archive, size, err := j.t.cfg.Files.Open(ctx, j.Team, s.FilesHash)
	if cove.Is(err, cove.NotFound) {
		return cove.E(cove.Invalid, "builder.copy", err, "the files of COPY %s were not uploaded", s.Args[0])
	}
	if err != nil {
		return err
	}
	defer archive.Close()
	return j.send(ctx, order, archive, size, s)
}

// send has the daemon unpack an archive.
func (j *job) send(ctx context.Context, order CopyOrder, archive io.Reader, size int64, s plan.Step) error {
	err := j.sb.daemon.Copy(ctx, order, archive, size)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errors.Join(err, context.Cause(ctx))
	}
	return cove.E(cove.KindOf(err), "builder.copy", err, "failed to copy '%s' to '%s': %s", s.Args[0], s.Args[1], words(err))
}

// copyInline copies a file whose content stands in the Dockerfile.
func (j *job) copyInline(ctx context.Context, s plan.Step, order CopyOrder) error {
	name := path.Base(path.Clean("/" + s.Args[0]))
	archive, err := layer([]file{{Path: name, Mode: 0o644, Text: string(s.Content)}})
	if err != nil {
		return err
	}
	order.Source = escaped(name)
	return j.send(ctx, order, bytes.NewReader(archive), int64(len(archive)), s)
}

// copySelected copies files of the build context, a stage or an image.
func (j *job) copySelected(ctx context.Context, s plan.Step, order CopyOrder) error {
	image, err := rootfs.Open(ctx, j.image(j.sourceRoot(s.Source)))
	if err != nil {
		return err
	}
	defer image.Close()
	selected, err := image.Select(s.Args[0])
	if err != nil {
		return cove.E(cove.KindOf(err), "builder.copy", err, "failed to copy '%s' to '%s': %s", s.Args[0], s.Args[1], said(err))
	}
	if selected.Empty {
		j.warn(strconv.Itoa(s.Number), "%s nothing matches '%s'", s.Label, s.Args[0])
		return nil
	}
	order.Source = "."
	if selected.Single {
		order.Source = escaped(selected.Name())
	}
	// The daemon is told how long the archive is, so that it sees if it was cut.
	f, err := j.t.cfg.Roots.tempFile()
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := selected.Archive(ctx, f); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return j.send(ctx, order, f, size, s)
}

// escaped returns a name that the daemon does not take for a pattern.
func escaped(name string) string {
	var out strings.Builder
	for i := range len(name) {
		if strings.IndexByte(`*?[]{},\`, name[i]) >= 0 {
			out.WriteByte('\\')
		}
		out.WriteByte(name[i])
	}
	return out.String()
}

// makeDir carries out WORKDIR where there is no shell to do it.
func (j *job) makeDir(ctx context.Context, s plan.Step) error {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755, ModTime: j.t.cfg.Now()}), w.Close()); err != nil {
		return err
	}
	order := CopyOrder{Source: ".", Dest: s.Args[0], User: s.User}
	if order.User == "root" {
		order.User = "" // who has this name need not be on record
	}
	if err := j.sb.daemon.Copy(ctx, order, &buf, int64(buf.Len())); err != nil {
		if ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		return cove.E(cove.KindOf(err), "builder.makeDir", err, "failed to make the directory '%s': %s", s.Args[0], words(err))
	}
	return nil
}
