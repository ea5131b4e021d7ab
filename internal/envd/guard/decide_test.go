package guard_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cove-sandbox/cove/internal/envd/guard"
)

func TestReserve(t *testing.T) {
	for _, c := range []struct{ total, want uint64 }{
		{128 * mib, 16 * mib}, {512 * mib, 64 * mib}, {1024 * mib, 64 * mib}, {8192 * mib, 256 * mib},
	} {
		if got := guard.Reserve(c.total); got != c.want {
			t.Errorf("of %d MiB: %d MiB, want %d", c.total/mib, got/mib, c.want/mib)
		}
	}
}

func TestInterval(t *testing.T) {
	for _, c := range []struct {
		free uint64
		want time.Duration
	}{
		{64 << 30, 5 * time.Second}, {(64 + 4096) * mib, 2 * time.Second}, {(64 + 1024) * mib, 500 * time.Millisecond}, {(64 + 20) * mib, 10 * time.Millisecond}, {0, 10 * time.Millisecond},
	} {
		if got := guard.Interval(1024*mib, c.free); got != c.want {
			t.Errorf("%d MiB free: %v, want %v", c.free/mib, got, c.want)
		}
	}
}

func TestEffective(t *testing.T) {
	for _, c := range []struct {
		tasks, processes int
		want             uint64
	}{
		{128, 128, 500 * mib}, {256, 256, 444 * mib}, {256, 6, 500 * mib}, {100_000, 100_000, 0},
	} {
		s := guard.Sample{Total: 1024 * mib, Free: 500 * mib, Tasks: c.tasks}
		if got := guard.Effective(s, c.processes); got != c.want {
			t.Errorf("%d tasks, %d processes: %d MiB, want %d", c.tasks, c.processes, got/mib, c.want/mib)
		}
	}
}

func TestMaxProcesses(t *testing.T) {
	for _, c := range []struct {
		total uint64
		want  int
	}{{128 * mib, 61}, {1024 * mib, 217}, {4096 * mib, 756}, {64 << 30, 1722}} {
		if got := guard.MaxProcesses(c.total); got != c.want {
			t.Errorf("in %d MiB: %d, want %d", c.total/mib, got, c.want)
		}
	}
}

func TestParseStat(t *testing.T) {
	const rest = " 1 7 7 0 -1 4194304 0 0 0 0 5 6 0 0 20 0 3 0 4321 1000 250 18446744073709551615\n"
	want := guard.Process{PID: 12, RSS: 250 * 4096}
	for name, stat := range map[string]string{
		"sleep":                         "12 (sleep) S" + rest,
		"a b":                           "12 (a b) R" + rest,
		"x) S 9 9 9 (":                  "12 (x) S 9 9 9 () S" + rest,
		"":                              "12 () T" + rest,
		"new\nline":                     "12 (new\nline) D" + rest,
		"\xff\xfe":                      "12 (\xff\xfe) S" + rest,
		") Z 1 1 1 1 1 1 1 1 1 1 1 1 1": "12 () Z 1 1 1 1 1 1 1 1 1 1 1 1 1) S" + rest,
	} {
		want.Name = name
		got, ok := guard.ParseStat(stat)
		if diff := cmp.Diff(want, got); !ok || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", stat, ok, diff)
		}
	}
	for _, stat := range []string{
		"", "12", "12 (a", "12 a) S", ")(", "12 (gone) Z" + rest, "12 (gone) X" + rest,
		"12 (short) S 1 2 3", "x (a) S" + rest, "-12 (a) S" + rest,
		"12 (huge) S 1 7 7 0 0 0 0 0 0 0 5 6 0 0 20 0 3 0 9 1000 99999999999999999999 0\n",
	} {
		if got, ok := guard.ParseStat(stat); ok {
			t.Errorf("%q: %+v", stat, got)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("12 (a) S 1 7 7 0 -1 4194304 0 0 0 0 5 6 0 0 20 0 3 0 4321 1000 250 18446744073709551615\n")
	f.Add("1 (x) S 9 9 9 ()) S 1")
	f.Add(")(")
	f.Fuzz(func(t *testing.T, stat string) {
		p, ok := guard.ParseStat(stat)
		if ok && p.PID < 0 {
			t.Errorf("%q: %+v", stat, p)
		}
	})
}

// What is said to the owner of a sandbox names who, why, and what to do.
func TestWords(t *testing.T) {
	const free = "20 of 1024 MiB were free"
	for _, c := range []struct {
		said string
		want []string
	}{
		{guard.TooLarge(guard.Process{PID: 7, Name: "py\x1b(x)", RSS: 812 * mib}, 0, 1024*mib, 20*mib),
			[]string{`process 7 ("py\x1b(x)") was ended`, "memory ran out", "held 812 MiB", free, "more memory"}},
		{guard.TooLarge(guard.Process{PID: 7, Name: "dd"}, 900*mib, 1024*mib, 20*mib), []string{`("dd")`, "files in memory", "900 MiB", free}},
		{guard.CrowdTooLarge(120, 700*mib, 1024*mib, 20*mib), []string{"a command was ended", "120 processes", "700 MiB", free, "need all but 10", "more memory"}},
		{guard.NobodyHolds(1024*mib, 20*mib), []string{free, "/dev/shm", "more memory"}},
		{guard.TooMany(250, 260, 218), []string{"a command was ended", "it had 250, of 260", "218 are allowed", "Start fewer"}},
	} {
		for _, want := range c.want {
			if !strings.Contains(c.said, want) {
				t.Errorf("no %q in: %s", want, c.said)
			}
		}
	}
}
