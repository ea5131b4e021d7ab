package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	cove "github.com/cove-sandbox/cove"
)

func TestCreateFillsInTheDefaultsOfItsGeneration(t *testing.T) {
	none := map[string]string{}
	tests := []struct {
		name, path, body string
		want             cove.NewSandbox
	}{
		{"v1, nothing said", "/sandboxes", `{"templateID":"base"}`,
			cove.NewSandbox{Template: "base", Timeout: 15 * time.Second, Metadata: none, Env: none}},
		{"v2, nothing said", "/v2/sandboxes", `{"templateID":"base"}`,
			cove.NewSandbox{Template: "base", Timeout: 300 * time.Second, Metadata: none, Env: none, Secure: true}},
		{"v1, as SDK 2.45 sends it", "/sandboxes",
			`{"templateID":"base","metadata":{"a":"b"},"envVars":{"X":"1"},"timeout":300,"secure":true,"allow_internet_access":true,"autoPause":false}`,
			cove.NewSandbox{Template: "base", Timeout: 300 * time.Second, Metadata: map[string]string{"a": "b"},
				Env: map[string]string{"X": "1"}, Secure: true, Internet: new(true)}},
		{"v1, not secured", "/sandboxes", `{"templateID":"base","secure":false}`,
			cove.NewSandbox{Template: "base", Timeout: 15 * time.Second, Metadata: none, Env: none}},
		{"v2, as Python SDK 2.63 sends it", "/v2/sandboxes",
			`{"templateID":"base","timeout":60,"allow_internet_access":false,"metadata":{},"envVars":{}}`,
			cove.NewSandbox{Template: "base", Timeout: time.Minute, Metadata: none, Env: none, Secure: true, Internet: new(false)}},
		{"v2, the client's gateway", "/v2/sandboxes", `{"templateID":"base","mcp":{"browserbase":{"apiKey":"x"}}}`,
			cove.NewSandbox{Template: "base", Timeout: 300 * time.Second, Metadata: none, Env: none, Secure: true}},
		{"v2, everything neutral", "/v2/sandboxes",
			`{"templateID":"ns/base:v1","timeout":null,"metadata":null,"envVars":null,"autoPause":false,"autoPauseMemory":true,
			  "autoResume":{"enabled":false},"mcp":null,"iam":{},"volumeMounts":[],"network":{"allowPublicTraffic":true,
			  "allowOut":[],"denyOut":[],"dnsServers":[],"egressProxy":null,"maskRequestHost":"","httpsPorts":[],"rules":{}}}`,
			cove.NewSandbox{Template: "ns/base:v1", Timeout: 300 * time.Second, Metadata: none, Env: none, Secure: true}},
		{"v2, traffic as the team has it", "/v2/sandboxes", `{"templateID":"base","network":{"allowPublicTraffic":null},"iam":{"tokens":{}}}`,
			cove.NewSandbox{Template: "base", Timeout: 300 * time.Second, Metadata: none, Env: none, Secure: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			w := f.do("POST", tt.path, tt.body)
			if w.Code != http.StatusCreated {
				t.Fatalf("status %d, body %s", w.Code, w.Body)
			}
			if diff := cmp.Diff(tt.want, f.control.created); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
			if f.control.team != team {
				t.Errorf("team = %q", f.control.team)
			}
			want := map[string]any{
				"templateID": "tmpl1", "sandboxID": "inew", "clientID": "6532622b", "alias": tt.want.Template, "envdVersion": "0.6.13",
			}
			if tt.want.Secure {
				want["envdAccessToken"] = f.tokens.Envd("inew")
			}
			if diff := cmp.Diff(want, fields(t, w)); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCreateWithALifecycle(t *testing.T) {
	f := newFixture(t)
	f.do("POST", "/v2/sandboxes", `{"templateID":"base","autoPause":true,"autoResume":{"enabled":true}}`)
	if got := f.control.created; got.OnTimeout != cove.PauseOnTimeout || !got.AutoResume {
		t.Errorf("request = %+v", got)
	}
	f.do("POST", "/v2/sandboxes", `{"templateID":"base","autoPause":true,"autoPauseMemory":false}`)
	if got := f.control.created; !got.FilesOnly {
		t.Errorf("request = %+v", got)
	}
	f.do("POST", "/v2/sandboxes", `{"templateID":"base","onIdle":{"pauseAfter":60}}`)
	if got := f.control.created; got.IdleAfter != time.Minute {
		t.Errorf("request = %+v", got)
	}
	f.do("POST", "/v2/sandboxes", `{"templateID":"base","autoPause":false}`)
	if got := f.control.created; got.OnTimeout == cove.PauseOnTimeout || got.AutoResume {
		t.Errorf("request = %+v", got)
	}
}

func TestCreateRefuses(t *testing.T) {
	const bad, unserved = http.StatusBadRequest, http.StatusNotImplemented
	tests := []struct {
		name   string
		extra  string // fields beside templateID
		status int
		words  []string
	}{
		{"timeout of zero", `"timeout":0`, bad, []string{"Timeout must be greater than 0"}},
		{"negative timeout", `"timeout":-1`, bad, []string{"Timeout must be greater than 0"}},
		{"timeout too large", `"timeout":99999999999`, bad, []string{`"timeout"`, "whole number"}},
		{"timeout with a fraction", `"timeout":1.5`, bad, []string{`"timeout"`, "whole number"}},
		{"timeout as text", `"timeout":"60"`, bad, []string{`"timeout"`, "whole number", "string"}},
		{"metadata of another type", `"metadata":{"a":1}`, bad, []string{`"metadata`, "a string"}},
		{"metadata as a list", `"metadata":[]`, bad, []string{`"metadata"`, "an object"}},
		{"too much metadata", `"metadata":{"a":"` + strings.Repeat("x", 64<<10) + `"}`, bad, []string{`"metadata"`, "65536"}},
		{"too much environment", `"envVars":{"A":"` + strings.Repeat("x", 256<<10) + `"}`, bad, []string{`"envVars"`, "262144"}},
		{"empty name in the environment", `"envVars":{"":"x"}`, bad, []string{`"envVars"`}},
		{"= in a name", `"envVars":{"A=B":"x"}`, bad, []string{`"envVars"`, "A=B"}},
		{"NUL in a name", `"envVars":{"A\u0000B":"x"}`, bad, []string{`"envVars"`}},
		{"NUL in a value", `"envVars":{"A":"x\u0000y"}`, bad, []string{`"envVars"`, `"A"`}},
		{"unknown field", `"cpuCount":4`, bad, []string{`unknown field "cpuCount"`}},
		{"unknown field further down", `"network":{"allowIn":[]}`, bad, []string{`unknown field "allowIn"`}},
		{"disk-only pause without pause", `"autoPauseMemory":false`, bad, []string{"autoPauseMemory", "autoPause"}},
		{"disk-only pause that is to wake", `"autoPause":true,"autoPauseMemory":false,"autoResume":{"enabled":true}`, bad, []string{"autoResume"}},
		{"idle for too short a time", `"onIdle":{"pauseAfter":9}`, bad, []string{`"onIdle.pauseAfter"`, "10"}},
		{"idle, nothing said", `"onIdle":{}`, bad, []string{`"onIdle.pauseAfter"`}},
		{"too many tokens", `"iam":{"tokens":{"a":{},"b":{},"c":{},"d":{},"e":{},"f":{}}}`, bad, []string{"iam.tokens", "5"}},
		{"token for nobody", `"iam":{"tokens":{"a":{"audience":"","tokenType":"JWT-SVID"}}}`, bad, []string{"audience"}},
		{"token of no type", `"iam":{"tokens":{"a":{"audience":"x","tokenType":"JWT"}}}`, bad, []string{"tokenType"}},
		{"relative mount", `"volumeMounts":[{"name":"v","path":"/a"},{"name":"v","path":"b"}]`, bad, []string{"invalid mounts:\n\t- volume mount #1: "}},
		{"mount with dots", `"volumeMounts":[{"name":"v","path":"/a/../b"}]`, bad, []string{"volume mount #0"}},
		{"two mounts in one place", `"volumeMounts":[{"name":"v","path":"/a"},{"name":"w","path":"/a"}]`, bad, []string{"volume mount #1"}},
		{"mount of nothing", `"volumeMounts":[{"path":"/a"}]`, bad, []string{"volume mount #0"}},

		{"identity", `"iam":{"tokens":{"a":{"audience":"x","tokenType":"JWT-SVID"}}}`, unserved, []string{`"iam"`}},
		{"volumes", `"volumeMounts":[{"name":"v","path":"/a"}]`, unserved, []string{`"volumeMounts"`}},
		{"allow list", `"network":{"allowOut":["1.1.1.1"]}`, unserved, []string{`"network.allowOut"`}},
		{"deny list", `"network":{"denyOut":["0.0.0.0/0"]}`, unserved, []string{`"network.denyOut"`}},
		{"name servers", `"network":{"dnsServers":["1.1.1.1"]}`, unserved, []string{`"network.dnsServers"`}},
		{"egress proxy", `"network":{"egressProxy":{"address":"p:1080","password":"hunter2","tls":{"enabled":true}}}`, unserved, []string{`"network.egressProxy"`}},
		{"https ports", `"network":{"httpsPorts":[8443]}`, unserved, []string{`"network.httpsPorts"`}},
		{"host mask", `"network":{"maskRequestHost":"localhost:${PORT}"}`, unserved, []string{`"network.maskRequestHost"`}},
		{"rules", `"network":{"rules":{"x.com":[{"transform":{"headers":{"A":"b"}}}]}}`, unserved, []string{`"network.rules"`}},
		{"several at once", `"volumeMounts":[{"name":"v","path":"/a"}],"network":{"allowOut":["x.com"]}`, unserved,
			[]string{`"volumeMounts"`, `"network.allowOut"`}},
	}
	for _, path := range []string{"/sandboxes", "/v2/sandboxes"} {
		for _, tt := range tests {
			t.Run(path+" "+tt.name, func(t *testing.T) {
				f := newFixture(t)
				w := f.do("POST", path, `{"templateID":"base",`+tt.extra+`}`)
				wantError(t, w, tt.status, tt.words...)
				if strings.Contains(w.Body.String(), "hunter2") {
					t.Errorf("the answer repeats a password: %s", w.Body)
				}
				if f.control.calls != nil {
					t.Errorf("the control plane was asked to %v", f.control.calls)
				}
			})
		}
	}
}

func TestCreateRefusesPrivateTrafficByGeneration(t *testing.T) {
	const body = `{"templateID":"base","network":{"allowPublicTraffic":false}%s}`
	f := newFixture(t)
	wantError(t, f.do("POST", "/sandboxes", fmt.Sprintf(body, "")), 400, "allowPublicTraffic", "secure")
	wantError(t, f.do("POST", "/sandboxes", fmt.Sprintf(body, `,"secure":true`)), 501, "network.allowPublicTraffic")
	wantError(t, f.do("POST", "/v2/sandboxes", fmt.Sprintf(body, "")), 501, "network.allowPublicTraffic")
	wantError(t, f.do("POST", "/v2/sandboxes", `{"templateID":"base","secure":true}`), 400, `unknown field "secure"`)
}

func TestIdempotencyKey(t *testing.T) {
	for key, good := range map[string]bool{
		"abc-1": true, strings.Repeat("a", 255): true,
		"": false, "ABC": false, "a b": false, strings.Repeat("a", 256): false,
	} {
		f := newFixture(t)
		r := request("POST", "/v2/sandboxes", `{"templateID":"base"}`)
		r.Header.Set("Idempotency-Key", key)
		w := f.send(r)
		if !good {
			wantError(t, w, 400, "Idempotency-Key")
		} else if w.Code != 201 || f.control.created.Key != key {
			t.Errorf("%q: %d, the request's key %q", key, w.Code, f.control.created.Key)
		}
	}
}

func TestBadBodies(t *testing.T) {
	tests := []struct{ name, body, words string }{
		{"empty", ``, "empty"},
		{"blank", " \n", "empty"},
		{"not JSON", `templateID=base`, "bad JSON at byte 2"},
		{"cut off", `{"templateID":"ba`, "ends early"},
		{"bad further on", `{"templateID":"base",}`, "bad JSON at byte 22"},
		{"list", `[]`, "an object"},
		{"null", `null`, `"templateID" is required`},
		{"two", `{"templateID":"base"}{}`, "more after"},
		{"rubbish after", `{"templateID":"base"}]`, "more after"},
		{"no template", `{}`, `"templateID" is required`},
		{"null template", `{"templateID":null}`, `"templateID" is required`},
		{"empty template", `{"templateID":""}`, "invalid template name"},
		{"impossible template", `{"templateID":"a b"}`, "invalid template name"},
		{"too large", `{"templateID":"` + strings.Repeat("a", 1<<20) + `"}`, "larger than 1048576 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantError(t, newFixture(t).do("POST", "/v2/sandboxes", tt.body), 400, tt.words)
		})
	}
}
