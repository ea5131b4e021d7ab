package api_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	cove "github.com/cove-sandbox/cove"
)

// snapshotFixture is a fixture whose team keeps two snapshots, one with a name.
func snapshotFixture(t *testing.T) *fixture {
	f := newFixture(t)
	f.control.kept = []cove.NamedSnapshot{
		{Template: cove.Template{ID: "t1", Alias: "snap"}, Tag: "v2", TaggedAt: started},
		{Template: cove.Template{ID: "t2", Alias: "t2"}, Tag: "default", TaggedAt: started.Add(-time.Hour)},
	}
	return f
}

func TestCreateSnapshot(t *testing.T) {
	f := snapshotFixture(t)
	for body, want := range map[string]cove.NewSnapshot{
		``:                          {},
		`{}`:                        {},
		`{"name":"snap:v2"}`:        {Name: "snap:v2"},
		`{"memory":false}`:          {FilesOnly: true},
		`{"name":"","memory":true}`: {},
	} {
		w := f.do("POST", "/sandboxes/iabc/snapshots", body)
		if w.Code != http.StatusCreated || f.control.snapshot != want {
			t.Errorf("%s: %d %s, asked for %+v, want %+v", body, w.Code, w.Body, f.control.snapshot, want)
		}
		answer := map[string]any{"snapshotID": "my-team/snap:v2", "names": []any{"my-team/snap:v2"}}
		if diff := cmp.Diff(answer, fields(t, w)); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
	}
	wantError(t, f.do("POST", "/sandboxes/inone/snapshots", "{}"), 404, `Sandbox "inone" doesn't exist`)
	wantError(t, f.do("POST", "/sandboxes/iabc/snapshots", `{"tag":"x"}`), 400, `unknown field "tag"`)
}

func TestListSnapshots(t *testing.T) {
	f := snapshotFixture(t)
	w := f.do("GET", "/snapshots?limit=2&name=my-team%2Fsnap&sandboxID=iabc-6532622b", "")
	var got []map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	want := []map[string]any{
		{"snapshotID": "my-team/snap:v2", "names": []any{"my-team/snap:v2"}},
		{"snapshotID": "t2:default", "names": []any{}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	if f.control.name != "my-team/snap" || f.control.selection.Origin != "iabc" || f.control.selection.Limit != 2 {
		t.Errorf("asked for %q, %+v", f.control.name, f.control.selection)
	}
	token := w.Header().Get("X-Next-Token")
	f.do("GET", "/snapshots?nextToken="+url.QueryEscape(token), "")
	if after := f.control.selection.After; after != (cove.SnapshotPos{TaggedAt: started.Add(-time.Hour), Template: "t2", Tag: "default"}) {
		t.Errorf("the token %q says %+v", token, after)
	}
	f.control.kept = nil
	if w := f.do("GET", "/snapshots", ""); w.Body.String() != "[]" || w.Header().Get("X-Next-Token") != "" {
		t.Errorf("an empty list: %s, %v", w.Body, w.Header())
	}
	for _, query := range []string{"limit=0", "limit=101", "nextToken=x", "sandboxID=A", "tag=x"} {
		if w := f.do("GET", "/snapshots?"+query, ""); w.Code != 400 {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
}
