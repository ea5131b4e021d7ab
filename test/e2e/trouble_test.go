package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cove-sandbox/cove/internal/server"
	"github.com/cove-sandbox/cove/test/stand"
)

// TestFullDisk fills the disk under the data directory and expects a sentence,
// no leftovers, and a server that goes on once there is room.
func TestFullDisk(t *testing.T) {
	s := stand.New(t)
	if err := syscall.Mount("tmpfs", s.Dir, "tmpfs", 0, "size=256m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop(t)
		if err := syscall.Unmount(s.Dir, 0); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	s.SeedFrom(t)
	s.Run(t)
	s.Create(t, nil).Kill(t)
	sb := s.Create(t, nil)
	sb.Run(t, "echo kept > /dev/shm/memory")

	filler := filepath.Join(s.Dir, "filler")
	fill(t, filler)
	status, body := s.Do(t, "POST", "/v2/sandboxes", map[string]any{"templateID": "base"})
	message, _ := body["message"].(string)
	if status != http.StatusInsufficientStorage || !strings.Contains(message, "disk is full") || strings.Contains(message, s.Dir) {
		t.Errorf("on a full disk: %d %q", status, message)
	}
	// A pause that the disk cannot hold stops nothing, whether there is no room
	// at all or only not enough.
	for room, words := range map[int64]string{0: "disk is full", 8 << 20: "goes on running"} {
		info, err := os.Stat(filler)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filler, info.Size()-room); err != nil {
			t.Fatal(err)
		}
		status, body = s.Do(t, "POST", "/sandboxes/"+sb.ID+"/pause", nil)
		message, _ = body["message"].(string)
		if status != http.StatusInsufficientStorage || !strings.Contains(message, words) || strings.Contains(message, s.Dir) {
			t.Errorf("pause with %d bytes free: %d %q", room, status, message)
		}
		if r := sb.Run(t, "cat /dev/shm/memory"); r.Stdout != "kept\n" {
			t.Errorf("after that: %+v", r)
		}
		fill(t, filler)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	pause(t, s, sb)
	connect(t, s, sb, http.StatusCreated)
	if r := sb.Run(t, "cat /dev/shm/memory"); r.Stdout != "kept\n" {
		t.Errorf("once there is room: %+v", r)
	}
	sb.Kill(t)
	for what, n := range s.Census(t) {
		if n > 0 && what != "mounts in the data directory" {
			t.Errorf("%s: %d left behind", what, n)
		}
	}
	s.Create(t, nil).Kill(t)
}

// fill writes to a file until the disk is full.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
}

func TestMissingTool(t *testing.T) {
	s := stand.New(t) // without the shared template
	s.Env = []string{"PATH=/nonexistent"}
	s.Run(t)
	status, body := s.Do(t, "POST", "/v2/sandboxes", map[string]any{"templateID": "base"})
	message, _ := body["message"].(string)
	if status != http.StatusServiceUnavailable || !strings.Contains(message, "mmdebstrap") || !strings.Contains(message, "apt-get install") {
		t.Errorf("without mmdebstrap: %d %q", status, message)
	}
	if entries, _ := filepath.Glob(filepath.Join(s.Dir, "templates", "*")); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestTakenAddress(t *testing.T) {
	first := stand.New(t)
	first.Run(t)
	second := stand.New(t, "--listen", strings.TrimPrefix(first.URL, "http://"))
	if err := second.TryRun(t); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("err = %v", err)
	}
	if entries, _ := os.ReadDir(second.Dir); len(entries) > 1 { // its lock
		t.Errorf("a server that could not start left %v", entries)
	}
}

func TestUninstall(t *testing.T) {
	s := stand.Start(t)
	s.Create(t, nil)
	if out, err := s.Command(t, "uninstall", "--yes"); err == nil || !strings.Contains(out, "another cove serve") {
		t.Errorf("while the server runs: %v %s", err, out)
	}
	s.Terminate(t)
	if out, err := s.Command(t, "uninstall"); err == nil || !strings.Contains(out, "--yes") {
		t.Errorf("without --yes: %v %s", err, out)
	}
	if out, err := s.Command(t, "uninstall", "--yes"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	nothingOf(t, s)
}

// TestUninstallAfterTheFact is of somebody who removed the data directory first.
func TestUninstallAfterTheFact(t *testing.T) {
	s := stand.Start(t)
	s.Create(t, nil)
	s.Terminate(t)
	if err := os.RemoveAll(s.Dir); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Command(t, "uninstall", "--yes"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	nothingOf(t, s)
}

// nothingOf sees that the host has nothing of a server but its data directory.
func nothingOf(t *testing.T, s *stand.Server) {
	t.Helper()
	for what, n := range s.Census(t) {
		if n > 0 && what != "sandbox directories" {
			t.Errorf("%s: %d left", what, n)
		}
	}
	instance := server.InstanceOf(s.Dir)
	for _, pattern := range []string{"/run/cove/" + instance, "/sys/fs/cgroup/*/cove-" + instance} {
		if left, _ := filepath.Glob(pattern); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}
