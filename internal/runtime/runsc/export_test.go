package runsc_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/runtime"
	"github.com/cove-sandbox/cove/internal/runtime/runsc"
)

// TestExportOfAHole exports a file that is larger than any memory. Whoever reads
// has enough of it after a while, and the sandbox lives.
func TestExportOfAHole(t *testing.T) {
	s := newStand(t)
	spec := s.spec(t, "rthole")
	spec.Args = []string{"/init", "hole"}
	ready, output, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	spec.Output = output
	p, err := s.open(t).Start(t.Context(), spec)
	output.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill(context.Background()) })
	line := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(ready, line); err != nil || string(line) != "ready\n" {
		t.Fatalf("init says %q, %v", line, err)
	}

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	exported := make(chan error, 1)
	go func() {
		defer w.Close()
		exported <- p.Export(t.Context(), spec.Dir, w)
	}()
	in := tar.NewReader(r)
	h, err := in.Next()
	for err == nil && h.Name != "./hole" {
		h, err = in.Next()
	}
	if err != nil {
		t.Fatal(err)
	}
	start := make([]byte, 4<<20)
	_, err = io.ReadFull(in, start)
	if word := bytes.IndexByte(start, 'w'); err != nil || h.Size != 1<<40 || word != 2<<20+3 || string(start[word:word+5]) != "word\x00" {
		t.Errorf("%d bytes, the word at %d, %v", h.Size, word, err)
	}
	r.Close()
	if err := <-exported; err == nil {
		t.Error("a stream that nobody read to its end was written")
	}
	if !lives(t, p) {
		t.Error("it does not go on")
	}
}

// TestExportByAnOlderEngine asks an engine that does not know the order.
func TestExportByAnOlderEngine(t *testing.T) {
	dir := t.TempDir()
	engine := filepath.Join(dir, runsc.EngineFile)
	script := "#!/bin/sh\ncat >/dev/null\necho '{\"Error\": \"unknown order \\\"export\\\"\"}'\nexit 1\n"
	if err := os.WriteFile(engine, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	rt, err := runsc.New(runsc.Config{Engine: engine, StateDir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	disk := os.NewFile(uintptr(fd), "disk")
	defer disk.Close()
	sandbox := exec.Command("sleep", "60")
	sandbox.ExtraFiles = []*os.File{disk}
	if err := sandbox.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := rt.Adopt(t.Context(), runtime.Handle{ID: "rtold", PID: sandbox.Process.Pid})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Export(t.Context(), dir, disk); !cove.Is(err, cove.Unimplemented) {
		t.Errorf("err = %v, want unimplemented", err)
	}
	if err := p.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}
