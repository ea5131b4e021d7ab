package orchestrator_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/orchestrator"
	"github.com/cove-sandbox/cove/internal/runtime/runtimetest"
)

func pause(t *testing.T, o *orchestrator.Orchestrator, snapshot cove.SnapshotID) {
	t.Helper()
	if _, err := o.Pause(t.Context(), id, "x1", node.Save{Snapshot: snapshot}); err != nil {
		t.Fatalf("pause: %v", err)
	}
}

// wantNoSnapshots looks at the disk: nothing complete, nothing half made.
func wantNoSnapshots(t *testing.T, m *machine) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) { // removing takes its time
		entries, _ := os.ReadDir(m.dir + "-snapshots")
		if len(entries) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left of snapshots: %v", entries)
		}
	}
}

func TestFailedPauseLeavesItRunning(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T, *machine){
		"no room":                   func(_ *testing.T, m *machine) { m.memory = 1 << 60 },
		"the engine cannot be kept": func(_ *testing.T, m *machine) { m.broken = "engine" },
		"the engine fails": func(t *testing.T, m *machine) {
			// A directory stands where the engine writes.
			if err := os.MkdirAll(filepath.Join(m.dir+"-snapshots", ".s1.partial", "x"), 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"a snapshot of that name is there": func(t *testing.T, m *machine) {
			if err := os.MkdirAll(filepath.Join(m.dir+"-snapshots", "s1", "x"), 0o700); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			o := m.orchestrator(t, nil)
			serve(t, o)
			create(t, o)
			spoil(t, m)
			if _, err := o.Pause(t.Context(), id, "x1", node.Save{Snapshot: "s1"}); err == nil {
				t.Fatal("the pause succeeded")
			}
			if m.host.Frozen(string(id)) || m.host.Running(string(id)) != 1 {
				t.Error("it does not run on")
			}
			m.memory, m.broken = 0, ""
			pause(t, o, "s2")
		})
	}
}

func TestRestartAfterAPauseThatWasNotFinished(t *testing.T) {
	m := newMachine(t)
	first := m.orchestrator(t, nil)
	stop := serve(t, first)
	create(t, first)
	pause(t, first, "s1")
	stop() // as if killed between the snapshot and the pointer to it
	partial := filepath.Join(m.dir+"-snapshots", ".s9.partial")
	if err := os.MkdirAll(partial, 0o700); err != nil {
		t.Fatal(err)
	}

	second := m.orchestrator(t, nil)
	serve(t, second)
	if !m.host.Frozen(string(id)) {
		t.Error("adopting it let it go on: that is for somebody else to decide")
	}
	if _, err := os.Stat(partial); err == nil {
		t.Error("half a snapshot is still there")
	}
	m.mute = true // nothing answers, because it stands still
	if err := second.Thaw(t.Context(), id, "x1"); err != nil {
		t.Fatalf("thaw: %v", err)
	}
	if m.host.Frozen(string(id)) {
		t.Error("it still stands")
	}
	if err := second.DeleteSnapshot(t.Context(), "s1"); err != nil {
		t.Fatal(err)
	}
	wantNoSnapshots(t, m)
}

func TestThawInDoubt(t *testing.T) {
	m := newMachine(t)
	first := m.orchestrator(t, nil)
	stop := serve(t, first)
	create(t, first)
	stop()
	// As if killed after the note that it will be stopped, before it was.
	path := filepath.Join(m.dir, string(id), "sandbox.json")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(content, []byte("{"), []byte(`{"frozen":true,`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	second := m.orchestrator(t, nil)
	serve(t, second)
	if err := second.Thaw(t.Context(), id, "x1"); err != nil {
		t.Errorf("thawing one that runs: %v", err) // the fake, as the engine, forbids it
	}
}

func TestSnapshotGoesOnWithTheEngineThatWroteIt(t *testing.T) {
	m := newMachine(t)
	first := m.orchestrator(t, nil)
	stop := serve(t, first)
	create(t, first)
	pause(t, first, "s1")
	if err := first.Kill(t.Context(), id, "x1"); err != nil {
		t.Fatal(err)
	}
	stop()
	newer := &runtimetest.Fake{Host: m.host, Engine: "engine 2"}
	second := m.orchestrator(t, func(c *orchestrator.Config) { c.Runtime = newer })
	serve(t, second)
	s := spec()
	s.Snapshot = "s1"
	if err := second.Create(t.Context(), s); !cove.Is(err, cove.NotFound) {
		t.Errorf("without that engine: %v, want not found", err)
	}
	wantClean(t, m)
	newer.Engines = []string{"engine 1"}
	if err := second.Create(t.Context(), s); err != nil {
		t.Fatalf("with that engine: %v", err)
	}
	// It is still that engine's, so its next snapshot is too.
	pause(t, second, "s2")
	if got := engineOf(t, m, "s2"); got != "engine 1" {
		t.Errorf("the next snapshot is of %q", got)
	}
}

// engineOf reads a snapshot's manifest.
func engineOf(t *testing.T, m *machine, snapshot cove.SnapshotID) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(m.dir+"-snapshots", string(snapshot), "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct{ Engine string }
	if err := json.Unmarshal(content, &manifest); err != nil {
		t.Fatal(err)
	}
	return manifest.Engine
}

func TestPauseOfASandboxWhoseDaemonDoesNotAnswer(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	create(t, o)
	m.mute = true
	for name, how := range map[string]node.Save{
		"strict":         {Snapshot: "s1", Strict: true},
		"without memory": {Snapshot: "s1", FilesOnly: true},
	} {
		if _, err := o.Pause(t.Context(), id, "x1", how); !cove.Is(err, cove.Unavailable) || m.host.Frozen(string(id)) {
			t.Errorf("%s: %v, stands still %v", name, err, m.host.Frozen(string(id)))
		}
	}
	saved, err := o.Pause(t.Context(), id, "x1", node.Save{Snapshot: "s1"})
	if err != nil || !saved.Unresponsive || saved.Bytes == 0 {
		t.Errorf("%+v, %v", saved, err)
	}
}

func TestPauseAboveTheQuotaStopsNothing(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	create(t, o)
	m.memory = 10 << 20
	if _, err := o.Pause(t.Context(), id, "x1", node.Save{Snapshot: "s1", Most: 9 << 20}); !cove.Is(err, cove.Exhausted) {
		t.Errorf("err = %v", err)
	}
	if m.host.Frozen(string(id)) {
		t.Error("it stands still")
	}
	wantNoSnapshots(t, m)
	if _, err := o.Pause(t.Context(), id, "x1", node.Save{Snapshot: "s1", Most: 11 << 20}); err != nil {
		t.Error(err)
	}
}

// TestOtherProcessor saves on a processor that can do more than this one.
func TestOtherProcessor(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	create(t, o)
	pause(t, o, "s1")
	if err := o.Kill(t.Context(), id, "x1"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(m.dir+"-snapshots", "s1", "manifest.json")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(content, []byte(`"cpu": [`), []byte(`"cpu": ["xyz99",`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	s := spec()
	s.Snapshot = "s1"
	m.broken = "runtime"
	if err := o.Create(t.Context(), s); !cove.Is(err, cove.Conflict) || !strings.Contains(err.Error(), "xyz99") || !errors.Is(err, errBroken) {
		t.Errorf("where that matters: %v", err)
	}
	wantClean(t, m)
	m.broken = ""
	if err := o.Create(t.Context(), s); err != nil {
		t.Errorf("where it does not: %v", err)
	}
}
