package e2e_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/test/stand"
)

// census lists what sandboxes of a server may leave on the host. Idle network
// slots are the server's own and are let out.
func census(t *testing.T, s *stand.Server) map[string]int {
	t.Helper()
	c := map[string]int{}
	cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range cmdlines {
		line, err := os.ReadFile(path)
		if err == nil && bytes.HasPrefix(line, []byte("runsc")) && bytes.Contains(line, []byte("/run/cove/")) {
			c["engine processes"]++
		}
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err == nil && bytes.Contains(stat, []byte(fmt.Sprintf(") Z %d ", s.PID()))) {
			c["zombies"]++
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	c["mounts in the data directory"] = strings.Count(string(mounts), s.Dir)
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/cove-*/i*")
	groups2, _ := filepath.Glob("/sys/fs/cgroup/cove-*/i*")
	c["cgroups"] = len(groups) + len(groups2)
	entries, err := os.ReadDir(filepath.Join(s.Dir, "sandboxes"))
	if err != nil {
		t.Fatal(err)
	}
	c["sandbox directories"] = len(entries)
	sockets, _ := filepath.Glob("/run/cove/*/runsc-*")
	c["control sockets"] = len(sockets)
	return c
}

// slots counts network slots: claims, namespaces and links.
func slots(t *testing.T) (claims, links int) {
	t.Helper()
	entries, err := os.ReadDir("/run/cove/slots")
	if err != nil {
		t.Fatal(err)
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		if strings.HasPrefix(i.Name, "cove") {
			links++
		}
	}
	return len(entries), links
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
	claims, links := slots(t)
	files := descriptors(t, s)
	round(total)
	for what, n := range census(t, s) {
		if n != before[what] || (n > 0 && what != "mounts in the data directory") {
			t.Errorf("%s: %d before, %d after %d sandboxes", what, before[what], n, total)
		}
	}
	type network struct{ claims, links int }
	if got := settles(network{claims, links}, func() network { c, l := slots(t); return network{c, l} }); got != (network{claims, links}) {
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
