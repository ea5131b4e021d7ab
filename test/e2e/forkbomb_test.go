package e2e_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/test/stand"
)

// bombLimit is how long a bomb may go on, and bombAnswer how long a small command
// may take meanwhile: a login shell, which makes some processes itself. On an
// idle machine it is two seconds.
const (
	bombLimit  = time.Minute
	bombAnswer = 15 * time.Second
)

// Each makes processes as fast as it can, for as long as it lives. A name in the
// command lines tells them from everything else.
const (
	shellBomb  = `:(){ :|:& };:`
	pythonBomb = `exec python3 -c "
import os # fuse
while 1:
  try: BODY
  except OSError: pass"`
)

// TestForkBombs lets off bombs in sandboxes with two processors and 1 GiB.
func TestForkBombs(t *testing.T) {
	s := stand.Start(t)
	python := func(body string) string { return strings.Replace(pythonBomb, "BODY", body, 1) }
	for name, bomb := range map[string]struct {
		user, command string
		resumed       bool // let off after a pause
	}{
		"shell":         {"user", shellBomb, false},
		"root's shell":  {"root", shellBomb, false},
		"python":        {"user", python("os.fork()"), false},
		"root's python": {"root", python("os.fork()"), false},
		"own sessions":  {"user", python("os.fork() or os.setsid()"), false},
		"daemons":       {"user", python("os.fork() or (os.setsid(), os.fork() and os._exit(0))"), false},
		"after a pause": {"root", python("os.fork() or os.setsid()"), true},
	} {
		t.Run(name, func(t *testing.T) {
			sb := s.Create(t, nil)
			defer sb.Kill(t)
			if bomb.resumed {
				pause(t, s, sb)
				connect(t, s, sb, http.StatusCreated)
			}
			testForkBomb(t, sb, bomb.user, bomb.command)
		})
	}
}

func testForkBomb(t *testing.T, sb *stand.Sandbox, user, command string) {
	pid := bystander(t, sb)
	sb.Run(t, "cat > /tmp/bomb <<'END'\n"+command+"\nEND\nchmod 755 /tmp/bomb")
	stop := answering(t, sb)
	begin := time.Now()
	r, err := sb.TryRun(t, "exec su "+user+" -c 'exec bash /tmp/bomb' >/dev/null 2>&1")
	if err != nil { // it may have been killed, or have left its children behind
		t.Errorf("the bomb: %+v, %v", r, err)
	}
	for left := -1; left != 0; {
		r, err := sb.TryRun(t, `cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ' | grep -c -e "/tmp/bo[m]b" -e "# [f]use"`)
		if err != nil {
			t.Fatalf("the sandbox is gone, or as good as: %v", err)
		}
		if left, err = strconv.Atoi(strings.TrimSpace(r.Stdout)); err != nil {
			t.Fatalf("%+v", r)
		}
		if time.Since(begin) > bombLimit {
			t.Fatalf("it is not over: %d lines are left", left)
		}
	}
	took := time.Since(begin)
	t.Logf("over after %v; a small command took at most %v", took, stop())
	wantWell(t, sb, pid)
	if r := sb.Run(t, "for i in $(seq 100); do (echo $i) & done | sort -n | tail -n 1; python3 -c 'print(6*7)'"); r.Stdout != "100\n42\n" {
		t.Errorf("afterwards: %+v", r)
	}
}

// answering runs small commands, one after the other, until it is stopped. Each
// must succeed in time. stop says how long the longest took.
func answering(t *testing.T, sb *stand.Sandbox) (stop func() time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	longest := make(chan time.Duration, 1)
	go func() {
		var most time.Duration
		for ctx.Err() == nil {
			begin := time.Now()
			r, err := sb.TryRun(t, "true")
			took := time.Since(begin)
			if err != nil || r != (stand.Result{}) || took > bombAnswer {
				t.Errorf("a small command: %+v, %v, after %v", r, err, took)
				break
			}
			most = max(most, took)
		}
		longest <- most
	}()
	return func() time.Duration { cancel(); return <-longest }
}
