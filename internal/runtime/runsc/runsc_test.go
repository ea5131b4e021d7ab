package runsc_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/erofs/go-erofs"

	"github.com/cove-sandbox/cove/internal/runtime"
	"github.com/cove-sandbox/cove/internal/runtime/runsc"
	"github.com/cove-sandbox/cove/internal/runtime/runtimetest"
	"github.com/cove-sandbox/cove/test/binaries"
)

// stand is where the tests boot real sandboxes.
type stand struct {
	engine, image, state string
}

func newStand(t *testing.T) stand {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("booting gVisor needs root")
	}
	engine := filepath.Join(binaries.Dir(t, "cove-runsc"), "cove-runsc")
	state, err := os.MkdirTemp("", "cv") // short: sockets live here
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	return stand{engine: engine, image: buildImage(t), state: state}
}

// buildImage makes a root file system with one static program, /init.
func buildImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "init")
	cmd := exec.Command("go", "build", "-o", program, "./testdata/init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building init: %v\n%s", err, out)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "root.erofs")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := erofs.Create(out)
	for _, d := range []string{"/proc", "/sys", "/dev", "/tmp", "/image", "/anew"} {
		if err := w.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"/init", "/gone", "/anew/old"} {
		// Whole blocks: the engine maps only files that are laid out plainly.
		whole := make([]byte, 4096)
		if name == "/init" {
			whole = append(content, make([]byte, 4096-len(content)%4096)...)
		}
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(whole); err != nil {
			t.Fatal(err)
		}
		if err := f.Chmod(0o755); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s stand) open(t *testing.T) runtime.Runtime {
	t.Helper()
	rt, err := runsc.New(runsc.Config{Engine: s.engine, StateDir: s.state, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

func (s stand) spec(t *testing.T, id string) runtime.Spec {
	t.Helper()
	return runtime.Spec{
		ID: id, Dir: t.TempDir(), Rootfs: s.image, Args: []string{"/init"}, Hostname: "cove",
		Images: []runtime.Image{{Source: s.image, Destination: "/image"}},
		CPUs:   1, MemoryBytes: 256 << 20, DiskBytes: 32 << 20,
	}
}

// left lists processes and sockets of a sandbox.
func (s stand) left(t *testing.T, id string) []string {
	t.Helper()
	var left []string
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		line, err := os.ReadFile(path)
		if err == nil && bytes.HasPrefix(line, []byte("runsc")) && bytes.HasSuffix(line, []byte("\x00"+id+"\x00")) {
			left = append(left, path)
		}
	}
	sockets, _ := filepath.Glob(filepath.Join(s.state, "*"+id+"*"))
	return append(left, sockets...)
}

func TestSuite(t *testing.T) {
	s := newStand(t)
	runtimetest.Run(t, runtimetest.Bench{
		Open:  s.open,
		Lives: lives,
		Spec:  s.spec,
		Broken: func(t *testing.T, id string) runtime.Spec {
			spec := s.spec(t, id)
			spec.Args = []string{"/no/such/program"}
			return spec
		},
		Left: s.left,
	})
}

// lives reports whether the engine works for its sandbox, whose init is never
// idle, by how often its threads give up the processor: thousands of times a
// second if it does, now and then if not. A busy machine makes both slower, the
// one still far from the other.
func lives(t *testing.T, p runtime.Process) bool {
	t.Helper()
	const many, few = 1000, 150
	before := switches(p)
	for begin := time.Now(); time.Since(begin) < 20*time.Second; <-time.After(20 * time.Millisecond) {
		n := switches(p) - before
		if n >= many {
			return true
		}
		if time.Since(begin) > 2*time.Second && n < few {
			return false
		}
	}
	return false
}

// switches counts how often the engine's threads gave up the processor.
func switches(p runtime.Process) int {
	total := 0
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.Handle().PID))
	for _, name := range files {
		status, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		for line := range strings.Lines(string(status)) {
			if count, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				n, _ := strconv.Atoi(strings.TrimSpace(count))
				total += n
			}
		}
	}
	return total
}

func TestInside(t *testing.T) {
	s := newStand(t)
	spec := s.spec(t, "rtinside")
	spec.Args = []string{"/init", "report"}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	spec.Output = w
	p, err := s.open(t).Start(t.Context(), spec)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill(context.Background()) })

	facts := map[string]string{}
	if err := r.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(r); lines.Scan() && lines.Text() != "ready"; {
		name, value, _ := strings.Cut(lines.Text(), " ")
		facts[name] = value
	}
	for name, want := range map[string]string{
		"version":    "Linux version 4", // gVisor's own kernel, not the host's
		"hostname":   "cove",
		"memory":     fmt.Sprintf("%d kB", 256<<10),
		"write":      "<nil>",
		"toobig":     "no space left on device",
		"image":      "<nil>",
		"imagewrite": "read-only file system",
		"mounts":     "/dev/shm",
	} {
		if !strings.Contains(facts[name], want) {
			t.Errorf("%s = %q, want it to contain %q", name, facts[name], want)
		}
	}
	for _, secret := range []string{s.state, spec.Dir, s.image} {
		if strings.Contains(facts["mounts"], secret) {
			t.Errorf("a host path is visible inside: %s", facts["mounts"])
		}
	}
}

func TestMissingEngineSaysSo(t *testing.T) {
	rt, err := runsc.New(runsc.Config{
		Engine: filepath.Join(t.TempDir(), "cove-runsc"), StateDir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = rt.Start(t.Context(), runtime.Spec{ID: "x", Dir: t.TempDir(), Rootfs: "x"})
	if err == nil || !strings.Contains(err.Error(), "engine is missing") {
		t.Errorf("err = %v", err)
	}
}
