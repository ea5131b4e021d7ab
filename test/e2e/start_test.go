package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/test/stand"
)

// bootID is the file that says which boot of the kernel inside it is.
const bootID = "/proc/sys/kernel/random/boot_id"

// site is a template whose start command writes down who runs it, in which boot,
// and serves that.
var site = map[string]any{
	"fromTemplate": "base",
	"steps": []map[string]any{
		{"type": "WORKDIR", "args": []string{"/srv/site"}}, {"type": "RUN", "args": []string{"chown user: .", "root"}},
		{"type": "USER", "args": []string{"user"}}, {"type": "ENV", "args": []string{"GREETING", "hello"}},
	},
	"startCmd": `echo "$GREETING $(whoami) $(cat ` + bootID + `)" > index.html; exec python3 -m http.server 8000`,
	"readyCmd": "curl -sf localhost:8000",
}

// visit waits until the site of a sandbox answers and returns the boot of its
// start command.
func visit(t *testing.T, s *stand.Server, sb *stand.Sandbox, patience time.Duration) (boot string) {
	t.Helper()
	begun := time.Now()
	for {
		status, body := get(t, s, "8000", sb.ID, "/")
		if words := strings.Fields(body); status == http.StatusOK && len(words) == 3 {
			if words[0] != "hello" || words[1] != "user" {
				t.Errorf("the site says %q", body)
			}
			t.Logf("the site answered after %s", time.Since(begun).Round(time.Millisecond))
			return words[2]
		}
		if time.Since(begun) > patience {
			t.Fatalf("the site does not answer: %d %q\n%s", status, body, s.Log())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// How long a site may take: not at all if it went on, and what a program needs
// to begin if it did not.
const (
	atOnce = time.Duration(0)
	soon   = 15 * time.Second
)

// pauseAs and connectAs do so with or without the memory.
func pauseAs(t *testing.T, s *stand.Server, sb *stand.Sandbox, memory bool) {
	t.Helper()
	if status, body := s.Do(t, "POST", "/sandboxes/"+sb.ID+"/pause", map[string]any{"memory": memory}); status != http.StatusNoContent {
		t.Fatalf("pause: %d %v\n%s", status, body, s.Log())
	}
}

func connectAs(t *testing.T, s *stand.Server, sb *stand.Sandbox, memory bool) {
	t.Helper()
	request := map[string]any{"timeout": 600}
	if !memory {
		request["memory"] = false
	}
	if status, body := s.Do(t, "POST", "/v2/sandboxes/"+sb.ID+"/connect", request); status != http.StatusCreated {
		t.Fatalf("connect: %d %v\n%s", status, body, s.Log())
	}
}

func TestStartCommand(t *testing.T) {
	s := stand.Start(t)
	s.Build(t, "site", site).Ready(t)
	sb := s.Create(t, map[string]any{"templateID": "site", "timeout": 600})
	first := visit(t, s, sb, atOnce)

	boots := map[string]bool{first: true}
	last := first
	for _, c := range []struct{ saved, resumed bool }{{true, true}, {false, true}, {true, false}, {false, false}, {true, true}} {
		what := fmt.Sprintf("saved with memory %v, resumed with memory %v", c.saved, c.resumed)
		pauseAs(t, s, sb, c.saved)
		connectAs(t, s, sb, c.resumed)
		if c.saved && c.resumed {
			if now := visit(t, s, sb, atOnce); now != last {
				t.Errorf("%s: another boot", what)
			}
			continue
		}
		last = visit(t, s, sb, soon)
		if now := sb.Run(t, "cat "+bootID).Stdout; boots[last] || now != last+"\n" {
			t.Errorf("%s: boot %s of %v, the kernel's is %s", what, last, boots, now)
		}
		if n := sb.Run(t, "pgrep -cf '^python3 -m http.server'").Stdout; n != "1\n" {
			t.Errorf("%s: it runs %s times", what, n)
		}
		boots[last] = true
	}
	t.Run("kept", func(t *testing.T) { testStartCommandKept(t, s, sb, boots) })
	t.Run("that cannot be run", func(t *testing.T) { testStartCommandBroken(t, s, sb) })
	sb.Kill(t)
}

// testStartCommandKept makes sandboxes and a template from kept snapshots.
func testStartCommandKept(t *testing.T, s *stand.Server, origin *stand.Sandbox, boots map[string]bool) {
	keepSnapshot(t, s, origin, map[string]any{"name": "whole"})
	keepSnapshot(t, s, origin, map[string]any{"name": "files", "memory": false})
	s.Build(t, "child", map[string]any{"fromTemplate": "files"}).Ready(t)
	for _, c := range []struct {
		template string
		patience time.Duration
		known    bool // it is the boot of the origin
	}{{"whole", atOnce, true}, {"files", soon, false}, {"child", atOnce, false}} {
		sb := s.Create(t, map[string]any{"templateID": c.template, "timeout": 600})
		if boot := visit(t, s, sb, c.patience); boots[boot] != c.known {
			t.Errorf("%s: boot %s of %v", c.template, boot, boots)
		}
		sb.Kill(t)
	}
}

// testStartCommandBroken takes away whose the start command is: the sandbox comes
// back, and its log says what is wrong.
func testStartCommandBroken(t *testing.T, s *stand.Server, sb *stand.Sandbox) {
	sb.Run(t, "sed -i /^user:/d /etc/passwd")
	pauseAs(t, s, sb, false)
	connectAs(t, s, sb, true)
	if r := sb.Run(t, "pgrep -cf '^python3 -m http.server'"); r.Stdout != "0\n" {
		t.Errorf("%+v", r)
	}
	if l := wantSaid(t, s, sb, "the start command could not be run"); l.Level != "error" || !strings.Contains(l.Message, "invalid username: 'user'") {
		t.Errorf("the log: %+v", l)
	}
}
