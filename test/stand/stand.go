// Package stand runs real servers for tests: the program as it is built, on a
// data directory of its own, with the base template taken from a cache that
// the tests of one machine share.
//
// It is for tests only; nothing else may import it. The servers it starts end
// with their test.
package stand

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/internal/server"
	"github.com/cove-sandbox/cove/test/binaries"
)

// Server is a cove serve that runs.
type Server struct {
	Dir string // its data directory
	URL string // of API and edge
	Key string
	Env []string // more of its environment; set before Run

	Header http.Header // of every request to the API beside the key; may be nil

	args []string

	Programs string // where they lie; set by the first launch if it is empty

	cmd  *exec.Cmd
	done chan struct{} // closed when the process is gone
	log  *log
}

// log keeps what a server prints.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// startLimit is how long a server may take to answer; baseLimit, how long the
// base template may take to be there.
const (
	startLimit = 30 * time.Second
	baseLimit  = 15 * time.Minute
)

// Start starts a server with the base template and waits until it can be used.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := New(t, args...)
	seed(t, s)
	s.Run(t)
	s.awaitBase(t)
	return s
}

// New describes a server without starting it. Its sandboxes, and what else it
// may leave on the host, are removed when the test ends.
func New(t testing.TB, args ...string) *Server {
	t.Helper()
	// Not t.TempDir: its name carries the test's, and paths of sockets are short.
	dir, err := os.MkdirTemp("", "cove-test-")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Dir: dir, args: args}
	t.Cleanup(func() {
		s.Stop(t)
		if t.Failed() && s.log != nil {
			t.Logf("the server's log:\n%s", s.log)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing the data directory: %v", err)
		}
	})
	return s
}

// Run starts the server, again if it ran before, and waits until it answers.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	if err := s.TryRun(t); err != nil {
		t.Fatalf("the server did not start: %v\n%s", err, s.log)
	}
}

// launch starts the program.
func (s *Server) launch(t testing.TB) error {
	t.Helper()
	if s.Programs == "" {
		s.Programs = binaries.Dir(t, "cove", "cove-runsc", "cove-envd")
	}
	args := append([]string{"serve", "--data-dir", s.Dir, "--listen", "127.0.0.1:0", "--log-level", "debug"}, s.args...)
	s.cmd = exec.Command(filepath.Join(s.Programs, "cove"), args...)
	s.cmd.Env = append(os.Environ(), s.Env...)
	if s.log == nil {
		s.log = &log{}
	}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.done = make(chan struct{})
	go func() {
		_ = s.cmd.Wait() // its status is asked for where it matters
		close(s.done)
	}()
	return nil
}

// RunBriefly starts the server and kills it after a while, whether it answers
// by then or not.
func (s *Server) RunBriefly(t testing.TB, while time.Duration) {
	t.Helper()
	if err := s.launch(t); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.done:
		t.Errorf("the server ended by itself:\n%s", s.log)
	case <-time.After(while):
	}
	s.Kill(t)
}

// TryRun is Run for a server that may fail to start; the error is its output.
func (s *Server) TryRun(t testing.TB) error {
	t.Helper()
	// The credentials file is written before the server answers; an old one
	// may name an old address.
	credentials := filepath.Join(s.Dir, server.CredentialsFile)
	before, _ := os.Stat(credentials)
	if err := s.launch(t); err != nil {
		return err
	}
	deadline := time.After(startLimit)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		select {
		case <-s.done:
			return errors.New(s.log.String())
		case <-deadline:
			return errors.New("no answer in time:\n" + s.log.String())
		default:
		}
		now, err := os.Stat(credentials)
		if err != nil || (before != nil && !now.ModTime().After(before.ModTime())) {
			continue
		}
		values, err := server.ReadCredentials(credentials)
		if err != nil {
			return err
		}
		s.URL, s.Key = values["E2B_API_URL"], values["E2B_API_KEY"]
		if resp, err := http.Get(s.URL + "/health"); err == nil {
			resp.Body.Close()
			return nil
		}
	}
}

// Command runs another command of the program on the server's data directory
// and returns what it prints.
func (s *Server) Command(t testing.TB, args ...string) (string, error) {
	t.Helper()
	program := filepath.Join(binaries.Dir(t, "cove"), "cove")
	cmd := exec.CommandContext(t.Context(), program, append(args, "--data-dir", s.Dir)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// PID returns the server's process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Log returns what the server has printed so far.
func (s *Server) Log() string { return s.log.String() }

// Kill ends the server as a power cut would, and leaves its sandboxes.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("killing the server: %v", err)
	}
	<-s.done
}

// Stop ends what runs on the server, and then the server, gently.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	select {
	case <-s.done:
		if entries, _ := os.ReadDir(filepath.Join(s.Dir, "sandboxes")); len(entries) == 0 {
			return
		}
		if err := s.TryRun(t); err != nil { // it was killed; its sandboxes are still there
			t.Errorf("the server did not start again to end its sandboxes: %v", err)
			return
		}
	default:
	}
	for _, id := range s.List(t) {
		s.Do(t, "DELETE", "/sandboxes/"+id, nil)
	}
	s.Terminate(t)
}

// Terminate stops the server gently and leaves its sandboxes.
func (s *Server) Terminate(t testing.TB) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("stopping the server: %v", err)
	}
	select {
	case <-s.done:
	case <-time.After(30 * time.Second):
		t.Errorf("the server does not stop:\n%s", s.log)
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// cache is where finished base templates are kept for the next test.
func cache(t testing.TB) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	dir = filepath.Join(dir, "cove-test", "data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// seed gives a server the templates and downloads of earlier tests. One test at
// a time builds the template if it is not there; the others wait for it.
func seed(t testing.TB, s *Server) {
	t.Helper()
	dir := cache(t)
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // gives the lock back
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ready-"+recipe(t))); err != nil {
		forget(t, dir)
		build := &Server{Dir: dir}
		build.Run(t)
		build.awaitBase(t)
		build.Stop(t)
		if t.Failed() {
			t.FailNow()
		}
		if err := os.WriteFile(filepath.Join(dir, "ready-"+recipe(t)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link(t, filepath.Join(dir, "templates"), filepath.Join(s.Dir, "templates"))
}

// forget leaves of what earlier programs put into the cache only what they found
// by its content: their records may be of a version that never was released.
func forget(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); name == "lock" || name == "templates" || name == "cache" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// recipe names the programs under test: others may build another template.
func recipe(t testing.TB) string {
	t.Helper()
	info, err := os.Stat(filepath.Join(binaries.Dir(t, "cove"), "cove"))
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime().UTC().Format("20060102150405.000000000")
}

// SeedFrom lets a server use the shared templates where they are, for a data
// directory too small to hold them.
func (s *Server) SeedFrom(t testing.TB) {
	t.Helper()
	scratch := &Server{Dir: t.TempDir()}
	seed(t, scratch)
	if err := os.Symlink(filepath.Join(scratch.Dir, "templates"), filepath.Join(s.Dir, "templates")); err != nil {
		t.Fatal(err)
	}
}

// link copies a tree by hard links: images are large and never change.
func link(t testing.TB, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(from, path)
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		}
		if err := os.Link(path, filepath.Join(to, name)); !errors.Is(err, syscall.EXDEV) {
			return err
		}
		return copyFile(path, filepath.Join(to, name))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// awaitBase waits until sandboxes of the base template can be created.
func (s *Server) awaitBase(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), baseLimit)
	defer cancel()
	for ctx.Err() == nil {
		status, body := s.Do(t, "POST", "/sandboxes", map[string]any{"templateID": "base"})
		if status == http.StatusCreated {
			s.Do(t, "DELETE", "/sandboxes/"+body["sandboxID"].(string), nil)
			return
		}
		if message, _ := body["message"].(string); !strings.Contains(message, "still being built") {
			t.Fatalf("the base template: %d %v\n%s", status, body, s.log)
		}
	}
	t.Fatalf("the base template was not built in time\n%s", s.log)
}
