package api_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	cove "github.com/cove-sandbox/cove"
)

// identifiers returns the sandboxes of a list answer.
func identifiers(t *testing.T, w *httptest.ResponseRecorder) []string {
	t.Helper()
	var items []struct{ SandboxID string }
	if err := json.Unmarshal(w.Body.Bytes(), &items); err != nil || w.Code != http.StatusOK || items == nil {
		t.Fatalf("status %d, body %q, %v", w.Code, w.Body, err)
	}
	ids := []string{}
	for _, item := range items {
		ids = append(ids, item.SandboxID)
	}
	return ids
}

// crowd fills the fixture with n sandboxes, i0 the oldest, three to each
// microsecond.
func (f *fixture) crowd(n int) (oldestFirst []string) {
	f.control.sandboxes = nil
	for i := range n {
		id := cove.SandboxID(fmt.Sprintf("i%d", i))
		f.control.sandboxes = append(f.control.sandboxes, sandbox(id, started.Add(time.Duration(i/3)*time.Microsecond)))
		oldestFirst = append(oldestFirst, string(id))
	}
	return oldestFirst
}

func reversed(s []string) []string {
	var out []string
	for i := len(s) - 1; i >= 0; i-- {
		out = append(out, s[i])
	}
	return out
}

func TestListItem(t *testing.T) {
	f := newFixture(t)
	f.control.sandboxes[0].Alias = "base"
	want := []any{map[string]any{
		"templateID": "tmpl1", "sandboxID": "iabc", "clientID": "6532622b", "alias": "base", "envdVersion": "0.6.13",
		"cpuCount": 2.0, "memoryMB": 512.0, "diskSizeMB": 1024.0, "state": "running", "metadata": map[string]any{},
		"startedAt": "2026-03-01T12:00:00.123456Z", "endAt": "2026-03-01T12:01:00.123456Z",
	}}
	for _, path := range []string{"/sandboxes", "/v2/sandboxes"} {
		var got []any
		if err := json.Unmarshal(f.do("GET", path, "").Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

func TestListV1HasEverything(t *testing.T) {
	f := newFixture(t)
	want := reversed(f.crowd(250))
	w := f.do("GET", "/sandboxes", "")
	if diff := cmp.Diff(want, identifiers(t, w)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if w.Header().Get("X-Next-Token") != "" {
		t.Error("there is a token")
	}
	f.crowd(0)
	if w := f.do("GET", "/sandboxes", ""); strings.TrimSpace(w.Body.String()) != "[]" {
		t.Errorf("body %q, want an empty list", w.Body)
	}
}

func TestListV2PageByPage(t *testing.T) {
	for _, order := range []string{"", "asc", "desc"} {
		for _, limit := range []int{1, 3, 4, 7, 100} {
			t.Run(fmt.Sprintf("%s by %d", order, limit), func(t *testing.T) {
				f := newFixture(t)
				want := f.crowd(7)
				if order != "asc" {
					want = reversed(want)
				}
				query := url.Values{"limit": {fmt.Sprint(limit)}}
				if order != "" {
					query.Set("order", order)
				}
				var got []string
				pages := 0
				for {
					w := f.do("GET", "/v2/sandboxes?"+query.Encode(), "")
					ids := identifiers(t, w)
					if got = append(got, ids...); len(ids) > limit {
						t.Fatalf("%d on a page", len(ids))
					}
					if total := w.Header().Get("X-Total-Running"); total != "7" {
						t.Errorf("X-Total-Running = %q", total)
					}
					pages++
					token := w.Header().Get("X-Next-Token")
					if token == "" || pages > 10 {
						break
					}
					query.Set("nextToken", token)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if wantPages := (7 + limit - 1) / limit; pages != wantPages {
					t.Errorf("%d pages, want %d: the last one has no token", pages, wantPages)
				}
			})
		}
	}
}

func TestListV2Filter(t *testing.T) {
	f := newFixture(t)
	query := url.Values{
		"state": {"running,paused"}, "order": {"asc"}, "limit": {"5"}, "template": {"base"},
		"startedAfter": {"2026-03-01T13:00:00.123456789+01:00"},
		"nextToken":    {base64.URLEncoding.EncodeToString([]byte("2026-03-01T12:00:00.5Z__iabc__asc"))},
	}
	identifiers(t, f.do("GET", "/v2/sandboxes?"+query.Encode(), ""))
	want := cove.SandboxFilter{
		States: everyState, Template: "base", Order: cove.Ascending, Limit: 5, StartedAfter: started,
		After: cove.Cursor{StartedAt: time.Date(2026, 3, 1, 12, 0, 0, 5e8, time.UTC), ID: "iabc"},
	}
	if diff := cmp.Diff(want, f.control.filter); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if f.control.team != team {
		t.Errorf("team = %q", f.control.team)
	}

	identifiers(t, f.do("GET", "/v2/sandboxes?template=&metadata=&nextToken=&order=", ""))
	want = cove.SandboxFilter{States: everyState, Order: cove.Descending, Limit: 100}
	if diff := cmp.Diff(want, f.control.filter); diff != "" {
		t.Errorf("nothing said (-want +got):\n%s", diff)
	}
}

// everyState is what a list shows if it is not told otherwise.
var everyState = []cove.State{cove.Running, cove.Paused, cove.Pausing, cove.Resuming}

func TestListV2ByState(t *testing.T) {
	f := newFixture(t)
	for query, want := range map[string][]cove.State{"running": everyState[:1], "paused": everyState[1:]} {
		identifiers(t, f.do("GET", "/v2/sandboxes?state="+query, ""))
		if diff := cmp.Diff(want, f.control.filter.States); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
}

func TestListRefuses(t *testing.T) {
	token := func(s string) string { return url.QueryEscape(base64.RawURLEncoding.EncodeToString([]byte(s))) }
	tests := []struct{ query, words string }{
		{"limit=0", "1 to 100"},
		{"limit=101", "1 to 100"},
		{"limit=x", `"limit"`},
		{"limit=1&limit=2", `"limit"`},
		{"order=up", "unknown order"},
		{"state=", "unknown state"},
		{"state=running,killed", `unknown state "killed"`},
		{"startedAfter=yesterday", `"startedAfter"`},
		{"template=a+b", "invalid template name"},
		{"metadata=a", `"metadata"`},
		{"metadata=a%3Db%3Dc", `"metadata"`},
		{"metadata=a%3Db%26", `"metadata"`},
		{"metadata=a%25zz", `"metadata"`},
		{"metadata=a%3D%2525zz", `"metadata"`},
		{"metadata=%zz", "URL-encoded"},
		{"stat=running", `unknown query parameter "stat"`},
		{"nextToken=%21", "Invalid next token"},
		{"nextToken=" + token("nonsense"), "Invalid next token"},
		{"nextToken=" + token("yesterday__iabc"), "Invalid next token"},
		{"nextToken=" + token("2026-03-01T12:00:00Z__I-B"), "Invalid next token"},
		{"nextToken=" + token("2026-03-01T12:00:00Z__iabc__asc"), "Invalid next token"},
		{"order=asc&nextToken=" + token("2026-03-01T12:00:00Z__iabc"), "Invalid next token"},
		{"nextToken=" + strings.Repeat("a", 1000), "Invalid next token"},
	}
	for _, tt := range tests {
		t.Run(tt.query[:min(50, len(tt.query))], func(t *testing.T) {
			f := newFixture(t)
			wantError(t, f.do("GET", "/v2/sandboxes?"+tt.query, ""), 400, tt.words)
			if f.control.calls != nil {
				t.Errorf("the control plane was asked to %v", f.control.calls)
			}
		})
	}
	wantError(t, newFixture(t).do("GET", "/sandboxes?limit=1", ""), 400, `unknown query parameter "limit"`)
	wantError(t, newFixture(t).do("GET", "/sandboxes?metadata=a", ""), 400, `"metadata"`)
}

// component encodes like JavaScript's encodeURIComponent, closely enough.
func component(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// quote encodes like Python's urllib.parse.quote, which leaves slashes.
func quote(s string) string { return strings.ReplaceAll(component(s), "%2F", "/") }

func TestMetadataAsTheClientsEncodeIt(t *testing.T) {
	want := map[string]string{"user": "abc", "a key": "a+b c&d=e%20/f", "ключ": "значение", "empty": ""}
	for name, encode := range map[string]func(string) string{"JavaScript": component, "Python": quote} {
		pairs := url.Values{}
		for k, v := range want {
			pairs.Set(encode(k), encode(v))
		}
		for _, path := range []string{"/sandboxes", "/v2/sandboxes"} {
			f := newFixture(t)
			identifiers(t, f.do("GET", path+"?metadata="+url.QueryEscape(pairs.Encode()), ""))
			if diff := cmp.Diff(want, f.control.filter.Metadata); diff != "" {
				t.Errorf("%s, %s (-want +got):\n%s", name, path, diff)
			}
		}
	}
	f := newFixture(t)
	identifiers(t, f.do("GET", "/v2/sandboxes?metadata=user%3Dabc%26app%3Dprod", ""))
	if diff := cmp.Diff(map[string]string{"user": "abc", "app": "prod"}, f.control.filter.Metadata); diff != "" {
		t.Errorf("by hand (-want +got):\n%s", diff)
	}
}
