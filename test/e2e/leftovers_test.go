package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/internal/server"
	"github.com/cove-sandbox/cove/test/stand"
)

// census lists what sandboxes of a server may leave on the host. Idle network
// slots are the server's own and are let out. Other servers may run beside it.
func census(t *testing.T, s *stand.Server) map[string]int {
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
		"control sockets":     "/run/cove/" + instance + "/*",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		c[what] = len(found)
	}
	return c
}

// slots counts a server's network slots: claims and links.
func slots(t *testing.T, s *stand.Server) (claims, links int) {
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

// descriptors counts the open files of the server.
func descriptors(t *testing.T, s *stand.Server) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.PID()))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// settles waits until a value is as wanted; what remains is the last value.
func settles[T comparable](want T, value func() T) T {
	last := value()
	for deadline := time.Now().Add(15 * time.Second); last != want && time.Now().Before(deadline); last = value() {
		<-time.After(20 * time.Millisecond)
	}
	return last
}

func testNothingLeft(t *testing.T, s *stand.Server) {
	const total, atOnce = 50, 5
	round := func(n int) {
		var wg sync.WaitGroup
		places := make(chan struct{}, atOnce)
		for range n {
			places <- struct{}{}
			wg.Go(func() {
				defer func() { <-places }()
				sb := s.Create(t, nil)
				if r, err := sb.TryRun(t, "echo alive"); err != nil || r.Stdout != "alive\n" {
					t.Errorf("%+v, %v", r, err)
				}
				sb.Kill(t)
			})
		}
		wg.Wait()
	}
	round(atOnce) // pools fill and connections open once
	before := census(t, s)
	claims, links := slots(t, s)
	files := descriptors(t, s)
	probe := s.Create(t, nil) // the census must be able to see what it looks for
	for what, n := range census(t, s) {
		if n == 0 && what != "zombies" && !strings.Contains(what, "version") && !strings.HasPrefix(what, "mounts") {
			t.Errorf("the census is blind for %s", what)
		}
	}
	if c := census(t, s); c["cgroups (version 1)"]+c["cgroups (version 2)"] == 0 {
		t.Error("the census is blind for cgroups")
	}
	probe.Kill(t)
	round(total)
	for what, n := range census(t, s) {
		if n != before[what] || (n > 0 && what != "mounts in the data directory") {
			t.Errorf("%s: %d before, %d after %d sandboxes", what, before[what], n, total)
		}
	}
	type network struct{ claims, links int }
	if got := settles(network{claims, links}, func() network { c, l := slots(t, s); return network{c, l} }); got != (network{claims, links}) {
		t.Errorf("network: %+v before, %+v after", network{claims, links}, got)
	}
	// A few connections of clients may still be open; fifty leaks would show.
	if !settles(true, func() bool { return descriptors(t, s) <= files+total/5 }) {
		t.Errorf("open files: %d before, %d after", files, descriptors(t, s))
	}
	if list := s.List(t); len(list) != 0 {
		t.Errorf("still listed: %v", list)
	}
}

func TestServerLeavesNothing(t *testing.T) {
	s := stand.Start(t)
	s.Create(t, nil).Kill(t)
	s.Stop(t)
	for what, n := range census(t, s) {
		if n > 0 {
			t.Errorf("%s: %d after the server stopped", what, n)
		}
	}
}
