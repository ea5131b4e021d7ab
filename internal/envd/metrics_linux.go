package envd

import (
	"bufio"
	"fmt"
	"math"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cove-sandbox/cove/internal/envd/reply"
)

// measured is the protocol's answer to GET /metrics. Sizes are in bytes unless
// the name says otherwise.
type measured struct {
	Timestamp   int64   `json:"ts"`           // Unix seconds
	CPUCount    int     `json:"cpu_count"`    // of the sandbox
	CPUUsedPct  float64 `json:"cpu_used_pct"` // of all of them, since the last call
	MemTotalMiB uint64  `json:"mem_total_mib"`
	MemUsedMiB  uint64  `json:"mem_used_mib"`
	MemTotal    uint64  `json:"mem_total"`
	MemUsed     uint64  `json:"mem_used"`
	MemCache    uint64  `json:"mem_cache"`
	DiskUsed    uint64  `json:"disk_used"` // of the root file system
	DiskTotal   uint64  `json:"disk_total"`
}

func (d *Daemon) metrics(w http.ResponseWriter, r *http.Request) {
	m, err := d.measure(time.Now())
	if err != nil {
		d.cfg.Log.ErrorContext(r.Context(), "metrics", "err", err)
		reply.Errorf(http.StatusInternalServerError, "the sandbox cannot be measured").Write(w)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	reply.JSON(w, http.StatusOK, m)
}

func (d *Daemon) measure(now time.Time) (measured, error) {
	m := measured{Timestamp: now.Unix(), CPUCount: runtime.NumCPU()}
	memory, err := memInfo()
	if err != nil {
		return m, err
	}
	var disk unix.Statfs_t
	if err := unix.Statfs("/", &disk); err != nil {
		return m, fmt.Errorf("measure disk: %w", err)
	}
	m.CPUUsedPct = d.cpu.percent(now, m.CPUCount)
	m.MemTotal = memory["MemTotal"]
	available, ok := memory["MemAvailable"]
	if !ok {
		available = memory["MemFree"] + memory["Buffers"] + memory["Cached"]
	}
	m.MemUsed = m.MemTotal - min(available, m.MemTotal)
	m.MemCache = memory["Cached"]
	m.MemTotalMiB, m.MemUsedMiB = m.MemTotal>>20, m.MemUsed>>20
	block := uint64(disk.Bsize)
	m.DiskTotal = disk.Blocks * block
	m.DiskUsed = (disk.Blocks - min(disk.Bfree, disk.Blocks)) * block
	return m, nil
}

// memInfo returns the sizes of /proc/meminfo in bytes.
func memInfo() (map[string]uint64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return nil, fmt.Errorf("measure memory: %w", err)
	}
	defer f.Close()
	out := map[string]uint64{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		number, unit, _ := strings.Cut(strings.TrimSpace(rest), " ")
		if n, err := strconv.ParseUint(number, 10, 64); err == nil && unit == "kB" {
			out[name] = n << 10
		}
	}
	return out, nil
}

// A cpuMeter tells how busy the processors were between two calls. It is safe
// for concurrent use.
type cpuMeter struct {
	mu   sync.Mutex
	at   time.Time     // guarded by mu
	used time.Duration // guarded by mu
}

func newCPUMeter() *cpuMeter { return &cpuMeter{at: time.Now(), used: cpuTime()} }

// percent returns the share of n processors used since the last call.
func (c *cpuMeter) percent(now time.Time, n int) float64 {
	used := cpuTime()
	c.mu.Lock()
	defer c.mu.Unlock()
	busy, elapsed := used-c.used, now.Sub(c.at)
	c.at, c.used = now, used
	if elapsed <= 0 || busy <= 0 || n == 0 {
		return 0
	}
	share := float64(busy) / float64(elapsed) / float64(n) * 100
	return math.Round(min(share, 100)*100) / 100
}

// tick is the unit of processor times in /proc, which is the same on every
// Linux that programs see.
const tick = time.Second / 100

// cpuTime returns the processor time used so far: by the whole machine where
// the kernel says so, and otherwise by all processes, as gVisor's kernel keeps
// no sum.
func cpuTime() time.Duration {
	if data, err := os.ReadFile("/proc/stat"); err == nil {
		line, _, _ := strings.Cut(string(data), "\n")
		// user nice system idle iowait irq softirq steal; guests are in user.
		if f := strings.Fields(line); len(f) >= 9 && f[0] == "cpu" {
			if used := ticks(f[1], f[2], f[3], f[6], f[7], f[8]); used > 0 {
				return used
			}
		}
	}
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	var sum time.Duration
	for _, dir := range dirs {
		if c := dir.Name()[0]; c < '0' || c > '9' {
			continue
		}
		data, err := os.ReadFile("/proc/" + dir.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// The name may hold anything; the fields after it start with the state.
		// A process's children that have ended are in its own sums.
		text := string(data)
		f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if len(f) >= 15 {
			sum += ticks(f[11], f[12], f[13], f[14])
		}
	}
	return sum
}

func ticks(fields ...string) time.Duration {
	var sum time.Duration
	for _, f := range fields {
		if n, err := strconv.ParseInt(f, 10, 64); err == nil {
			sum += time.Duration(n) * tick
		}
	}
	return sum
}
