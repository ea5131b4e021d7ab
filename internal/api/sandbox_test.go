package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	cove "github.com/cove-sandbox/cove"
)

func TestGetSandbox(t *testing.T) {
	f := newFixture(t)
	full := sandbox("ifull", started)
	full.Alias, full.Metadata, full.Internet = "base", map[string]string{"a": "b"}, new(false)
	full.StartedAt = started.In(time.FixedZone("", 3600))
	bare := sandbox("ibare", started)
	bare.Secure, bare.Envd = false, ""
	f.control.sandboxes = []cove.Sandbox{full, bare}
	common := func() map[string]any {
		return map[string]any{
			"templateID": "tmpl1", "clientID": "6532622b", "envdVersion": "0.6.13", "cpuCount": 2.0, "memoryMB": 512.0,
			"diskSizeMB": 1024.0, "startedAt": "2026-03-01T12:00:00.123456Z", "endAt": "2026-03-01T12:01:00.123456Z",
			"state": "running", "metadata": map[string]any{},
			"lifecycle": map[string]any{"autoResume": false, "onTimeout": "kill"},
		}
	}
	wantFull := common()
	wantFull["sandboxID"], wantFull["alias"], wantFull["allowInternetAccess"] = "ifull", "base", false
	wantFull["metadata"], wantFull["envdAccessToken"] = map[string]any{"a": "b"}, f.tokens.Envd("ifull")
	wantBare := common()
	wantBare["sandboxID"], wantBare["envdVersion"] = "ibare", "0.9.9"
	for id, want := range map[string]map[string]any{"ifull": wantFull, "ibare": wantBare} {
		w := f.do("GET", "/sandboxes/"+id, "")
		if w.Code != http.StatusOK {
			t.Fatalf("status %d, body %s", w.Code, w.Body)
		}
		if diff := cmp.Diff(want, fields(t, w)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", id, diff)
		}
	}
}

func TestSandboxIdentifiersInPaths(t *testing.T) {
	tests := []struct{ path, id string }{
		{"iabc", "iabc"},
		{"iabc-6532622b", "iabc"},
		{"iabc-other1", "iabc"},
		{"%69abc", "iabc"},
	}
	for _, tt := range tests {
		f := newFixture(t)
		if w := f.do("GET", "/sandboxes/"+tt.path, ""); w.Code != http.StatusOK || string(f.control.id) != tt.id {
			t.Errorf("%s: status %d, identifier %q, want %q", tt.path, w.Code, f.control.id, tt.id)
		}
	}
	// What cannot exist is not found in the words for what does not exist.
	missing := []struct{ path, shown string }{
		{"iunknown", "iunknown"},
		{"IABC", "IABC"},
		{"a.b", "a.b"},
		{"iabc-", "iabc-"},
		{"iabc-x-y", "iabc-x-y"},
		{"a%2Fb", "a/b"},
		{"team%2Fname%3Atag", "team/name:tag"},
		{"%2e%2e", ".."},
		{"..%2Fhealth", "../health"},
		{"a%2541", "a%41"},
	}
	for _, tt := range missing {
		f := newFixture(t)
		for _, route := range []struct{ method, prefix, suffix, body string }{
			{"GET", "/sandboxes/", "", ""},
			{"DELETE", "/sandboxes/", "", ""},
			{"POST", "/sandboxes/", "/timeout", `{"timeout":1}`},
			{"POST", "/sandboxes/", "/refreshes", ``},
			{"POST", "/sandboxes/", "/connect", `{"timeout":1}`},
			{"POST", "/v2/sandboxes/", "/connect", ``},
		} {
			w := f.do(route.method, route.prefix+tt.path+route.suffix, route.body)
			wantError(t, w, 404)
			if got, want := fields(t, w)["message"], "Sandbox \""+tt.shown+"\" doesn't exist or you don't have access to it"; got != want {
				t.Errorf("%s %s: message %q, want %q", route.method, tt.path, got, want)
			}
		}
	}
}

func TestASandboxThatIsBeingKilledIsGone(t *testing.T) {
	f := newFixture(t)
	f.control.sandboxes[0].State = cove.Killing
	wantError(t, f.do("GET", "/sandboxes/iabc", ""), 404, "iabc")
}

func TestKillSandbox(t *testing.T) {
	f := newFixture(t)
	w := f.do("DELETE", "/sandboxes/iabc", "")
	if w.Code != http.StatusNoContent || w.Body.Len() != 0 {
		t.Errorf("status %d, body %q", w.Code, w.Body)
	}
	if f.control.id != "iabc" || f.control.team != team {
		t.Errorf("killed %q of %q", f.control.id, f.control.team)
	}
}

func TestLifeOfASandbox(t *testing.T) {
	tests := []struct {
		name, path, body string
		status           int
		call             string // empty: none
		d                time.Duration
		words            string
	}{
		{"timeout", "/sandboxes/iabc/timeout", `{"timeout":90}`, 204, "timeout", 90 * time.Second, ""},
		{"timeout now", "/sandboxes/iabc/timeout", `{"timeout":0}`, 204, "timeout", 0, ""},
		{"timeout in the past", "/sandboxes/iabc/timeout", `{"timeout":-1}`, 400, "", 0, `"timeout"`},
		{"timeout not said is not now", "/sandboxes/iabc/timeout", `{}`, 400, "", 0, `"timeout" is required`},
		{"timeout null is not now", "/sandboxes/iabc/timeout", `{"timeout":null}`, 400, "", 0, `"timeout" is required`},
		{"timeout without body", "/sandboxes/iabc/timeout", ``, 400, "", 0, "empty"},
		{"timeout misspelled", "/sandboxes/iabc/timeout", `{"timeoutMs":5}`, 400, "", 0, `unknown field "timeoutMs"`},

		{"refresh", "/sandboxes/iabc/refreshes", `{"duration":60}`, 204, "extend", time.Minute, ""},
		{"refresh, nothing said", "/sandboxes/iabc/refreshes", ``, 204, "extend", 15 * time.Second, ""},
		{"refresh, empty object", "/sandboxes/iabc/refreshes", `{}`, 204, "extend", 15 * time.Second, ""},
		{"refresh for the longest", "/sandboxes/iabc/refreshes", `{"duration":3600}`, 204, "extend", time.Hour, ""},
		{"refresh for longer", "/sandboxes/iabc/refreshes", `{"duration":3601}`, 400, "", 0, "3600"},
		{"refresh for less than nothing", "/sandboxes/iabc/refreshes", `{"duration":-1}`, 400, "", 0, "duration"},

		{"connect v1", "/sandboxes/iabc/connect", `{"timeout":300}`, 200, "connect", 300 * time.Second, ""},
		{"connect v1, timeout not said", "/sandboxes/iabc/connect", `{}`, 400, "", 0, `"timeout" is required`},
		{"connect v1, timeout of zero", "/sandboxes/iabc/connect", `{"timeout":0}`, 400, "", 0, "greater than 0"},
		{"connect v2", "/v2/sandboxes/iabc/connect", `{"timeout":60}`, 200, "connect", time.Minute, ""},
		{"connect v2, empty object", "/v2/sandboxes/iabc/connect", `{}`, 200, "connect", 300 * time.Second, ""},
		{"connect v2, no body", "/v2/sandboxes/iabc/connect", ``, 200, "connect", 300 * time.Second, ""},
		{"connect v2, negative", "/v2/sandboxes/iabc/connect", `{"timeout":-1}`, 400, "", 0, "greater than 0"},
		{"connect v2, not JSON", "/v2/sandboxes/iabc/connect", `timeout`, 400, "", 0, "bad JSON"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			w := f.do("POST", tt.path, tt.body)
			if tt.status >= 400 {
				wantError(t, w, tt.status, tt.words)
			} else if w.Code != tt.status {
				t.Errorf("status %d, want %d; body %s", w.Code, tt.status, w.Body)
			}
			var want []string
			if tt.call != "" {
				want = []string{tt.call}
			}
			if diff := cmp.Diff(want, f.control.calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
			if f.control.d != tt.d {
				t.Errorf("duration %v, want %v", f.control.d, tt.d)
			}
			if tt.status == http.StatusOK {
				want := map[string]any{"templateID": "tmpl1", "sandboxID": "iabc", "clientID": "6532622b",
					"envdVersion": "0.6.13", "envdAccessToken": f.tokens.Envd("iabc")}
				if diff := cmp.Diff(want, fields(t, w)); diff != "" {
					t.Errorf("answer (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestPauseAndResume(t *testing.T) {
	f := newFixture(t)
	f.control.sandboxes = []cove.Sandbox{
		{ID: "irun", State: cove.Running, StartedAt: started},
		{ID: "istill", State: cove.Paused, StartedAt: started, Lifecycle: cove.Lifecycle{OnTimeout: cove.PauseOnTimeout, AutoResume: true}},
	}
	for _, c := range []struct {
		path, body string
		status     int
		words      string
	}{
		{"/sandboxes/irun/pause", ``, 204, ""},
		{"/sandboxes/irun/pause", `{"memory":true}`, 204, ""},
		{"/sandboxes/irun/pause", `{"memory":false}`, 204, ""},
		{"/sandboxes/istill/pause", ``, 409, "Error pausing sandbox - sandbox 'istill' is already paused"},
		{"/sandboxes/inone/pause", ``, 404, `Sandbox "inone" doesn't exist or you don't have access to it`},
		{"/sandboxes/istill/connect", `{"timeout":60}`, 201, ""},
		{"/v2/sandboxes/istill/connect", ``, 201, ""},
		{"/v2/sandboxes/istill/connect", `{"memory":false}`, 201, ""},
		{"/v2/sandboxes/irun/connect", `{"memory":false}`, 200, ""},
		{"/sandboxes/istill/resume", `{}`, 201, ""},
		{"/sandboxes/istill/resume", `{"timeout":0}`, 400, "Timeout must be greater than 0"},
		{"/sandboxes/istill/resume", `{"autoPause":true}`, 201, ""},
	} {
		w := f.do("POST", c.path, c.body)
		var answer struct{ Message string }
		if w.Code != 204 {
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
				t.Errorf("%s: %v", c.path, err)
			}
		}
		if w.Code != c.status || !strings.Contains(answer.Message, c.words) {
			t.Errorf("%s %s: %d %s, want %d %s", c.path, c.body, w.Code, w.Body, c.status, c.words)
		}
	}
	w := f.do("GET", "/sandboxes/istill", "")
	for _, want := range []string{`"state":"paused"`, `"autoResume":true`, `"onTimeout":"pause"`, `"pauseMode":"full"`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("detail lacks %s: %s", want, w.Body)
		}
	}
}

func TestHowToPauseAndResume(t *testing.T) {
	f := newFixture(t)
	for body, want := range map[string]cove.Pause{
		`{}`:                            {},
		`{"memory":false}`:              {FilesOnly: true},
		`{"requireHealthyGuest":true}`:  {Strict: true},
		`{"requireHealthyGuest":false}`: {},
	} {
		f.do("POST", "/sandboxes/iabc/pause", body)
		if f.control.pause != want {
			t.Errorf("pause %s: %+v, want %+v", body, f.control.pause, want)
		}
	}
	for request, want := range map[[2]string]cove.Resume{
		{"/sandboxes/iabc/resume", `{}`}:                           {Timeout: 15 * time.Second},
		{"/sandboxes/iabc/resume", `{"autoPause":true}`}:           {Timeout: 15 * time.Second, OnTimeout: cove.PauseOnTimeout},
		{"/sandboxes/iabc/resume", `{"autoPause":false}`}:          {Timeout: 15 * time.Second, OnTimeout: cove.KillOnTimeout},
		{"/v2/sandboxes/iabc/connect", `{"memory":false}`}:         {Timeout: 300 * time.Second, FilesOnly: true},
		{"/sandboxes/iabc/connect", `{"memory":true,"timeout":1}`}: {Timeout: time.Second},
	} {
		f.do("POST", request[0], request[1])
		if f.control.resume != want {
			t.Errorf("%s: %+v, want %+v", request, f.control.resume, want)
		}
	}
}

func TestPausedSandboxWhoseDaemonDidNotAnswer(t *testing.T) {
	f := newFixture(t)
	f.control.sandboxes = []cove.Sandbox{{ID: "istill", State: cove.Paused, FilesOnly: true, Unresponsive: true, StartedAt: started}}
	got := fields(t, f.do("GET", "/sandboxes/istill", ""))
	if got["envdUnresponsiveAtPause"] != true || got["pauseMode"] != "filesystem" {
		t.Errorf("detail = %v", got)
	}
	f.control.err = cove.Coded(cove.E(cove.Conflict, "fake", nil, "words"), "a_code")
	w := f.do("POST", "/v2/sandboxes/istill/connect", "")
	if got := fields(t, w); w.Code != 409 || got["error_code"] != "a_code" || got["code"] != 409.0 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestFork(t *testing.T) {
	f := newFixture(t)
	w := f.do("POST", "/sandboxes/iabc/fork", `{"count":2,"timeout":60}`)
	var results []struct {
		Sandbox *struct{ SandboxID, EnvdAccessToken string }
		Error   *struct {
			Code    int
			Message string
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &results); err != nil || w.Code != 201 || len(results) != 2 {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	if e := results[0].Error; e == nil || e.Code != 429 || e.Message != "the server is full" || results[0].Sandbox != nil {
		t.Errorf("the failed one: %s", w.Body)
	}
	if sb := results[1].Sandbox; sb == nil || sb.SandboxID != "icopy" || sb.EnvdAccessToken == "" || f.control.d != time.Minute {
		t.Errorf("the other: %s", w.Body)
	}
	for _, body := range []string{`{"count":0}`, `{"count":101}`, `{"timeout":0}`} {
		if w := f.do("POST", "/sandboxes/iabc/fork", body); w.Code != 400 {
			t.Errorf("%s: %d", body, w.Code)
		}
	}
}
