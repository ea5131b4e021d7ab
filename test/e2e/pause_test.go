package e2e_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/test/stand"
)

// setUp gives a sandbox what a pause must keep: a process with its memory, a
// server, files of all kinds.
const setUp = `
set -e
mkdir -p /w && cd /w
cat > memory.py <<'END'
import hashlib, http.server, os
held = os.urandom(64 << 20)
digest = hashlib.sha256(held).hexdigest()
count = 0
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global count
        count += 1
        ok = hashlib.sha256(held).hexdigest() == digest
        self.send_response(200); self.end_headers()
        self.wfile.write(f"{os.getpid()} {count} {ok}".encode())
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
END
(setsid python3 memory.py >/dev/null 2>&1 </dev/null &)
until ss -ltn | grep -q :8080; do sleep 0.1; done
echo kept > file; ln file hard; ln -s file soft; truncate -s 100M sparse; dd if=/dev/urandom of=big bs=1M count=20 status=none
python3 -c 'import os; os.setxattr("file", "user.note", b"mine")'
echo gone-but-open > deleted; (setsid sh -c 'exec 9<deleted; rm deleted; sleep 100000' >/dev/null 2>&1 </dev/null &)
sha256sum big > big.sum; echo 1 > /dev/shm/memory
sleep 0.5; cat /proc/sys/kernel/random/boot_id
`

// check says whether all of it is still there.
const check = `
set -e
cd /w
cat file hard soft; stat -c '%h %s' file sparse; sha256sum -c big.sum
python3 -c 'import os; print(os.getxattr("file", "user.note").decode())'
cat /proc/$(pgrep -f "sleep 100000" | head -1)/fd/9 /dev/shm/memory
`

const checked = "kept\nkept\nkept\n2 5\n1 104857600\nbig: OK\nmine\ngone-but-open\n1\n"

// ask asks the server inside and returns its process, its count of questions,
// and whether its memory is whole.
func ask(t *testing.T, s *stand.Server, id string) (pid string, count int, whole bool) {
	t.Helper()
	status, body := get(t, s, "8080", id, "/")
	fields := strings.Fields(body)
	if status != http.StatusOK || len(fields) != 3 {
		t.Fatalf("the server inside: %d %q", status, body)
	}
	count, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return fields[0], count, fields[2] == "True"
}

func pause(t *testing.T, s *stand.Server, sb *stand.Sandbox) {
	t.Helper()
	if status, body := s.Do(t, "POST", "/sandboxes/"+sb.ID+"/pause", nil); status != http.StatusNoContent {
		t.Fatalf("pause: %d %v\n%s", status, body, s.Log())
	}
}

func connect(t *testing.T, s *stand.Server, sb *stand.Sandbox, want int) {
	t.Helper()
	status, body := s.Do(t, "POST", "/v2/sandboxes/"+sb.ID+"/connect", map[string]any{"timeout": 600})
	if status != want || body["envdAccessToken"] != sb.Token {
		t.Fatalf("connect: %d %v, want %d and the token of before\n%s", status, body, want, s.Log())
	}
}

func TestPause(t *testing.T) {
	s := stand.Start(t)
	t.Run("everything is kept", func(t *testing.T) { testPauseKeeps(t, s) })
	t.Run("the end of its time", func(t *testing.T) { testPauseAtTheEnd(t, s) })
	t.Run("traffic wakes", func(t *testing.T) { testWake(t, s) })
	t.Run("without memory", func(t *testing.T) { testPauseFilesOnly(t, s) })
	t.Run("idle", func(t *testing.T) { testIdle(t, s) })
	t.Run("fork", func(t *testing.T) { testFork(t, s) })
	t.Run("kill of a paused one", func(t *testing.T) {
		sb := s.Create(t, nil)
		pause(t, s, sb)
		sb.Kill(t)
		for what, n := range s.Census(t) {
			if n > 0 && !strings.HasPrefix(what, "mounts") {
				t.Errorf("%s: %d left", what, n)
			}
		}
	})
}

func testPauseKeeps(t *testing.T, s *stand.Server) {
	sb := s.Create(t, map[string]any{"envVars": map[string]string{"GREETING": "hello"}})
	defer sb.Kill(t)
	boot := sb.Run(t, setUp)
	if boot.Exit != 0 {
		t.Fatalf("%+v", boot)
	}
	pid, last, _ := ask(t, s, sb.ID)
	for round := range 5 {
		pause(t, s, sb)
		if status, _ := s.Do(t, "POST", "/sandboxes/"+sb.ID+"/pause", nil); status != http.StatusConflict {
			t.Errorf("the second pause: %d, want 409", status)
		}
		if status, body := s.Do(t, "GET", "/sandboxes/"+sb.ID, nil); status != 200 || body["state"] != "paused" {
			t.Errorf("detail of a paused one: %d %v", status, body)
		}
		if status, _ := get(t, s, "49983", sb.ID, "/health"); status != http.StatusBadGateway {
			t.Errorf("health of a paused one: %d, want 502", status)
		}
		switch round { // the server may come and go
		case 1:
			s.Kill(t)
			s.Run(t)
		case 2:
			s.Terminate(t)
			s.Run(t)
		}
		connect(t, s, sb, http.StatusCreated)
		connect(t, s, sb, http.StatusOK)
		nowPID, count, whole := ask(t, s, sb.ID)
		if nowPID != pid || count != last+1 || !whole {
			t.Fatalf("round %d: process %s, question %d, memory whole %v; want process %s, question %d", round, nowPID, count, whole, pid, last+1)
		}
		last = count
		if r := sb.Run(t, check); r.Stdout != checked {
			t.Fatalf("round %d: %+v", round, r)
		}
	}
	now := sb.Run(t, `cat /proc/sys/kernel/random/boot_id; echo $GREETING; date +%s; pip download --no-deps -q -d /tmp/p six && echo online`)
	lines := strings.Split(strings.TrimSpace(now.Stdout), "\n")
	if len(lines) != 4 || lines[0]+"\n" != boot.Stdout || lines[1] != "hello" || lines[3] != "online" {
		t.Fatalf("afterwards: %+v; the boot was %q", now, boot.Stdout)
	}
	if clock, _ := strconv.ParseInt(lines[2], 10, 64); clock < time.Now().Unix()-5 || clock > time.Now().Unix()+5 {
		t.Errorf("the clock inside says %d, here it is %d", clock, time.Now().Unix())
	}
}

func testPauseAtTheEnd(t *testing.T, s *stand.Server) {
	sb := s.Create(t, map[string]any{"autoPause": true, "timeout": 2})
	deadline := time.Now().Add(10 * time.Second)
	for state := any(""); state != "paused"; {
		status, body := s.Do(t, "GET", "/sandboxes/"+sb.ID, nil)
		if state = body["state"]; status != 200 || time.Now().After(deadline) {
			t.Fatalf("%d %v", status, body)
		}
	}
	connect(t, s, sb, http.StatusCreated)
	_, body := s.Do(t, "GET", "/sandboxes/"+sb.ID, nil)
	if lifecycle := fmt.Sprint(body["lifecycle"]); !strings.Contains(lifecycle, "onTimeout:pause") {
		t.Errorf("after the resume its lifecycle is %s", lifecycle)
	}
	sb.Kill(t)
}

func testWake(t *testing.T, s *stand.Server) {
	sb := s.Create(t, map[string]any{"autoPause": true, "autoResume": map[string]any{"enabled": true}})
	defer sb.Kill(t)
	sb.Run(t, setUp)
	pid, _, _ := ask(t, s, sb.ID)
	pause(t, s, sb)
	// A stranger at the daemon's door wakes nobody.
	if status, _ := get(t, s, "49983", sb.ID, "/health"); status != http.StatusForbidden {
		t.Errorf("a request without the token: %d, want 403", status)
	}
	var wg sync.WaitGroup // all of them wait for the one resume
	for range 10 {
		wg.Go(func() {
			if now, _, whole := ask(t, s, sb.ID); now != pid || !whole {
				t.Errorf("process %s, want %s; memory whole: %v", now, pid, whole)
			}
		})
	}
	wg.Wait()
	pause(t, s, sb)
	if r := sb.Run(t, "echo woken"); r.Stdout != "woken\n" { // the daemon, with the token
		t.Errorf("%+v", r)
	}
}

func testFork(t *testing.T, s *stand.Server) {
	origin := s.Create(t, nil)
	defer origin.Kill(t)
	origin.Run(t, setUp)
	pid, _, _ := ask(t, s, origin.ID)
	_, before := s.Do(t, "GET", "/sandboxes/"+origin.ID, nil)
	copies := origin.Fork(t, 3)
	for i, sb := range copies {
		defer sb.Kill(t)
		if now, count, whole := ask(t, s, sb.ID); now != pid || count != 2 || !whole {
			t.Errorf("copy %d: process %s, question %d, memory whole %v", i, now, count, whole)
		}
		if r := sb.Run(t, check); r.Stdout != checked {
			t.Errorf("copy %d: %+v", i, r)
		}
		if r := sb.Run(t, fmt.Sprintf(`echo %d > /w/mine; echo $E2B_SANDBOX_ID $(hostname)`, i)); r.Stdout != sb.ID+" "+sb.ID+"\n" {
			t.Errorf("copy %d takes itself for %q, it is %s", i, r.Stdout, sb.ID)
		}
	}
	for i, sb := range copies { // none sees what another wrote
		if r := sb.Run(t, "cat /w/mine"); r.Stdout != fmt.Sprintln(i) {
			t.Errorf("copy %d: %+v", i, r)
		}
	}
	if r := origin.Run(t, "ls /w/mine; pip download --no-deps -q -d /tmp/p six && echo online"); r.Stdout != "online\n" {
		t.Errorf("the origin: %+v", r)
	}
	if _, after := s.Do(t, "GET", "/sandboxes/"+origin.ID, nil); after["endAt"] != before["endAt"] {
		t.Errorf("the origin's end moved from %v to %v", before["endAt"], after["endAt"])
	}
}

func testPauseFilesOnly(t *testing.T, s *stand.Server) {
	sb := s.Create(t, map[string]any{"envVars": map[string]string{"GREETING": "hello"}})
	defer sb.Kill(t)
	boot := sb.Run(t, setUp).Stdout
	for range 2 {
		if status, body := s.Do(t, "POST", "/sandboxes/"+sb.ID+"/pause", map[string]any{"memory": false}); status != http.StatusNoContent {
			t.Fatalf("pause: %d %v\n%s", status, body, s.Log())
		}
		connect(t, s, sb, http.StatusCreated)
		r := sb.Run(t, `cd /w && cat file hard soft && stat -c '%h %s' file sparse && sha256sum -c big.sum && echo $GREETING
			pgrep -x python3 || echo stopped; ls /dev/shm | wc -l; cat /proc/sys/kernel/random/boot_id`)
		want := "kept\nkept\nkept\n2 5\n1 104857600\nbig: OK\nhello\nstopped\n0\n"
		if !strings.HasPrefix(r.Stdout, want) || strings.HasSuffix(r.Stdout, boot) {
			t.Errorf("afterwards: %+v; the first boot was %q", r, boot)
		}
	}
}

// testIdle leaves a sandbox alone: one that works, or that somebody listens to,
// goes on; one that does neither is paused, and traffic wakes it.
func testIdle(t *testing.T, s *stand.Server) {
	request := map[string]any{"onIdle": map[string]any{"pauseAfter": 10}, "autoPause": true, "autoResume": map[string]any{"enabled": true}}
	idle, busy, heard := s.Create(t, request), s.Create(t, request), s.Create(t, request)
	defer idle.Kill(t)
	defer busy.Kill(t)
	defer heard.Kill(t)
	idle.Run(t, setUp)
	pid, _, _ := ask(t, s, idle.ID)
	busy.Run(t, "(setsid sh -c 'while :; do :; done' >/dev/null 2>&1 </dev/null &)")
	listened := make(chan error, 1)
	go func() {
		_, err := heard.TryRun(t, "sleep 25")
		listened <- err
	}()
	deadline := time.Now().Add(60 * time.Second)
	for state := any(""); state != "paused"; {
		status, body := s.Do(t, "GET", "/sandboxes/"+idle.ID, nil)
		if state = body["state"]; status != 200 || time.Now().After(deadline) {
			t.Fatalf("%d %v", status, body)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := <-listened; err != nil {
		t.Errorf("the command: %v", err)
	}
	for _, sb := range []*stand.Sandbox{busy, heard} {
		if _, body := s.Do(t, "GET", "/sandboxes/"+sb.ID, nil); body["state"] != "running" {
			t.Errorf("one that is in use: %v", body)
		}
	}
	if now, _, whole := ask(t, s, idle.ID); now != pid || !whole {
		t.Errorf("woken: process %s, want %s; memory whole: %v", now, pid, whole)
	}
}
