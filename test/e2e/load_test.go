package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	connectrpc "connectrpc.com/connect"

	"github.com/cove-sandbox/cove/internal/gen/filesystem"
	"github.com/cove-sandbox/cove/internal/gen/filesystem/filesystemconnect"
	"github.com/cove-sandbox/cove/test/stand"
)

// answerLimit is how long a small command may take, whatever else goes on.
const answerLimit = 5 * time.Second

// TestUnderLoad asks too much of sandboxes. They have two processors and 1 GiB.
func TestUnderLoad(t *testing.T) {
	testLoad(t, stand.Start(t))
}

func testLoad(t *testing.T, s *stand.Server) {
	t.Run("idle memory", func(t *testing.T) { testIdleMemory(t, s) })
	t.Run("memory hogs", func(t *testing.T) { testHogs(t, s) })
	t.Run("busy processors", func(t *testing.T) { testBusy(t, s) })
	t.Run("many threads", func(t *testing.T) { testThreads(t, s) })
	t.Run("large directory", func(t *testing.T) { testLargeDirectory(t, s) })
}

// anonymous returns how much memory the processes of a sandbox hold, in KiB: the
// daemon, and the shell that asks.
func anonymous(t *testing.T, sb *stand.Sandbox) int {
	t.Helper()
	kib, err := strconv.Atoi(strings.TrimSpace(sb.Run(t, `while read -r name n _; do [ "$name" = AnonPages: ] && echo $n; done </proc/meminfo`).Stdout))
	if err != nil {
		t.Fatal(err)
	}
	return kib
}

func testIdleMemory(t *testing.T, s *stand.Server) {
	sb := s.Create(t, nil)
	defer sb.Kill(t)
	if kib := anonymous(t, sb); kib > 8<<10 {
		t.Errorf("the daemon and a shell hold %d KiB; 8 MiB are allowed", kib)
	}
}

// bystander starts a process that does nothing and returns its number.
func bystander(t *testing.T, sb *stand.Sandbox) string {
	t.Helper()
	return strings.TrimSpace(sb.Run(t, "(setsid sleep 900 >/dev/null 2>&1 </dev/null & echo $!)").Stdout)
}

// pinging runs small commands, one after the other, until it is stopped, and
// then says how long the longest took.
func pinging(t *testing.T, sb *stand.Sandbox) (stop func() time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	longest := make(chan time.Duration, 1)
	go func() {
		var most time.Duration
		for ctx.Err() == nil {
			begin := time.Now()
			// Whether it succeeds is another matter: it may come just when all that
			// is new is ended.
			if _, err := sb.TryRun(t, "true"); err != nil && ctx.Err() == nil {
				t.Logf("a small command: %v", err)
			}
			most = max(most, time.Since(begin))
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		longest <- most
	}()
	return func() time.Duration { cancel(); return <-longest }
}

// wantWell checks that a sandbox came through.
func wantWell(t *testing.T, sb *stand.Sandbox, pid string) {
	t.Helper()
	begin := time.Now()
	r, err := sb.TryRun(t, "kill -0 "+pid)
	if err != nil {
		t.Fatalf("the sandbox is gone, or as good as: %v", err)
	}
	if r.Exit != 0 {
		t.Errorf("somebody else was killed: %+v", r)
	}
	if took := time.Since(begin); took > answerLimit {
		t.Errorf("a small command took %v", took)
	}
}

func testHogs(t *testing.T, s *stand.Server) {
	sb := s.Create(t, nil)
	defer sb.Kill(t)
	pid := bystander(t, sb)
	stop := pinging(t, sb)
	for round := range 5 {
		for name, c := range map[string]struct {
			command string
			exit    int
		}{
			"one large piece":  {`exec python3 -c "x = bytearray(3 << 30)"`, -1}, // as the kernel's killer would: by a signal
			"a child":          {`python3 -c "x = bytearray(3 << 30)"; exit $?`, 137},
			"small pieces":     {`exec tail /dev/zero`, -1},
			"two at once":      {`for i in 1 2; do python3 -c "x = bytearray(3 << 30)" & done; wait; exit 7`, 7},
			"many":             {`for i in $(seq 30); do python3 -c "import time; x = bytearray(50 << 20); time.sleep(1)" & done; wait; exit 7`, 7},
			"shared memory":    {`exec python3 -c "import mmap; m = mmap.mmap(-1, 3 << 30)` + "\n" + `for i in range(0, 3 << 30, 4096): m[i] = 1"`, -1},
			"nobody's memory":  {`exec python3 -c "import os; f = os.memfd_create('x'); b = bytes(1 << 20)` + "\n" + `while 1: os.write(f, b)"`, -1},
			"a file in memory": {`dd if=/dev/zero of=/dev/shm/x bs=1M count=4096 2>&1 | grep -q 'No space' && rm /dev/shm/x && exit 8`, 8},
		} {
			begin := time.Now()
			r, err := sb.TryRun(t, c.command)
			if err != nil || r.Exit != c.exit {
				t.Errorf("round %d, %s: %+v, %v", round, name, r, err)
			}
			if took := time.Since(begin); took > time.Minute {
				t.Errorf("round %d, %s took %v", round, name, took)
			}
			wantWell(t, sb, pid)
		}
	}
	if most := stop(); most > answerLimit {
		t.Errorf("a small command took %v meanwhile", most)
	}
	if kib := anonymous(t, sb); kib > 32<<10 {
		t.Errorf("%d KiB are held when all is over", kib)
	}
}

func testBusy(t *testing.T, s *stand.Server) {
	sb := s.Create(t, nil)
	defer sb.Kill(t)
	pid := bystander(t, sb)
	sb.Run(t, "for i in $(seq 16); do (setsid sh -c 'while :; do :; done' >/dev/null 2>&1 </dev/null &); done")
	for range 20 {
		wantWell(t, sb, pid)
	}
}

// testThreads checks that threads are not taken for processes, and that nothing
// is kept of commands that have ended.
func testThreads(t *testing.T, s *stand.Server) {
	sb := s.Create(t, nil)
	defer sb.Kill(t)
	pid := bystander(t, sb)
	r := sb.Run(t, `exec python3 -c "
import threading, time
over = threading.Event()
threads = [threading.Thread(target=over.wait) for i in range(700)]
for t in threads: t.start()
time.sleep(2) # the guard looks at least twice
over.set()
for t in threads: t.join()
print(len(threads))"`)
	if r.Stdout != "700\n" {
		t.Errorf("%+v", r)
	}
	wantWell(t, sb, pid)
	if r := sb.Run(t, "mkdir /tmp/groups && mount -t cgroup2 groups /tmp/groups && ls -d /tmp/groups/pens/*/ | wc -l"); r.Stdout != "2\n" {
		t.Errorf("the bystander and a shell have this many control groups: %+v", r)
	}
}

func testLargeDirectory(t *testing.T, s *stand.Server) {
	sb := s.Create(t, nil)
	defer sb.Kill(t)
	sb.Run(t, `mkdir /tmp/large && cd /tmp/large && python3 -c "
for i in range(50000): open('entry %d \u00fc' % i, 'w').close()
open(b'not \xff UTF-8', 'w').close()"`)
	client := filesystemconnect.NewFilesystemClient(http.DefaultClient, s.URL, connectrpc.WithProtoJSON())
	req := connectrpc.NewRequest(&filesystem.ListDirRequest{Path: "/tmp/large", Depth: 1})
	for name, value := range sb.Headers("49983") {
		req.Header().Set(name, value)
	}
	begin := time.Now()
	resp, err := client.ListDir(t.Context(), req)
	took := time.Since(begin)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, e := range resp.Msg.GetEntries() {
		names[e.GetName()] = true
	}
	for i := range 50_000 {
		if name := fmt.Sprintf("entry %d ü", i); !names[name] {
			t.Fatalf("%q is missing", name)
		}
	}
	// One name that cannot be sent must not cost the others.
	if !names["not \uFFFD UTF-8"] || len(names) != 50_001 {
		t.Errorf("%d names", len(names))
	}
	t.Logf("50,001 entries in %v", took)
	if took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}
