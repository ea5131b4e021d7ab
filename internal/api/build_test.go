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

const (
	ready = "/builds/" + string(readyBuild)
	hash  = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

func TestRequestBuild(t *testing.T) {
	answer := map[string]any{
		"templateID": "t1", "buildID": string(waitingBuild), "public": false, "names": []any{"my-team/web"}, "aliases": []any{"web"}, "tags": []any{"v1"},
	}
	for body, want := range map[string]cove.NewBuild{
		`{"name":"web"}`:                  {Name: "web"},
		`{"alias":"web"}`:                 {Name: "web"},
		`{"name":"web:v1","alias":null}`:  {Name: "web:v1"},
		`{"name":"web","alias":"web"}`:    {Name: "web"},
		`{"name":"web","teamID":"team1"}`: {Name: "web"},
		`{"name":"web","tags":["V2","v3","v2"],"cpuCount":64,"memoryMB":128,"minFreeDiskMb":0}`: {Name: "web", Tags: []string{"v2", "v3"}, CPUs: 64, MemoryMB: 128},
		`{"name":"web","cpuCount":1,"memoryMB":1048576,"minFreeDiskMb":2048}`:                   {Name: "web", CPUs: 1, MemoryMB: 1 << 20, FreeDiskMB: 2048},
	} {
		f := templateFixture(t)
		w := f.do("POST", "/v3/templates", body)
		if diff := cmp.Diff(answer, fields(t, w)); diff != "" || w.Code != http.StatusAccepted {
			t.Errorf("%s: %d (-want +got):\n%s", body, w.Code, diff)
		}
		if diff := cmp.Diff(want, f.control.requested); diff != "" || f.control.team != team {
			t.Errorf("%s: asked by %s for (-want +got):\n%s", body, f.control.team, diff)
		}
	}
	f := templateFixture(t)
	f.control.builds[0].Tags = nil
	if got := fields(t, f.do("POST", "/v3/templates", `{"name":"web"}`))["tags"]; !cmp.Equal(got, []any{}) {
		t.Errorf("tags: %v", got)
	}
	f.control.err = cove.E(cove.Conflict, "fake", nil, "Alias 'web' is already used")
	wantError(t, f.do("POST", "/v3/templates", `{"name":"web"}`), 409, "already used")
}

func TestRequestBuildRefused(t *testing.T) {
	f := templateFixture(t)
	many := strings.Repeat(`"a",`, 100) + `"b"`
	for body, words := range map[string]string{
		``:                              `"name" is required`,
		`{}`:                            `"name" is required`,
		`{"name":""}`:                   `"name" is required`,
		`{"name":"a","alias":"b"}`:      `"alias"`,
		`{"name":"a b"}`:                "invalid template name",
		`{"name":"a","teamID":"other"}`: `"teamID"`,
		`{"name":"a","tags":[":b"]}`:    `invalid tag ":b"`,
		`{"name":"a","tags":["b:"]}`:    `invalid tag "b:"`,
		`{"name":"a","tags":[""]}`:      `invalid tag ""`,
		`{"name":"a","tags":["` + strings.ToUpper(string(waitingBuild)) + `"]}`: "identifier of a build",
		`{"name":"a","tags":[` + many + `]}`:                                    "101",
		`{"name":"` + strings.Repeat("a", 129) + `"}`:                           "128",
		`{"name":"a","cpuCount":0}`:                                             `"cpuCount" must be from 1 to 64`,
		`{"name":"a","cpuCount":65}`:                                            `"cpuCount"`,
		`{"name":"a","memoryMB":127}`:                                           `"memoryMB" must be from 128`,
		`{"name":"a","memoryMB":1048577}`:                                       `"memoryMB"`,
		`{"name":"a","minFreeDiskMb":-1}`:                                       `"minFreeDiskMb"`,
		`{"name":"a","memoryMB":"1"}`:                                           `"memoryMB" must be a whole number`,
		`{"name":"a","minFreeDiskMB":1,"diskSizeMB":1}`:                         `unknown field "diskSizeMB"`,
	} {
		wantError(t, f.do("POST", "/v3/templates", body), 400, words)
	}
	for body, words := range map[string]string{
		`{}`: `"alias" is required`, `{"name":"web"}`: `unknown field "name"`, `{"alias":"web","tags":[]}`: `unknown field "tags"`,
		`{"alias":"a b"}`: "invalid template name", `{"alias":"a","teamID":"b"}`: `"teamID"`, `{"alias":"a","cpuCount":0}`: `"cpuCount"`,
	} {
		wantError(t, f.do("POST", "/v2/templates", body), 400, words)
	}
	if len(f.control.calls) != 0 {
		t.Errorf("calls: %v", f.control.calls)
	}
}

func TestOlderRequestsOfBuilds(t *testing.T) {
	f := templateFixture(t)
	want := wantTemplate()
	delete(want, "names")
	delete(want, "buildStatus")
	delete(want, "isDefault")
	want["buildID"], want["envdVersion"] = string(waitingBuild), "0.9.9"
	w := f.do("POST", "/v2/templates", `{"alias":"web","cpuCount":2,"memoryMB":512,"teamID":"team1"}`)
	if diff := cmp.Diff(want, fields(t, w)); diff != "" || w.Code != http.StatusAccepted {
		t.Errorf("%d (-want +got):\n%s", w.Code, diff)
	}
	if diff := cmp.Diff(cove.NewBuild{Name: "web", CPUs: 2, MemoryMB: 512}, f.control.requested); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
	for _, path := range []string{"/templates", "/templates/web", "/templates/web" + ready} {
		f := templateFixture(t)
		wantError(t, f.do("POST", path, `{"dockerfile":"FROM x"}`), 501, "Template.build")
		if len(f.control.calls) != 0 {
			t.Errorf("calls: %v", f.control.calls)
		}
	}
}

func TestBeginBuild(t *testing.T) {
	for body, want := range map[string]cove.BuildOrder{
		`{"fromImage":"debian:12"}`: {FromImage: "debian:12"},
		`{"fromTemplate":"web:v1","fromImageRegistry":null,"steps":[],"force":true,"startCmd":"a","readyCmd":"b"}`: {FromTemplate: "web:v1", Force: true, Start: "a", Ready: "b"},
		`{"fromImage":"x","fromTemplate":"","fromImageRegistry":{"type":"registry","username":"u","password":"p"}}`: {
			FromImage: "x", Login: cove.RegistryLogin{Kind: cove.BasicLogin, User: "u", Password: "p"},
		},
		`{"fromImage":"x","fromImageRegistry":{"type":"aws","awsAccessKeyId":"i","awsSecretAccessKey":"k","awsRegion":"r"}}`: {
			FromImage: "x", Login: cove.RegistryLogin{Kind: cove.AWSLogin, KeyID: "i", Key: "k", Region: "r"},
		},
		`{"fromImage":"x","fromImageRegistry":{"type":"gcp","serviceAccountJson":"{}"}}`: {
			FromImage: "x", Login: cove.RegistryLogin{Kind: cove.GCPLogin, ServiceAccount: "{}"},
		},
		`{"fromImage":"x","steps":[
			{"type":"COPY","args":["a","/b","",""],"filesHash":"` + hash + `","force":true,"forceUpload":true,"resolveSymlinks":null,"gzip":false},
			{"type":"COPY","args":["a","/b"],"filesHash":"` + hash + `"},
			{"type":"RUN","args":["true"],"force":false,"forceUpload":null},
			{"type":"RUN","args":["","root"],"filesHash":""},
			{"type":"ENV","args":["A","","B","=1"]},
			{"type":"WORKDIR","args":["/w"]},
			{"type":"USER","args":["u"]}]}`: {FromImage: "x", Steps: []cove.BuildStep{
			{Type: cove.CopyStep, Args: []string{"a", "/b", "", ""}, FilesHash: hash, Force: true},
			{Type: cove.CopyStep, Args: []string{"a", "/b"}, FilesHash: hash},
			{Type: cove.RunStep, Args: []string{"true"}},
			{Type: cove.RunStep, Args: []string{"", "root"}},
			{Type: cove.EnvStep, Args: []string{"A", "", "B", "=1"}},
			{Type: cove.WorkdirStep, Args: []string{"/w"}},
			{Type: cove.UserStep, Args: []string{"u"}},
		}},
		`{"dockerfile":"FROM x\n","fromImage":"","steps":[],"startCmd":"a"}`: {Dockerfile: &cove.Dockerfile{Text: "FROM x\n"}, Start: "a"},
		`{"dockerfile":"FROM x","buildArgs":{"A":"1"},"target":"t","contextHash":"` + hash + `","fromImageRegistry":{"type":"registry","username":"u","password":"p"}}`: {
			Dockerfile: &cove.Dockerfile{Text: "FROM x", Args: map[string]string{"A": "1"}, Target: "t", Context: hash},
			Login:      cove.RegistryLogin{Kind: cove.BasicLogin, User: "u", Password: "p"},
		},
	} {
		f := templateFixture(t)
		w := f.do("POST", "/v2/templates/my-team%2Fweb"+ready, body)
		if w.Code != http.StatusAccepted || w.Body.Len() != 0 {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
		if diff := cmp.Diff(want, f.control.order); diff != "" || f.control.name != "my-team/web" || f.control.build != readyBuild {
			t.Errorf("%s: of %s, %s (-want +got):\n%s", body, f.control.name, f.control.build, diff)
		}
	}
	f := templateFixture(t)
	long := `{"fromImage":"x","steps":[{"type":"RUN","args":["` + strings.Repeat("a", 8<<20-100) + `"]}]}`
	if w := f.do("POST", "/v2/templates/web/builds/"+strings.ToUpper(string(readyBuild)), long); w.Code != http.StatusAccepted || f.control.build != readyBuild {
		t.Errorf("a long command: %d %s", w.Code, w.Body)
	}
	wantError(t, f.do("POST", "/v2/templates/web"+ready, long+strings.Repeat(" ", 100)), 400, "larger than 8388608 bytes")
	f.control.err = cove.E(cove.Invalid, "fake", nil, "build is not in waiting state")
	wantError(t, f.do("POST", "/v2/templates/web"+ready, `{"fromImage":"x"}`), 400, "build is not in waiting state")
}

func TestBeginBuildRefused(t *testing.T) {
	f := templateFixture(t)
	steps := func(step string) string {
		return `{"fromImage":"x","steps":[{"type":"RUN","args":["a"]},` + step + `]}`
	}
	login := func(login string) string { return `{"fromImage":"x","fromImageRegistry":` + login + `}` }
	const copied = `"filesHash":"` + hash + `"`
	for body, words := range map[string]string{
		``:                                       `"fromImage"`,
		`{}`:                                     `"fromImage"`,
		`{"fromImage":"x","fromTemplate":"y"}`:   "not both",
		`{"fromTemplate":"a b"}`:                 "invalid template name",
		`{"fromImage":"x","startCmd":"a\u0000"}`: "NUL",
		`{"fromImage":"x","dockerFile":1}`:       `"dockerfile" must be a string`,
		`{"fromImage":"x","dockerfile":"FROM x"}`:                       "instead of",
		`{"fromTemplate":"x","dockerfile":"FROM x"}`:                    "instead of",
		`{"dockerfile":"FROM x","steps":[{"type":"RUN","args":["a"]}]}`: "instead of",
		`{"dockerfile":""}`:                                                   "is required",
		`{"fromImage":"x","buildArgs":{"A":"1"}}`:                             `for "dockerfile" only`,
		`{"fromImage":"x","target":"a"}`:                                      `for "dockerfile" only`,
		`{"fromImage":"x","contextHash":"a"}`:                                 `for "dockerfile" only`,
		`{"dockerfile":"FROM x","contextHash":"a"}`:                           "64 lower-case",
		`{"dockerfile":"FROM x","buildArgs":{"A":1}}`:                         "must be a string",
		`{"dockerfile":"FROM x","target":"` + strings.Repeat("a", 129) + `"}`: "128",
		`{"dockerfile":"` + strings.Repeat("a", 1<<20+1) + `"}`:               "1048576",
		`{"fromTemplate":"x","fromImageRegistry":{"type":"aws"}}`:             `for "fromImage" only`,
		login(`{}`):               "unknown",
		login(`[]`):               "must be an object",
		login(`{"type":"azure"}`): `"azure"`,
		login(`{"type":"aws","awsAccessKeyId":"i"}`):                         `"awsSecretAccessKey" is required`,
		login(`{"type":"gcp","serviceAccountJson":{}}`):                      `"serviceAccountJson" must be a string`,
		login(`{"type":"gcp","serviceAccountJson":"","username":1}`):         `unknown field "username"`,
		login(`{"type":"registry","username":"u"}`):                          `"password" is required`,
		steps(`{"type":"ADD","args":["a"]}`):                                 `step 2 (ADD): unknown type`,
		steps(`{"args":["a"]}`):                                              "step 2 (): unknown type",
		steps(`null`):                                                        "unknown type",
		steps(`{"type":"RUN","args":["a"],"cache":true}`):                    `unknown field "cache"`,
		steps(`{"type":"RUN"}`):                                              "step 2 (RUN)",
		steps(`{"type":"RUN","args":[]}`):                                    "step 2 (RUN)",
		steps(`{"type":"RUN","args":["a","b","c"]}`):                         "step 2 (RUN)",
		steps(`{"type":"RUN","args":["a\u0000"]}`):                           "NUL",
		steps(`{"type":"RUN","args":["a"],` + copied + `}`):                  "for COPY only",
		steps(`{"type":"RUN","args":[1]}`):                                   "must be a string",
		steps(`{"type":"COPY","args":["a"],` + copied + `}`):                 "source, destination",
		steps(`{"type":"COPY","args":["a",""],` + copied + `}`):              "source, destination",
		steps(`{"type":"COPY","args":["1","2","3","4","5"],` + copied + `}`): "source, destination",
		steps(`{"type":"COPY","args":["a","b"]}`):                            "64 lower-case",
		steps(`{"type":"COPY","args":["a","b"],"filesHash":"ABC"}`):          "64 lower-case",
		steps(`{"type":"ENV","args":["A"]}`):                                 "pairs",
		steps(`{"type":"ENV","args":[]}`):                                    "pairs",
		steps(`{"type":"ENV","args":["A","1","B=","2"]}`):                    `"B="`,
		steps(`{"type":"ENV","args":["","1"]}`):                              "empty",
		steps(`{"type":"WORKDIR","args":[""]}`):                              "one directory",
		steps(`{"type":"WORKDIR","args":["a","b"]}`):                         "one directory",
		steps(`{"type":"USER","args":[]}`):                                   "one user",
		steps(`{"type":"USER","args":[""]}`):                                 "one user",
		steps(strings.Repeat(`{},`, 999) + `{}`):                             "1001",
	} {
		wantError(t, f.do("POST", "/v2/templates/web"+ready, body), 400, words)
	}
	wantError(t, f.do("POST", "/v2/templates/web/builds/x", `{"fromImage":"x"}`), 400, `invalid build ID "x"`)
	if len(f.control.calls) != 0 {
		t.Errorf("calls: %v", f.control.calls)
	}
}

// withLog is a fixture whose build has n lines in its log, a second apart; every
// third is debug.
func withLog(t *testing.T, n int) *fixture {
	f := templateFixture(t)
	for i := range n {
		l := cove.BuildLine{At: started.Add(time.Duration(i) * time.Second), Level: cove.LogInfo, Message: fmt.Sprint(i)}
		if i%3 == 2 {
			l.Level, l.Step = cove.LogDebug, "1"
		}
		f.control.log = append(f.control.log, l)
	}
	return f
}

func TestBuildStatus(t *testing.T) {
	f := withLog(t, 3)
	w := f.do("GET", "/templates/my-team%2Fweb"+ready+"/status?logsOffset=1", "")
	want := map[string]any{
		"templateID": "t1", "buildID": string(readyBuild), "status": "ready", "logs": []any{},
		"logEntries": []any{
			map[string]any{"timestamp": "2026-03-01T12:00:01.123456Z", "message": "1", "level": "info"},
			map[string]any{"timestamp": "2026-03-01T12:00:02.123456Z", "message": "2", "level": "debug", "step": "1"},
		},
	}
	if diff := cmp.Diff(want, fields(t, w)); diff != "" || w.Code != http.StatusOK || f.control.name != "my-team/web" {
		t.Errorf("%d (-want +got):\n%s", w.Code, diff)
	}
	for query, want := range map[string]cove.BuildLineFilter{
		"":                                {Limit: 100},
		"logsOffset=5&limit=7&level=warn": {Offset: 5, Limit: 7, Level: cove.LogWarn},
		"logsOffset=0&limit=0&level=":     {Limit: 1},
	} {
		f := withLog(t, 200)
		w := f.do("GET", "/templates/web"+ready+"/status?"+query, "")
		if diff := cmp.Diff([]cove.BuildLineFilter{want}, f.control.reads); diff != "" || w.Code != 200 {
			t.Errorf("%s: %d (-want +got):\n%s", query, w.Code, diff)
		}
		if got := fields(t, w)["logEntries"].([]any); strings.Contains(query, "limit=0") && len(got) != 0 {
			t.Errorf("%s: %v", query, got)
		}
	}
	f.control.log, f.control.builds[1].Status, f.control.builds[1].Reason = nil, cove.BuildError, "it failed"
	got := fields(t, f.do("GET", "/templates/web"+ready+"/status", ""))
	if got["status"] != "error" || !cmp.Equal(got["reason"], any(map[string]any{"message": "it failed"})) || !cmp.Equal(got["logEntries"], any([]any{})) {
		t.Errorf("of a failed build: %v", got)
	}
	f.control.builds[1].ReasonStep = "2"
	got = fields(t, f.do("GET", "/templates/web"+ready+"/status", ""))
	if !cmp.Equal(got["reason"], any(map[string]any{"message": "it failed", "step": "2"})) {
		t.Errorf("of a failed step: %v", got)
	}
}

func TestBuildLogs(t *testing.T) {
	at := func(second int) int64 { return started.Add(time.Duration(second)*time.Second).UnixMilli() + 1 } // between two lines
	for query, want := range map[string][]string{
		"":                           {"0", "1", "99"},
		"limit=2":                    {"0", "1", "1"},
		"limit=2&level=info":         {"0", "1", "1"},
		"limit=3&level=info":         {"0", "1", "3"},
		"level=warn":                 nil,
		"limit=0":                    nil,
		"limit=0&cursor=1":           nil,
		"direction=backward":         {"2499", "2498", "2400"},
		"direction=backward&limit=0": nil,
		fmt.Sprintf("cursor=%d&direction=forward", at(2000)):          {"2001", "2002", "2100"},
		fmt.Sprintf("cursor=%d&source=persistent", at(2450)):          {"2451", "2452", "2499"},
		fmt.Sprintf("cursor=%d&direction=backward&limit=3", at(2000)): {"2000", "1999", "1998"},
		fmt.Sprintf("cursor=%d&direction=backward", at(1)):            {"1", "0", "0"},
		fmt.Sprintf("cursor=%d", at(9999)):                            nil,
		"cursor=0&direction=backward&source=temporary":                nil,
	} {
		f := withLog(t, 2500)
		w := f.do("GET", "/templates/web"+ready+"/logs?"+query, "")
		body := fields(t, w)
		lines, _ := body["logs"].([]any)
		var got []string
		if len(lines) > 1 {
			for _, i := range []int{0, 1, len(lines) - 1} {
				got = append(got, lines[i].(map[string]any)["message"].(string))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || w.Code != 200 || len(body) != 1 || lines == nil {
			t.Errorf("%s: %d, %d lines (-want +got):\n%s", query, w.Code, len(lines), diff)
		}
	}
}

func TestBuildLogsRefused(t *testing.T) {
	f := withLog(t, 1)
	for query, words := range map[string]string{
		"/status?logsOffset=-1": `"logsOffset"`, "/status?logsOffset=x": `"logsOffset"`, "/status?limit=-1": `"limit"`, "/status?limit=101": "100",
		"/status?level=loud": "loud", "/status?cursor=1": `"cursor"`,
		"/logs?cursor=-1": `"cursor"`, "/logs?limit=-1": `"limit"`, "/logs?limit=101": "100", "/logs?direction=up": "up", "/logs?level=loud": "loud",
		"/logs?source=both": "both", "/logs?logsOffset=1": `"logsOffset"`,
	} {
		wantError(t, f.do("GET", "/templates/web"+ready+query, ""), 400, words)
	}
	for _, what := range []string{"/status", "/logs"} {
		wantError(t, f.do("GET", "/templates/web/builds/1"+what, ""), 400, `invalid build ID "1"`)
		if len(f.control.calls) != 0 {
			t.Errorf("calls: %v", f.control.calls)
		}
	}
	for _, what := range []string{"/status", "/logs", "/logs?direction=backward", "/logs?cursor=1"} {
		wantError(t, f.do("GET", "/templates/web/builds/00000000-0000-4000-8000-000000000000"+what, ""), 404, "no build")
	}
}
