package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/test/stand"
)

type metric struct {
	Timestamp                                                       time.Time
	TimestampUnix, MemUsed, MemTotal, MemCache, DiskUsed, DiskTotal int64
	CPUCount                                                        int
	CPUUsedPct                                                      float64
}

// read asks the API for something and decodes the answer into to.
func read(t *testing.T, s *stand.Server, path string, to any) {
	t.Helper()
	status, content, err := s.Attempt(t.Context(), "GET", path, nil)
	if err != nil || status != http.StatusOK {
		t.Fatalf("%s: %d %s, %v", path, status, content, err)
	}
	if err := json.Unmarshal(content, to); err != nil {
		t.Fatalf("%s: %v: %s", path, err, content)
	}
}

// awaitMetric waits for a metric as it is wanted: they come every five seconds.
func awaitMetric(t *testing.T, s *stand.Server, sb *stand.Sandbox, what string, wanted func(metric) bool) metric {
	t.Helper()
	var all []metric
	deadline := time.After(90 * time.Second)
	for tick := time.NewTicker(200 * time.Millisecond); ; <-tick.C {
		read(t, s, "/sandboxes/"+sb.ID+"/metrics", &all)
		if n := len(all); n > 0 && wanted(all[n-1]) {
			return all[n-1]
		}
		select {
		case <-deadline:
			t.Fatalf("no metric with %s: %+v", what, all)
		default:
		}
	}
}

// events returns what a sandbox's log says happened, one word each.
func events(t *testing.T, s *stand.Server, sb *stand.Sandbox, query string) string {
	t.Helper()
	var log struct {
		Logs []struct {
			Message, Level string
			Fields         map[string]string
		}
	}
	read(t, s, "/v2/sandboxes/"+sb.ID+"/logs?"+query, &log)
	var all string
	for _, l := range log.Logs {
		all += l.Fields["event"] + " "
	}
	return all
}

// busy takes one processor, 200 MiB of memory and 30 MiB of disk.
const busy = `
(setsid sh -c 'while :; do :; done' >/dev/null 2>&1 </dev/null &)
(setsid python3 -c 'import time; held = bytearray(200 << 20); time.sleep(100000)' >/dev/null 2>&1 </dev/null &)
dd if=/dev/urandom of=/root/big bs=1M count=30 status=none
`

func TestMetricsAndLogs(t *testing.T) {
	s := stand.Start(t)
	before := time.Now()
	sb := s.Create(t, nil)
	idle := awaitMetric(t, s, sb, "anything", func(metric) bool { return true })
	if idle.Timestamp.Before(before) || idle.TimestampUnix != idle.Timestamp.Unix() || idle.CPUCount != 2 || idle.MemTotal != 1<<30 || idle.DiskTotal != 10<<30 {
		t.Errorf("the first metric: %+v", idle)
	}
	if idle.MemUsed < 1<<20 || idle.MemUsed > 100<<20 || idle.DiskUsed > 1<<20 {
		t.Errorf("an idle sandbox uses %+v", idle)
	}
	sb.Run(t, busy)
	done := awaitMetric(t, s, sb, "what is done inside", func(m metric) bool {
		return m.CPUUsedPct > 10 && m.CPUUsedPct <= 100 && m.MemUsed > 200<<20 && m.MemUsed < m.MemTotal && m.DiskUsed >= 30<<20
	})
	// What the host sees is what the sandbox's own kernel says.
	var memory, disk int64
	inside := sb.Run(t, `awk '/MemTotal/ {t=$2} /MemAvailable/ {a=$2} END {print (t-a)*1024}' /proc/meminfo; df --output=used -B1 / | tail -1`)
	if _, err := fmt.Sscan(inside.Stdout, &memory, &disk); err != nil {
		t.Fatalf("%v: %+v", err, inside)
	}
	if diff := memory - done.MemUsed; max(diff, -diff) > 20<<20 {
		t.Errorf("memory: %d from outside, %d from inside", done.MemUsed, memory)
	}
	if diff := disk - done.DiskUsed; max(diff, -diff) > 5<<20 {
		t.Errorf("disk: %d from outside, %d from inside", done.DiskUsed, disk)
	}
	var none []metric
	read(t, s, fmt.Sprintf("/sandboxes/%s/metrics?start=%d&end=%d", sb.ID, before.Unix()-600, before.Unix()-1), &none)
	if len(none) != 0 {
		t.Errorf("before its life: %+v", none)
	}
	var latest struct{ Sandboxes map[string]metric }
	read(t, s, "/sandboxes/metrics?sandbox_ids=inobody,"+sb.ID, &latest)
	if len(latest.Sandboxes) != 1 || latest.Sandboxes[sb.ID].MemUsed < 200<<20 {
		t.Errorf("latest: %+v", latest)
	}

	pause(t, s, sb)
	kept := awaitMetric(t, s, sb, "what was kept", func(m metric) bool { return m.MemUsed > 200<<20 })
	connect(t, s, sb, http.StatusCreated)
	awaitMetric(t, s, sb, "what goes on", func(m metric) bool { return m.Timestamp.After(kept.Timestamp) && m.CPUUsedPct > 10 })

	s.Kill(t) // as a power cut would
	s.Run(t)
	again := time.Now()
	awaitMetric(t, s, sb, "what runs after a restart", func(m metric) bool { return m.Timestamp.After(again) && m.CPUUsedPct > 10 })

	sb.Kill(t)
	if status, body := s.Do(t, "GET", "/sandboxes/"+sb.ID+"/metrics", nil); status != http.StatusNotFound {
		t.Errorf("metrics of an ended sandbox: %d %v", status, body)
	}
	if got := events(t, s, sb, ""); got != "created paused resumed killed " {
		t.Errorf("the log says %q", got)
	}
	if got := events(t, s, sb, "direction=backward&limit=1&search=RESUMED"); got != "resumed " {
		t.Errorf("the log, searched, says %q", got)
	}
	if status, body := s.Do(t, "GET", "/v2/sandboxes/inobody/logs", nil); status != http.StatusNotFound {
		t.Errorf("logs of nobody: %d %v", status, body)
	}
}

func TestLogOfACrash(t *testing.T) {
	s := stand.Start(t)
	sb := s.Create(t, nil)
	content, err := os.ReadFile(filepath.Join(s.Dir, "sandboxes", sb.ID, "sandbox.json"))
	if err != nil {
		t.Fatal(err)
	}
	var record struct{ Handle struct{ PID int } }
	if err := json.Unmarshal(content, &record); err != nil || record.Handle.PID == 0 {
		t.Fatalf("%s: %v", content, err)
	}
	if err := syscall.Kill(record.Handle.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := settles("crashed ", func() string { return events(t, s, sb, "level=error") }); got != "crashed " {
		t.Errorf("the log says %q of a crash", got)
	}
}
