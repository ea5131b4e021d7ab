package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/test/stand"
)

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
	before := s.Census(t)
	claims, links := s.Slots(t)
	files := descriptors(t, s)
	probe := s.Create(t, nil) // the census must be able to see what it looks for
	for what, n := range s.Census(t) {
		if n == 0 && what != "zombies" && what != "snapshots" && !strings.Contains(what, "version") && !strings.HasPrefix(what, "mounts") {
			t.Errorf("the census is blind for %s", what)
		}
	}
	if c := s.Census(t); c["cgroups (version 1)"]+c["cgroups (version 2)"] == 0 {
		t.Error("the census is blind for cgroups")
	}
	probe.Kill(t)
	round(total)
	for what, n := range s.Census(t) {
		if n != before[what] || (n > 0 && what != "mounts in the data directory") {
			t.Errorf("%s: %d before, %d after %d sandboxes", what, before[what], n, total)
		}
	}
	type network struct{ claims, links int }
	if got := settles(network{claims, links}, func() network { c, l := s.Slots(t); return network{c, l} }); got != (network{claims, links}) {
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
	for what, n := range s.Census(t) {
		if n > 0 {
			t.Errorf("%s: %d after the server stopped", what, n)
		}
	}
}
