package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/api"
	"github.com/cove-sandbox/cove/internal/auth"
)

const (
	plainKey = "e2b_0123456789abcdef0123456789abcdef01234567"
	team     = cove.TeamID("team1")
)

var started = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

// fakeControl remembers what it was asked for and answers what it is told to.
type fakeControl struct {
	sandboxes []cove.Sandbox // in order of start
	err       error          // returned by everything if set
	panics    bool

	team    cove.TeamID
	id      cove.SandboxID
	created cove.NewSandbox
	filter  cove.SandboxFilter
	d       time.Duration
	calls   []string

	pause  cove.Pause
	resume cove.Resume

	kept      []cove.NamedSnapshot // newest first
	snapshot  cove.NewSnapshot
	selection cove.SnapshotFilter
	name      string // of a snapshot or a template

	filesOnly bool

	metrics  []cove.Metric // of every sandbox there is
	from, to time.Time
	asked    []cove.SandboxID
	lines    []cove.LogLine
	logs     cove.LogFilter

	fakeTemplates
}

func (f *fakeControl) call(name string, team cove.TeamID, id cove.SandboxID) error {
	f.calls = append(f.calls, name)
	f.team, f.id = team, id
	if f.panics {
		panic("something secret")
	}
	return f.err
}

func (f *fakeControl) find(id cove.SandboxID) (cove.Sandbox, error) {
	for _, sb := range f.sandboxes {
		if sb.ID == id {
			return sb, nil
		}
	}
	return cove.Sandbox{}, cove.E(cove.NotFound, "fake", nil, "words of the fake")
}

func (f *fakeControl) CreateSandbox(_ context.Context, team cove.TeamID, req cove.NewSandbox) (cove.Sandbox, error) {
	f.created = req
	err := f.call("create", team, "")
	return cove.Sandbox{
		ID: "inew", Team: team, Template: "tmpl1", Alias: req.Template, State: cove.Running,
		Secure: req.Secure, StartedAt: started, EndAt: started.Add(req.Timeout), Envd: "0.6.13",
	}, err
}

func (f *fakeControl) Sandbox(_ context.Context, team cove.TeamID, id cove.SandboxID) (cove.Sandbox, error) {
	if err := f.call("get", team, id); err != nil {
		return cove.Sandbox{}, err
	}
	return f.find(id)
}

func (f *fakeControl) PauseSandbox(_ context.Context, team cove.TeamID, id cove.SandboxID, how cove.Pause) error {
	f.pause = how
	if err := f.call("pause", team, id); err != nil {
		return err
	}
	sb, err := f.find(id)
	if err == nil && sb.State == cove.Paused {
		return cove.E(cove.Conflict, "fake", nil, "Error pausing sandbox - sandbox '%s' is already paused", id)
	}
	return err
}

func (f *fakeControl) ConnectSandbox(_ context.Context, team cove.TeamID, id cove.SandboxID, how cove.Resume) (cove.Sandbox, bool, error) {
	f.d, f.resume = how.Timeout, how
	if err := f.call("connect", team, id); err != nil {
		return cove.Sandbox{}, false, err
	}
	sb, err := f.find(id)
	return sb, sb.State == cove.Paused, err
}

func (f *fakeControl) ResumeSandbox(_ context.Context, team cove.TeamID, id cove.SandboxID, how cove.Resume) (cove.Sandbox, error) {
	f.d, f.resume = how.Timeout, how
	if err := f.call("resume", team, id); err != nil {
		return cove.Sandbox{}, err
	}
	return f.find(id)
}

func (f *fakeControl) ForkSandbox(_ context.Context, team cove.TeamID, id cove.SandboxID, count int, d time.Duration) ([]cove.ForkResult, error) {
	f.d = d
	if err := f.call("fork", team, id); err != nil {
		return nil, err
	}
	results := make([]cove.ForkResult, count)
	for i := range results {
		results[i].Sandbox = cove.Sandbox{ID: "icopy", Template: "tmpl1", Secure: true}
	}
	results[0] = cove.ForkResult{Err: cove.E(cove.Exhausted, "fake", errors.New("something secret"), "the server is full")}
	return results, nil
}

func (f *fakeControl) ListSandboxes(_ context.Context, team cove.TeamID, filter cove.SandboxFilter) (cove.SandboxPage, error) {
	f.filter = filter
	if err := f.call("list", team, ""); err != nil {
		return cove.SandboxPage{}, err
	}
	all := slices.Clone(f.sandboxes)
	if filter.Order == cove.Descending {
		slices.Reverse(all)
	}
	page := cove.SandboxPage{Running: len(f.sandboxes)}
	past := filter.After == cove.Cursor{}
	for i, sb := range all {
		if past {
			page.Sandboxes = append(page.Sandboxes, sb)
		}
		if len(page.Sandboxes) == filter.Limit {
			if i+1 < len(all) {
				page.Next = cove.Cursor{StartedAt: sb.StartedAt, ID: sb.ID}
			}
			break
		}
		past = past || sb.ID == filter.After.ID && sb.StartedAt.Equal(filter.After.StartedAt)
	}
	return page, nil
}

func (f *fakeControl) KillSandbox(_ context.Context, team cove.TeamID, id cove.SandboxID) error {
	if err := f.call("kill", team, id); err != nil {
		return err
	}
	_, err := f.find(id)
	return err
}

func (f *fakeControl) SetTimeout(_ context.Context, team cove.TeamID, id cove.SandboxID, d time.Duration) error {
	f.d = d
	if err := f.call("timeout", team, id); err != nil {
		return err
	}
	_, err := f.find(id)
	return err
}

func (f *fakeControl) ExtendSandbox(_ context.Context, team cove.TeamID, id cove.SandboxID, d time.Duration) (cove.Sandbox, error) {
	f.d = d
	if err := f.call("extend", team, id); err != nil {
		return cove.Sandbox{}, err
	}
	return f.find(id)
}

func (f *fakeControl) KeepSnapshot(_ context.Context, team cove.TeamID, id cove.SandboxID, req cove.NewSnapshot) (cove.NamedSnapshot, error) {
	f.snapshot = req
	if err := f.call("keep", team, id); err != nil {
		return cove.NamedSnapshot{}, err
	}
	if _, err := f.find(id); err != nil {
		return cove.NamedSnapshot{}, err
	}
	return f.kept[0], nil
}

func (f *fakeControl) ListSnapshots(_ context.Context, team cove.TeamID, name string, filter cove.SnapshotFilter) (cove.SnapshotPage, error) {
	f.name, f.selection = name, filter
	page := cove.SnapshotPage{Snapshots: f.kept}
	if last := len(f.kept) - 1; len(f.kept) == filter.Limit {
		page.Next = cove.SnapshotPos{TaggedAt: f.kept[last].TaggedAt, Template: f.kept[last].Template.ID, Tag: f.kept[last].Tag}
	}
	return page, f.call("snapshots", team, "")
}

func (f *fakeControl) Team(_ context.Context, id cove.TeamID) (cove.Team, error) {
	return cove.Team{ID: id, Name: "My Team"}, nil
}

// oneKey is a store of one key.
type oneKey struct{}

func (oneKey) KeyByHash(_ context.Context, hash string) (cove.Key, error) {
	if hash != auth.HashKey(plainKey) {
		return cove.Key{}, cove.E(cove.NotFound, "fake", nil, "no such key")
	}
	return cove.Key{Team: team, Hash: hash}, nil
}

// fixture is the surface with a fake behind it.
type fixture struct {
	control *fakeControl
	log     *bytes.Buffer
	handler http.Handler
	tokens  *auth.Tokens
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	tokens, err := auth.NewTokens([]byte("a secret for tests only"), "test")
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{control: &fakeControl{sandboxes: []cove.Sandbox{sandbox("iabc", started)}}, log: &bytes.Buffer{}, tokens: tokens}
	f.handler = api.New(api.Config{
		Control:     f.control,
		Auth:        auth.New(auth.Config{Keys: oneKey{}}),
		Tokens:      tokens,
		Log:         slog.New(slog.NewJSONHandler(f.log, nil)),
		EnvdVersion: "0.9.9",
	})
	return f
}

func sandbox(id cove.SandboxID, at time.Time) cove.Sandbox {
	return cove.Sandbox{
		ID: id, Team: team, Template: "tmpl1", State: cove.Running, StartedAt: at, EndAt: at.Add(time.Minute),
		Resources: cove.Resources{CPUs: 2, MemoryMB: 512, DiskMB: 1024}, Envd: "0.6.13", Secure: true,
	}
}

// do sends a request with the key.
func (f *fixture) do(method, target, body string) *httptest.ResponseRecorder {
	return f.send(request(method, target, body))
}

func (f *fixture) send(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	return w
}

func request(method, target, body string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("X-API-KEY", plainKey)
	return r
}

// fields decodes a JSON object.
func fields(t *testing.T, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("status %d, body %q: %v", w.Code, w.Body, err)
	}
	return got
}

// wantError checks that w is an error in the protocol's form whose message holds
// the given words.
func wantError(t *testing.T, w *httptest.ResponseRecorder, status int, words ...string) {
	t.Helper()
	got := fields(t, w)
	msg, _ := got["message"].(string)
	if w.Code != status || got["code"] != float64(status) || len(got) != 2 {
		t.Errorf("status %d, body %s; want %d and a body that says so", w.Code, w.Body, status)
	}
	for _, word := range words {
		if !strings.Contains(msg, word) {
			t.Errorf("message %q does not hold %q", msg, word)
		}
	}
	if ct := w.Header().Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type = %q", ct)
	}
	if w.Header().Get("X-Request-Id") == "" {
		t.Error("there is no X-Request-Id")
	}
}
