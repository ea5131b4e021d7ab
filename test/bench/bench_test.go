// Package bench measures the program as its users meet it: through the API and
// the edge, against a real server with real sandboxes. It judges nothing.
//
// "make bench" runs it. Each figure is one line of JSON on standard output;
// peer is the same figure of the reference's daemon in the same engine, where
// one was measured on the two-core reference machine, for orientation only.
package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/test/stand"
)

// row is a figure.
type row struct {
	Name string   `json:"name"`
	Unit string   `json:"unit"`
	P50  float64  `json:"p50"`
	P95  float64  `json:"p95"`
	P99  float64  `json:"p99"`
	N    int      `json:"n"`
	Peer *float64 `json:"peer,omitempty"` // the reference's p50
	Note string   `json:"note,omitempty"`
}

// report prints the figure that samples make.
func report(name, unit string, samples []float64, peer float64, note string) {
	slices.Sort(samples)
	at := func(q float64) float64 {
		return math.Round(samples[min(len(samples)-1, int(q*float64(len(samples))))]*100) / 100
	}
	r := row{Name: name, Unit: unit, P50: at(0.5), P95: at(0.95), P99: at(0.99), N: len(samples), Note: note}
	if peer > 0 {
		r.Peer = &peer
	}
	_ = json.NewEncoder(os.Stdout).Encode(r)
}

// sample times n runs of do, in milliseconds, after one that does not count.
func sample(n int, do func()) []float64 {
	do()
	times := make([]float64, 0, n)
	for range n {
		begin := time.Now()
		do()
		times = append(times, float64(time.Since(begin).Microseconds())/1000)
	}
	return times
}

func BenchmarkFigures(b *testing.B) {
	s := stand.Start(b)
	lifecycle(b, s)
	sb := s.Create(b, nil)
	memory(b, sb, "idle")
	binary(b, sb)
	commands(b, sb)
	files(b, s, sb)
	memory(b, sb, "after all that")
	sb.Kill(b)
	forks(b, s)
	snapshots(b, s)
	pauses(b)
}

func lifecycle(b *testing.B, s *stand.Server) {
	var creates, firsts, kills []float64
	for i := range 31 {
		begin := time.Now()
		sb := s.Create(b, nil)
		created := time.Since(begin)
		sb.Run(b, "echo hello")
		first := time.Since(begin)
		begin = time.Now()
		sb.Kill(b)
		if i > 0 { // the first warms caches
			creates = append(creates, ms(created))
			firsts = append(firsts, ms(first))
			kills = append(kills, ms(time.Since(begin)))
		}
	}
	report("create", "ms", creates, 0, "")
	report("create+first command", "ms", firsts, 0, "")
	report("kill", "ms", kills, 0, "")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func commands(b *testing.B, sb *stand.Sandbox) {
	report("commands.run true", "ms", sample(200, func() { sb.Run(b, "true") }), 49, "")
	report("commands.run python3 -c pass", "ms", sample(30, func() { sb.Run(b, "python3 -c pass") }), 0, "")
	report("100 commands at once", "ms", sample(5, func() {
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if r, err := sb.TryRun(b, "true"); err != nil || r.Exit != 0 {
					b.Errorf("%+v, %v", r, err)
				}
			})
		}
		wg.Wait()
	}), 2800, "")
}

// send makes a request to the daemon and reads its whole answer.
func send(b *testing.B, s *stand.Server, sb *stand.Sandbox, method, path string, body io.Reader, size int64) int64 {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.Context()), 5*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, body)
	if err != nil {
		b.Fatal(err)
	}
	for name, value := range sb.Headers("49983") {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Accept-Encoding", "identity")
	req.ContentLength = size
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		b.Fatalf("%s %s: %d, %v", method, path, resp.StatusCode, err)
	}
	return n
}

// zeros is an endless file.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func files(b *testing.B, s *stand.Server, sb *stand.Sandbox) {
	report("files.write 1 byte", "ms", sample(200, func() {
		send(b, s, sb, "POST", "/files?path=/tmp/one&username=user", bytes.NewReader([]byte{1}), 1)
	}), 2.3, "")
	const gib = 1 << 30
	rate := func(times []float64) []float64 {
		for i := range times {
			times[i] = gib / 1e6 / (times[i] / 1000)
		}
		return times
	}
	before := resident(b, sb)
	up := sample(3, func() {
		send(b, s, sb, "POST", "/files?path=/tmp/big&username=user", io.LimitReader(zeros{}, gib), gib)
	})
	report("upload 1 GiB", "MB/s", rate(up), 218, "")
	down := sample(3, func() {
		if n := send(b, s, sb, "GET", "/files?path=/tmp/big&username=user", nil, 0); n != gib {
			b.Errorf("downloaded %d bytes", n)
		}
	})
	report("download 1 GiB", "MB/s", rate(down), 1824, "")
	report("the daemon's memory over these", "MB", []float64{resident(b, sb) - before}, 0, "growth of its resident set")
}

// resident is the daemon's resident set, in MB, by the engine's accounting.
func resident(b *testing.B, sb *stand.Sandbox) float64 {
	b.Helper()
	out := sb.Run(b, "awk '/VmRSS/ {print $2}' /proc/1/status").Stdout
	kb, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
	if err != nil {
		b.Fatal(err)
	}
	return kb / 1000
}

func memory(b *testing.B, sb *stand.Sandbox, when string) {
	report("daemon resident, "+when, "MB", []float64{resident(b, sb)}, 0, "by the engine's accounting, file pages included")
	out := sb.Run(b, `while read -r name n _; do [ "$name" = AnonPages: ] && echo $n; done </proc/meminfo`).Stdout
	kib, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
	if err != nil {
		b.Fatal(err)
	}
	report("private memory inside, "+when, "MB", []float64{kib * 1024 / 1e6}, 0, "the daemon and the shell that asks")
}

func binary(b *testing.B, sb *stand.Sandbox) {
	b.Helper()
	out := sb.Run(b, "stat -c %s /.cove/envd").Stdout
	size, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
	if err != nil {
		b.Fatal(err)
	}
	report("daemon binary", "MB", []float64{size / 1e6}, 0, fmt.Sprintf("%.0f bytes", size))
}
