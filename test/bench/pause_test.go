package bench_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/test/stand"
)

// hold makes a sandbox hold that many MiB of memory that cannot be compressed
// or left out.
const hold = `(setsid python3 -c 'import os, time; held = os.urandom(%d << 20); open("/tmp/held", "w"); time.sleep(1e6)' >/dev/null 2>&1 </dev/null &)
until [ -e /tmp/held ]; do sleep 0.1; done`

// pauses measures a pause, and a resume up to the end of the first command, of
// sandboxes of 2 GiB.
func pauses(b *testing.B) {
	s := stand.Start(b, "--memory-mb", "2048")
	defer s.Stop(b)
	for _, mib := range []int{0, 256, 1024} {
		sb := s.Create(b, nil)
		if mib > 0 {
			sb.Run(b, fmt.Sprintf(hold, mib))
		}
		var saved, resumed []float64
		for i := range 11 {
			begin := time.Now()
			if status, body := s.Do(b, "POST", "/sandboxes/"+sb.ID+"/pause", nil); status != http.StatusNoContent {
				b.Fatalf("pause: %d %v", status, body)
			}
			paused := time.Since(begin)
			begin = time.Now()
			if status, body := s.Do(b, "POST", "/v2/sandboxes/"+sb.ID+"/connect", nil); status != http.StatusCreated {
				b.Fatalf("connect: %d %v", status, body)
			}
			sb.Run(b, "true")
			if i > 0 {
				saved = append(saved, ms(paused))
				resumed = append(resumed, ms(time.Since(begin)))
			}
		}
		report(fmt.Sprintf("pause, %d MiB held", mib), "ms", saved, 0, "fsynced")
		report(fmt.Sprintf("resume to first command, %d MiB held", mib), "ms", resumed, 0, "")
		sb.Kill(b)
	}
}

// snapshots measures keeping a snapshot, and making a sandbox from it up to the
// end of the first command.
func snapshots(b *testing.B, s *stand.Server) {
	origin := s.Create(b, nil)
	origin.Run(b, fmt.Sprintf(hold, 64))
	var kept, made []float64
	for i := range 11 {
		begin := time.Now()
		status, body := s.Do(b, "POST", "/sandboxes/"+origin.ID+"/snapshots", map[string]any{"name": "bench"})
		if status != http.StatusCreated {
			b.Fatalf("snapshot: %d %v", status, body)
		}
		keeping := time.Since(begin)
		begin = time.Now()
		sb := s.Create(b, map[string]any{"templateID": body["snapshotID"]})
		sb.Run(b, "true")
		if i > 0 {
			kept = append(kept, ms(keeping))
			made = append(made, ms(time.Since(begin)))
		}
		sb.Kill(b)
	}
	report("keep a snapshot, 64 MiB held", "ms", kept, 0, "the sandbox stands still meanwhile; fsynced")
	report("create from it to first command", "ms", made, 0, "")
	origin.Kill(b)
}

// forks measures how long it takes until all copies are there.
func forks(b *testing.B, s *stand.Server) {
	origin := s.Create(b, nil)
	for _, count := range []int{1, 10, 50} {
		var times []float64
		for i := range 4 {
			begin := time.Now()
			copies := origin.Fork(b, count)
			if i > 0 {
				times = append(times, ms(time.Since(begin)))
			}
			for _, sb := range copies {
				sb.Kill(b)
			}
		}
		report(fmt.Sprintf("fork of %d", count), "ms", times, 0, "")
	}
	origin.Kill(b)
}
