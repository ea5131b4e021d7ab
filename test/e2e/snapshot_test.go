package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cove-sandbox/cove/test/binaries"
	"github.com/cove-sandbox/cove/test/stand"
)

func TestSnapshots(t *testing.T) {
	s := stand.Start(t)
	t.Run("kept and created from", func(t *testing.T) { testKeptSnapshot(t, s) })
	t.Run("resume without its memory", func(t *testing.T) { testLeaveMemory(t, s) })
	t.Run("repeated request", func(t *testing.T) { testRepeatedRequest(t, s) })
}

// keepSnapshot keeps a snapshot of a sandbox and returns its identifier.
func keepSnapshot(t *testing.T, s *stand.Server, sb *stand.Sandbox, request map[string]any) string {
	t.Helper()
	status, body := s.Do(t, "POST", "/sandboxes/"+sb.ID+"/snapshots", request)
	id, _ := body["snapshotID"].(string)
	if status != http.StatusCreated || id == "" {
		t.Fatalf("snapshot: %d %v\n%s", status, body, s.Log())
	}
	return id
}

func testKeptSnapshot(t *testing.T, s *stand.Server) {
	origin := s.Create(t, map[string]any{"envVars": map[string]string{"GREETING": "hello"}})
	origin.Run(t, setUp)
	pid, _, _ := ask(t, s, origin.ID)
	full := keepSnapshot(t, s, origin, map[string]any{"name": "mine:v1"})
	files := keepSnapshot(t, s, origin, map[string]any{"memory": false})
	if full != "default/mine:v1" {
		t.Errorf("the snapshot's name is %q", full)
	}
	if now, count, whole := ask(t, s, origin.ID); now != pid || count != 2 || !whole {
		t.Errorf("the origin: process %s, question %d, memory whole %v", now, count, whole)
	}
	origin.Run(t, "echo changed > /w/file")
	origin.Kill(t)
	s.Kill(t) // what is kept outlives its sandbox and the server
	s.Run(t)

	for range 2 {
		sb := s.Create(t, map[string]any{"templateID": full, "envVars": map[string]string{"GREETING": "bonjour"}})
		if now, count, whole := ask(t, s, sb.ID); now != pid || count != 2 || !whole {
			t.Errorf("made from it: process %s, question %d, memory whole %v", now, count, whole)
		}
		if r := sb.Run(t, check+"\necho $GREETING $E2B_SANDBOX_ID"); r.Stdout != checked+"bonjour "+sb.ID+"\n" {
			t.Errorf("made from it: %+v", r)
		}
		pause(t, s, sb)
		connect(t, s, sb, http.StatusCreated)
		if _, count, whole := ask(t, s, sb.ID); count != 3 || !whole {
			t.Errorf("after a pause: question %d, memory whole %v", count, whole)
		}
		sb.Kill(t)
	}
	sb := s.Create(t, map[string]any{"templateID": files})
	if r := sb.Run(t, `cd /w && cat file hard soft && sha256sum -c big.sum; pgrep -x python3 || echo stopped`); r.Stdout != "kept\nkept\nkept\nbig: OK\nstopped\n" {
		t.Errorf("made from files: %+v", r)
	}
	sb.Kill(t)
	for _, id := range []string{full, files} {
		for i, want := range []int{http.StatusNoContent, http.StatusNotFound} {
			if status, body := s.Do(t, "DELETE", "/templates/"+url.PathEscape(id), nil); status != want {
				t.Errorf("delete %d of %s: %d %v", i, id, status, body)
			}
		}
	}
	if n := s.Census(t)["snapshots"]; n > 0 {
		t.Errorf("%d snapshots left", n)
	}
}

func testLeaveMemory(t *testing.T, s *stand.Server) {
	sb := s.Create(t, nil)
	defer sb.Kill(t)
	boot := sb.Run(t, setUp).Stdout
	pause(t, s, sb)
	status, body := s.Do(t, "POST", "/v2/sandboxes/"+sb.ID+"/connect", map[string]any{"memory": false})
	if status != http.StatusCreated {
		t.Fatalf("connect: %d %v\n%s", status, body, s.Log())
	}
	r := sb.Run(t, `cd /w && cat file hard soft && stat -c '%h %s' file sparse && sha256sum -c big.sum
		pgrep -x python3 || echo stopped; ls /dev/shm | wc -l; cat /proc/sys/kernel/random/boot_id`)
	if !strings.HasPrefix(r.Stdout, "kept\nkept\nkept\n2 5\n1 104857600\nbig: OK\nstopped\n0\n") || strings.HasSuffix(r.Stdout, boot) {
		t.Errorf("afterwards: %+v; the first boot was %q", r, boot)
	}
	if n := s.Census(t)["snapshots"]; n > 0 {
		t.Errorf("%d snapshots left", n)
	}
}

func testRepeatedRequest(t *testing.T, s *stand.Server) {
	s.Header = http.Header{"Idempotency-Key": {"once-1"}}
	first := s.Create(t, nil)
	s.Kill(t)
	s.Run(t)
	second := s.Create(t, nil)
	s.Header = nil
	if first.ID != second.ID || len(s.List(t)) != 1 {
		t.Errorf("made %s and %s; there are %v", first.ID, second.ID, s.List(t))
	}
	first.Kill(t)
}

// engineOf returns the version and the program of a sandbox's engine.
func engineOf(t *testing.T, s *stand.Server, sb *stand.Sandbox) (version, program string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(s.Dir, "sandboxes", sb.ID, "sandbox.json"))
	if err != nil {
		t.Fatal(err)
	}
	var record struct {
		Handle struct {
			PID    int
			Engine string
		}
	}
	if err := json.Unmarshal(content, &record); err != nil {
		t.Fatal(err)
	}
	program, err = os.Readlink(fmt.Sprintf("/proc/%d/exe", record.Handle.PID))
	if err != nil {
		t.Fatal(err)
	}
	return record.Handle.Engine, program
}

// garbage has the server remove what nothing needs and returns what that was.
func garbage(t *testing.T, s *stand.Server) string {
	t.Helper()
	out, err := s.Command(t, "gc", "--older-than", "0s", "-o", "json")
	if err != nil {
		t.Fatalf("gc: %v: %s", err, out)
	}
	return out
}

// TestUpgrade replaces the programs under a server that has a running and a
// paused sandbox: each goes on with the engine it has.
func TestUpgrade(t *testing.T) {
	s := stand.Start(t)
	running, paused := s.Create(t, nil), s.Create(t, nil)
	for _, sb := range []*stand.Sandbox{running, paused} {
		if r := sb.Run(t, setUp); r.Exit != 0 {
			t.Fatalf("%+v", r)
		}
	}
	old, _ := engineOf(t, s, running)
	pause(t, s, paused)
	s.Terminate(t)
	s.Programs = binaries.Other(t, "cove", "cove-runsc", "cove-envd")
	s.Run(t)

	connect(t, s, paused, http.StatusCreated)
	pause(t, s, running)
	connect(t, s, running, http.StatusCreated)
	for _, sb := range []*stand.Sandbox{running, paused} {
		if _, count, whole := ask(t, s, sb.ID); count != 1 || !whole {
			t.Errorf("question %d, memory whole %v", count, whole)
		}
		if r := sb.Run(t, check); r.Stdout != checked {
			t.Errorf("%+v", r)
		}
		version, program := engineOf(t, s, sb)
		if version != old || !strings.HasPrefix(program, filepath.Join(s.Dir, "engines", old)) {
			t.Errorf("it goes on with %q, %s; it was %q", version, program, old)
		}
	}
	fresh := s.Create(t, nil)
	defer fresh.Kill(t)
	if version, program := engineOf(t, s, fresh); version == old || filepath.Dir(program) != s.Programs {
		t.Errorf("a new one has %q, %s", version, program)
	}

	// The old engine stays for as long as something needs it.
	pause(t, s, paused)
	running.Kill(t)
	if got := garbage(t, s); strings.Contains(got, old) {
		t.Errorf("removed what a snapshot needs: %s", got)
	}
	connect(t, s, paused, http.StatusCreated)
	if got := garbage(t, s); strings.Contains(got, old) {
		t.Errorf("removed what a sandbox needs: %s", got)
	}
	paused.Kill(t)
	if got := garbage(t, s); !strings.Contains(got, `"kind":"engine","name":"`+old+`"`) {
		t.Errorf("removed %s; the old engine is %q", got, old)
	}
	if left, err := os.ReadDir(filepath.Join(s.Dir, "engines")); err != nil || len(left) != 1 {
		t.Errorf("left of engines: %v, %v", left, err)
	}
}
