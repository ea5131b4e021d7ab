// Package storetest holds the examination that every store.Store passes.
//
// It is for tests; nothing else may import it.
package storetest

import (
	"bytes"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/store"
)

// Run runs the suite; open returns an empty store and closes it with
// t.Cleanup.
func Run(t *testing.T, open func(*testing.T) store.Store) {
	all := map[string]func(*testing.T, store.Store){
		"secret/is made once and kept":                 secretIsKept,
		"team/create twice conflicts":                  teamTwice,
		"key/found by hash, unknown is not found":      keyByHash,
		"key/of no team is not found":                  keyOfNoTeam,
		"snapshot/kept under a name and a tag":         keepSnapshot,
		"snapshot/name of a template conflicts":        keepSnapshotConflict,
		"snapshot/list filters and pages":              listSnapshots,
		"snapshot/drop a tag, then the rest":           dropSnapshot,
		"snapshot/what a team takes":                   teamUsage,
		"request/claimed once, forgotten, finished":    requests,
		"sandbox/round trip":                           sandboxRoundTrip,
		"sandbox/create twice conflicts":               sandboxTwice,
		"sandbox/another team's is not found":          sandboxForeign,
		"sandbox/illegal transitions conflict":         transitions,
		"sandbox/another execution is not found":       otherExecution,
		"sandbox/pause and resume":                     pauseAndResume,
		"sandbox/end moves, extends and never shrinks": moveEnd,
		"sandbox/list pages in stable order":           listPages,
		"sandbox/list filters":                         listFilters,
		"sandbox/delete pins the execution":            deletePinned,
	}
	for _, more := range []map[string]func(*testing.T, store.Store){templates, builds, layers, usage} {
		maps.Copy(all, more)
	}
	for name, test := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

const team, rival = cove.TeamID("team-1"), cove.TeamID("team-2")

// day is a time with microseconds, as stores keep them.
var day = time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t *testing.T, err error, kind cove.Kind) {
	t.Helper()
	if !cove.Is(err, kind) {
		t.Errorf("err = %v, want kind %v", err, kind)
	}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func sandbox(n int) cove.Sandbox {
	id := fmt.Sprintf("i%03d", n)
	return cove.Sandbox{
		ID: cove.SandboxID(id), Execution: "x1", Team: team, Template: "tpl", Alias: "base", Build: "b1", Node: cove.LocalNode,
		State: cove.Starting, Resources: cove.Resources{CPUs: 2, MemoryMB: 512, DiskMB: 1024},
		StartedAt: day.Add(time.Duration(n) * time.Second), EndAt: day.Add(time.Hour),
		Metadata: map[string]string{"n": fmt.Sprint(n)}, Env: map[string]string{"A": "ü\n"}, Secure: true, Envd: "1.2.3",
	}
}

func running(t *testing.T, s store.Store, sb cove.Sandbox) cove.Sandbox {
	t.Helper()
	must(t, s.CreateSandbox(t.Context(), sb))
	sb, err := s.Transition(t.Context(), sb.ID, sb.Execution, store.Change{To: cove.Running})
	must(t, err)
	return sb
}

func secretIsKept(t *testing.T, s store.Store) {
	one, err := s.Secret(t.Context(), "tokens")
	must(t, err)
	again, err := s.Secret(t.Context(), "tokens")
	must(t, err)
	other, err := s.Secret(t.Context(), "other")
	must(t, err)
	if len(one) != 32 || !bytes.Equal(one, again) || bytes.Equal(one, other) {
		t.Errorf("secrets: %x, again %x, other %x", one, again, other)
	}
}

func teamTwice(t *testing.T, s store.Store) {
	want := []cove.Team{{ID: team, Name: "first", CreatedAt: day}, {ID: rival, Name: "second", CreatedAt: day.Add(1000)}}
	must(t, s.CreateTeam(t.Context(), want[1]))
	must(t, s.CreateTeam(t.Context(), want[0]))
	wantKind(t, s.CreateTeam(t.Context(), want[0]), cove.Conflict)
	got, err := s.Teams(t.Context())
	must(t, err)
	same(t, "teams", got, want)
	one, err := s.Team(t.Context(), rival)
	must(t, err)
	same(t, "team", one, want[1])
	_, err = s.Team(t.Context(), "nobody")
	wantKind(t, err, cove.NotFound)
}

func keyByHash(t *testing.T, s store.Store) {
	must(t, s.CreateTeam(t.Context(), cove.Team{ID: team, Name: "t", CreatedAt: day}))
	want := cove.Key{ID: "k1", Team: team, Name: "default", Hash: "h1", Mask: "e2b_…1", CreatedAt: day}
	must(t, s.CreateKey(t.Context(), want))
	got, err := s.KeyByHash(t.Context(), "h1")
	must(t, err)
	same(t, "key", got, want)
	_, err = s.KeyByHash(t.Context(), "h2")
	wantKind(t, err, cove.NotFound)
	want.ID = "k2"
	wantKind(t, s.CreateKey(t.Context(), want), cove.Conflict)
}

func keyOfNoTeam(t *testing.T, s store.Store) {
	err := s.CreateKey(t.Context(), cove.Key{ID: "k1", Team: "nobody", Hash: "h", CreatedAt: day})
	wantKind(t, err, cove.NotFound)
}

func sandboxRoundTrip(t *testing.T, s store.Store) {
	no := false
	plain, full := sandbox(1), sandbox(2)
	full.Internet, full.Secure = &no, false
	plain.Lifecycle.OnTimeout = cove.KillOnTimeout
	full.Lifecycle = cove.Lifecycle{OnTimeout: cove.PauseOnTimeout, AutoResume: true, Timeout: 90 * time.Second}
	full.Unresponsive, full.SnapshotBytes, full.User, full.Workdir = true, 1<<40, "user", "/w"
	full.Lifecycle.IdleAfter = time.Minute
	full.Lifecycle.FilesOnly, full.Snapshot, full.FilesOnly = true, "s1", true
	plain.Metadata, plain.Env = map[string]string{}, map[string]string{}
	for _, want := range []cove.Sandbox{plain, full} {
		must(t, s.CreateSandbox(t.Context(), want))
		got, err := s.Sandbox(t.Context(), team, want.ID)
		must(t, err)
		same(t, "sandbox", got, want)
		got, err = s.SandboxByID(t.Context(), want.ID)
		must(t, err)
		same(t, "sandbox by id", got, want)
	}
	all, err := s.NodeSandboxes(t.Context(), cove.LocalNode)
	must(t, err)
	same(t, "node's sandboxes", all, []cove.Sandbox{plain, full})
	none, err := s.NodeSandboxes(t.Context(), "elsewhere")
	must(t, err)
	same(t, "another node's sandboxes", len(none), 0)
}

func sandboxTwice(t *testing.T, s store.Store) {
	must(t, s.CreateSandbox(t.Context(), sandbox(1)))
	wantKind(t, s.CreateSandbox(t.Context(), sandbox(1)), cove.Conflict)
}

func sandboxForeign(t *testing.T, s store.Store) {
	running(t, s, sandbox(1))
	_, err := s.Sandbox(t.Context(), rival, "i001")
	wantKind(t, err, cove.NotFound)
	_, err = s.MoveEnd(t.Context(), rival, "i001", day, false)
	wantKind(t, err, cove.NotFound)
	page, err := s.ListSandboxes(t.Context(), rival, cove.SandboxFilter{Limit: 10})
	must(t, err)
	same(t, "the rival's list", page, cove.SandboxPage{})
}

func transitions(t *testing.T, s store.Store) {
	sb := running(t, s, sandbox(1))
	_, err := s.Transition(t.Context(), sb.ID, sb.Execution, store.Change{To: cove.Starting})
	wantKind(t, err, cove.Conflict)
	got, err := s.Transition(t.Context(), sb.ID, sb.Execution, store.Change{To: cove.Killing, StartedAt: day.Add(time.Hour), EndAt: day.Add(2 * time.Hour)})
	must(t, err)
	if got.State != cove.Killing || !got.StartedAt.Equal(day.Add(time.Hour)) || !got.EndAt.Equal(day.Add(2*time.Hour)) {
		t.Errorf("after the transition: %+v", got)
	}
	_, err = s.Transition(t.Context(), sb.ID, sb.Execution, store.Change{To: cove.Running})
	wantKind(t, err, cove.Conflict)
	_, err = s.Transition(t.Context(), "nosuch", "x1", store.Change{To: cove.Running})
	wantKind(t, err, cove.NotFound)
}

func pauseAndResume(t *testing.T, s store.Store) {
	sb := running(t, s, sandbox(1))
	saved := &store.SnapshotChange{ID: "s1", FilesOnly: true, Unresponsive: true, Bytes: 7}
	for _, step := range []struct {
		change        store.Change
		wantExecution cove.ExecutionID
		wantSnapshot  cove.SnapshotID
	}{
		{store.Change{To: cove.Pausing}, "x1", ""},
		{store.Change{To: cove.Paused, Snapshot: saved}, "x1", "s1"},
		{store.Change{To: cove.Resuming, Execution: "x2", OnTimeout: cove.PauseOnTimeout}, "x2", "s1"},
		{store.Change{To: cove.Running, Snapshot: &store.SnapshotChange{}}, "x2", ""},
	} {
		got, err := s.Transition(t.Context(), sb.ID, sb.Execution, step.change)
		must(t, err)
		if got.State != step.change.To || got.Execution != step.wantExecution || got.Snapshot != step.wantSnapshot ||
			got.FilesOnly != (step.wantSnapshot == "s1") || got.Unresponsive != got.FilesOnly || got.SnapshotBytes != 7 && got.FilesOnly ||
			(got.Lifecycle.OnTimeout == cove.PauseOnTimeout) != (step.wantExecution == "x2") {
			t.Errorf("%+v: %+v", step, got)
		}
		again, err := s.Sandbox(t.Context(), team, sb.ID)
		must(t, err)
		same(t, "as recorded", again, got)
		sb = got
	}
}

func otherExecution(t *testing.T, s store.Store) {
	sb := running(t, s, sandbox(1))
	_, err := s.Transition(t.Context(), sb.ID, "x2", store.Change{To: cove.Killing})
	wantKind(t, err, cove.NotFound)
}

func moveEnd(t *testing.T, s store.Store) {
	sb := running(t, s, sandbox(1))
	for _, step := range []struct {
		end    time.Duration
		extend bool
		want   time.Duration
	}{{time.Minute, false, time.Minute}, {time.Second, true, time.Minute}, {time.Hour, true, time.Hour}, {time.Second, false, time.Second}} {
		got, err := s.MoveEnd(t.Context(), team, sb.ID, day.Add(step.end), step.extend)
		must(t, err)
		if !got.EndAt.Equal(day.Add(step.want)) {
			t.Errorf("%+v: ends at %v", step, got.EndAt.Sub(day))
		}
	}
	must(t, s.CreateSandbox(t.Context(), sandbox(2)))
	_, err := s.MoveEnd(t.Context(), team, "i002", day, false)
	wantKind(t, err, cove.Conflict) // it does not run yet
}

func listPages(t *testing.T, s store.Store) {
	for n := range 5 {
		sb := sandbox(n)
		if n > 2 { // three of one moment: the identifier decides
			sb.StartedAt = sandbox(2).StartedAt
		}
		running(t, s, sb)
	}
	for order, want := range map[cove.Order]string{
		cove.Descending: "i004 i003 | i002 i001 | i000 ",
		cove.Ascending:  "i000 i001 | i002 i003 | i004 ",
	} {
		var got string
		filter := cove.SandboxFilter{Limit: 2, Order: order}
		for {
			page, err := s.ListSandboxes(t.Context(), team, filter)
			must(t, err)
			same(t, "running", page.Running, 5)
			for _, sb := range page.Sandboxes {
				got += string(sb.ID) + " "
			}
			if page.Next == (cove.Cursor{}) {
				break
			}
			got += "| "
			filter.After = page.Next
		}
		same(t, string(order), got, want)
	}
	page, err := s.ListSandboxes(t.Context(), team, cove.SandboxFilter{Limit: 5})
	must(t, err)
	same(t, "a page that is just full has no next", page.Next, cove.Cursor{})
}

func listFilters(t *testing.T, s store.Store) {
	for n := range 3 {
		sb := sandbox(n)
		sb.Metadata["odd"] = fmt.Sprint(n % 2)
		sb.Metadata["it's"] = `"q"`
		if n == 2 {
			sb.Template, sb.Alias = "other", "custom"
		}
		running(t, s, sb)
	}
	must(t, s.CreateSandbox(t.Context(), sandbox(3)))
	for name, c := range map[string]struct {
		filter cove.SandboxFilter
		want   string
	}{
		"default is running":    {cove.SandboxFilter{}, "i002 i001 i000 "},
		"states":                {cove.SandboxFilter{States: []cove.State{cove.Starting}}, "i003 "},
		"metadata":              {cove.SandboxFilter{Metadata: map[string]string{"odd": "0"}}, "i002 i000 "},
		"metadata, all of it":   {cove.SandboxFilter{Metadata: map[string]string{"odd": "0", "n": "2"}}, "i002 "},
		"metadata with quotes":  {cove.SandboxFilter{Metadata: map[string]string{"it's": `"q"`}}, "i002 i001 i000 "},
		"metadata as injection": {cove.SandboxFilter{Metadata: map[string]string{"' OR 1=1 --": "x"}}, ""},
		"alias":                 {cove.SandboxFilter{Template: "custom"}, "i002 "},
		"template identifier":   {cove.SandboxFilter{Template: "tpl"}, "i001 i000 "},
		"unknown template":      {cove.SandboxFilter{Template: "nosuch"}, ""},
		"started after":         {cove.SandboxFilter{StartedAfter: sandbox(1).StartedAt}, "i002 i001 "},
		"started just after":    {cove.SandboxFilter{StartedAfter: sandbox(1).StartedAt.Add(time.Microsecond)}, "i002 "},
	} {
		c.filter.Limit = 10
		page, err := s.ListSandboxes(t.Context(), team, c.filter)
		must(t, err)
		var got string
		for _, sb := range page.Sandboxes {
			got += string(sb.ID) + " "
		}
		same(t, name, got, c.want)
	}
}

func deletePinned(t *testing.T, s store.Store) {
	sb := running(t, s, sandbox(1))
	must(t, s.DeleteSandbox(t.Context(), sb.ID, "x2"))
	_, err := s.SandboxByID(t.Context(), sb.ID)
	must(t, err)
	must(t, s.DeleteSandbox(t.Context(), sb.ID, sb.Execution))
	_, err = s.SandboxByID(t.Context(), sb.ID)
	wantKind(t, err, cove.NotFound)
	must(t, s.DeleteSandbox(t.Context(), sb.ID, sb.Execution))
}
