package stand

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/internal/server"
)

// Census counts what sandboxes of a server may leave on the host. Idle network
// slots are the server's own and are let out. Other servers may run beside it.
func (s *Server) Census(t testing.TB) map[string]int {
	t.Helper()
	instance := server.InstanceOf(s.Dir)
	c := map[string]int{}
	cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range cmdlines {
		line, err := os.ReadFile(path)
		if err == nil && bytes.HasPrefix(line, []byte("runsc")) && bytes.Contains(line, []byte("/run/cove/"+instance)) {
			c["engine processes"]++
		}
	}
	s.awaitRemoval(t)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err == nil && bytes.Contains(stat, fmt.Appendf(nil, ") Z %d ", s.PID())) {
			c["zombies"]++
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	c["mounts in the data directory"] = strings.Count(string(mounts), s.Dir)
	for what, pattern := range map[string]string{
		"cgroups (version 1)": "/sys/fs/cgroup/*/cove-" + instance + "/i*",
		"cgroups (version 2)": "/sys/fs/cgroup/cove-" + instance + "/i*",
		"sandbox directories": filepath.Join(s.Dir, "sandboxes", "*"),
		"snapshots":           filepath.Join(s.Dir, "snapshots", "*"), // unfinished ones too
		"control sockets":     "/run/cove/" + instance + "/runsc-*",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		c[what] = len(found)
	}
	return c
}

// removalLimit is how long the disk of a removed snapshot may take to be given
// back.
const removalLimit = 10 * time.Second

// awaitRemoval waits until no snapshot is being removed. One that stays is then
// counted.
func (s *Server) awaitRemoval(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(removalLimit); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		found, err := filepath.Glob(filepath.Join(s.Dir, "snapshots", ".*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			return
		}
	}
}

// Slots counts a server's network slots: claims and links.
func (s *Server) Slots(t testing.TB) (claims, links int) {
	t.Helper()
	instance := server.InstanceOf(s.Dir)
	entries, _ := filepath.Glob("/run/cove/slots/*")
	for _, entry := range entries {
		if owner, err := os.Readlink(entry); err == nil && owner == instance {
			claims++
		}
	}
	aliases, _ := filepath.Glob("/sys/class/net/cove*/ifalias")
	for _, path := range aliases {
		if alias, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(alias)) == "cove-"+instance {
			links++
		}
	}
	if claims == 0 || links == 0 {
		t.Fatalf("the count of slots is blind: %d claims, %d links", claims, links)
	}
	return claims, links
}
