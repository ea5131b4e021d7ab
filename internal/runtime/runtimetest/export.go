package runtimetest

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/runtime"
)

// opaque is the tar record of a directory that hides the image's.
const opaque = "SCHILY.xattr.trusted.overlay.opaque"

// written is the content of the file "new": more than a pipe holds.
func written() string { return strings.Repeat("new\n", 1<<18) }

// Layer writes the writable layer of the suite's sandboxes: a file "new" of 1
// MiB of lines that say so; of the image, the file "gone" was removed, and the
// directory "anew", in which there was a file, removed and made again.
func Layer(to io.Writer) error {
	w := tar.NewWriter(to)
	for _, h := range []tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./new", Typeflag: tar.TypeReg, Mode: 0o640, Size: int64(len(written()))},
		{Name: "./gone", Typeflag: tar.TypeChar},
		{Name: "./anew/", Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: map[string]string{opaque: "y"}},
	} {
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, written()); err != nil {
				return err
			}
		}
	}
	return w.Close()
}

func (p *fakeProcess) Export(ctx context.Context, _ string, to *os.File) error {
	const op = "runtimetest.Export"
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching.Go(func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	})
	defer context.AfterFunc(ctx, func() { _ = to.SetWriteDeadline(time.Unix(1, 0)) })()
	p.exporting(1)
	defer p.exporting(-1)
	err := ctx.Err()
	switch {
	case err != nil:
	case p.host.Layer != nil:
		err = p.host.Layer(p.handle.ID, to)
	default:
		err = Layer(to)
	}
	select {
	case <-p.done:
		return cove.E(cove.NotFound, op, err, "the sandbox has ended")
	default:
	}
	if err != nil && ctx.Err() != nil {
		return cove.E(cove.DeadlineExceeded, op, err, "the sandbox's files were not read in time")
	}
	return err
}

func (p *fakeProcess) exporting(by int) {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	p.exports += by
}

// wantExport exports a sandbox and compares with what Layer says.
func wantExport(t *testing.T, p runtime.Process, spec runtime.Spec) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	exported := make(chan error, 1)
	go func() {
		defer w.Close()
		exported <- p.Export(ctx, spec.Dir, w)
	}()
	files, content, err := list(r)
	r.Close()
	if err := errors.Join(err, <-exported); err != nil {
		t.Fatalf("export: %v", err)
	}
	if h := files["new"]; h.Typeflag != tar.TypeReg || h.Mode != 0o640 || content != written() {
		t.Errorf("what was written: %+v, %d bytes", h, len(content))
	}
	if h := files["gone"]; h.Typeflag != tar.TypeChar || h.Devmajor != 0 || h.Devminor != 0 {
		t.Errorf("what was removed: %+v", h)
	}
	if h := files["anew"]; h.Typeflag != tar.TypeDir || h.PAXRecords[opaque] != "y" {
		t.Errorf("what was removed and made again: %+v", h)
	}
	for _, name := range []string{"init", "anew/old", "dev/null", "proc/self"} {
		if h, ok := files[name]; ok {
			t.Errorf("what is not of the layer: %+v", h)
		}
	}
}

// list reads a tar stream to its end, with the content of the file "new".
func list(r io.Reader) (files map[string]tar.Header, content string, err error) {
	files = map[string]tar.Header{}
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, "", err
		}
		name := path.Clean(h.Name)
		files[name] = *h
		if name == "new" {
			all, err := io.ReadAll(in)
			if err != nil {
				return nil, "", err
			}
			content = string(all)
		}
	}
	_, err = io.Copy(io.Discard, r)
	return files, content, err
}

func exportShows(t *testing.T, b Bench) {
	spec := b.Spec(t, "rtexport")
	p := start(t, b.Open(t), spec)
	wantExport(t, p, spec)
	if !b.Lives(t, p) {
		t.Error("it does not go on after the export")
	}
	adopted, err := b.Open(t).Adopt(t.Context(), p.Handle())
	if err != nil {
		t.Fatalf("adopt: %v", err)
	}
	wantExport(t, adopted, spec)
}

func exportOfStill(t *testing.T, b Bench) {
	spec := b.Spec(t, "rtstill")
	p := start(t, b.Open(t), spec)
	checkpoint(t, p)
	wantExport(t, p, spec)
	if b.Lives(t, p) {
		t.Error("it goes on after the export")
	}
	thaw(t, p)
	if !b.Lives(t, p) {
		t.Error("it does not go on after the thaw")
	}
}

func exportOfRestored(t *testing.T, b Bench) {
	rt := b.Open(t)
	first := b.Spec(t, "rtagain")
	p := start(t, rt, first)
	withMemory, filesOnly := checkpoint(t, p), t.TempDir()
	if err := p.Checkpoint(t.Context(), filesOnly, true); err != nil {
		t.Fatalf("checkpoint: %v", err)
	}
	kill(t, p)
	spec := first
	spec.Dir, spec.Restore = t.TempDir(), withMemory
	p, err := rt.Start(t.Context(), spec)
	if err != nil {
		t.Fatalf("restore: %v", err)
	}
	wantExport(t, p, spec)
	kill(t, p)
	spec.Dir, spec.Restore, spec.FilesOnly = t.TempDir(), filesOnly, true
	wantExport(t, start(t, rt, spec), spec)
}

func exportGivenUp(t *testing.T, b Bench) {
	spec := b.Spec(t, "rtgivenup")
	p := start(t, b.Open(t), spec)
	for name, giveUp := range map[string]func(context.CancelFunc, *os.File){
		"by who asked":     func(cancel context.CancelFunc, _ *os.File) { cancel() },
		"by the reader":    func(_ context.CancelFunc, r *os.File) { r.Close() },
		"before it begins": nil,
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if giveUp == nil {
			cancel()
		}
		exported := make(chan error, 1)
		go func() {
			defer w.Close()
			exported <- p.Export(ctx, spec.Dir, w)
		}()
		if giveUp != nil {
			if _, err := io.ReadFull(r, make([]byte, 1)); err != nil { // it is under way
				t.Fatal(err)
			}
			giveUp(cancel, r)
		}
		select {
		case err := <-exported:
			if err == nil {
				t.Errorf("%s: it succeeded", name)
			}
		case <-time.After(bound):
			t.Fatalf("%s: it does not end", name)
		}
		if !alive(p) || !b.Lives(t, p) {
			t.Errorf("%s: it does not go on", name)
		}
	}
	wantExport(t, p, spec)
}

func exportOfEnded(t *testing.T, b Bench) {
	spec := b.Spec(t, "rtexported")
	p := start(t, b.Open(t), spec)
	kill(t, p)
	_, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := p.Export(t.Context(), spec.Dir, w); !cove.Is(err, cove.NotFound) {
		t.Errorf("err = %v, want not found", err)
	}
}
