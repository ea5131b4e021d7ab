package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	cove "github.com/cove-sandbox/cove"
)

func (f *fakeControl) SandboxMetrics(_ context.Context, team cove.TeamID, id cove.SandboxID, from, to time.Time) ([]cove.Metric, error) {
	f.from, f.to = from, to
	if err := f.call("metrics", team, id); err != nil {
		return nil, err
	}
	_, err := f.find(id)
	return f.metrics, err
}

func (f *fakeControl) LatestMetrics(_ context.Context, team cove.TeamID, ids []cove.SandboxID) (map[cove.SandboxID]cove.Metric, error) {
	f.asked = ids
	if err := f.call("latest", team, ""); err != nil {
		return nil, err
	}
	latest := map[cove.SandboxID]cove.Metric{}
	for _, id := range ids {
		if _, err := f.find(id); err == nil {
			latest[id] = f.metrics[0]
		}
	}
	return latest, nil
}

func (f *fakeControl) SandboxLogs(_ context.Context, team cove.TeamID, id cove.SandboxID, filter cove.LogFilter) ([]cove.LogLine, error) {
	f.logs = filter
	if err := f.call("logs", team, id); err != nil {
		return nil, err
	}
	_, err := f.find(id)
	return f.lines, err
}

func withUsage(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	f.control.metrics = []cove.Metric{{
		Sandbox: "iabc", At: started, CPUs: 2, CPUPercent: 12.34, MemoryUsed: 1 << 30, MemoryTotal: 4 << 30, MemoryCache: 3, DiskUsed: 0, DiskTotal: 5 << 40,
	}}
	f.control.lines = []cove.LogLine{{
		Team: team, Sandbox: "iabc", At: started, Level: cove.LogWarn, Logger: "lifecycle", Message: "ä \"quoted\"",
		Fields: map[string]string{"event": "paused", "level": "not this one"},
	}}
	return f
}

var wantMetric = map[string]any{
	"timestamp": "2026-03-01T12:00:00.123456Z", "timestampUnix": 1772366400.0, "cpuCount": 2.0, "cpuUsedPct": 12.34,
	"memUsed": float64(1 << 30), "memTotal": float64(4 << 30), "memCache": 3.0, "diskUsed": 0.0, "diskTotal": float64(5 << 40),
}

func TestMetrics(t *testing.T) {
	f := withUsage(t)
	w := f.do("GET", "/sandboxes/iabc-client/metrics?start=100&end=200", "")
	var got []any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	if diff := cmp.Diff([]any{wantMetric}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	c := f.control
	if c.id != "iabc" || c.team != team || c.from.Unix() != 100 || c.to.UnixMicro() != 200_999_999 {
		t.Errorf("asked of %s by %s from %v to %v", c.id, c.team, c.from, c.to)
	}
	c.metrics = nil
	if w := f.do("GET", "/sandboxes/iabc/metrics", ""); w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != "[]" {
		t.Errorf("without any: %d %q, want an empty list", w.Code, w.Body)
	}
	if c.from.Unix() != 0 || c.to.Year() < 9999 {
		t.Errorf("without bounds: from %v to %v", c.from, c.to)
	}
}

func TestMetricsRefused(t *testing.T) {
	f := withUsage(t)
	for query, words := range map[string]string{
		"start=-1":            "negative",
		"end=-1":              "negative",
		"start=2&end=1":       `"start"`,
		"start=1772366400000": "not milliseconds",
		"end=1772366400000":   "not milliseconds",
		"start=now":           `"start"`,
		"from=1":              `"from"`,
	} {
		wantError(t, f.do("GET", "/sandboxes/iabc/metrics?"+query, ""), http.StatusBadRequest, words)
	}
	if len(f.control.calls) != 0 {
		t.Errorf("calls: %v", f.control.calls)
	}
	wantError(t, f.do("GET", "/sandboxes/nosuch/metrics", ""), http.StatusNotFound, "nosuch")
}

func TestLatestMetrics(t *testing.T) {
	f := withUsage(t)
	w := f.do("GET", "/sandboxes/metrics?sandbox_ids=iabc,nosuch,not+one", "")
	want := map[string]any{"sandboxes": map[string]any{"iabc": wantMetric}}
	if diff := cmp.Diff(want, fields(t, w)); diff != "" || w.Code != http.StatusOK {
		t.Errorf("%d (-want +got):\n%s", w.Code, diff)
	}
	if diff := cmp.Diff([]cove.SandboxID{"iabc", "nosuch"}, f.control.asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	if got := f.do("GET", "/sandboxes/metrics?sandbox_ids=", "").Body.String(); strings.TrimSpace(got) != `{"sandboxes":{}}` {
		t.Errorf("of nobody: %s", got)
	}
	many := make([]string, 101)
	for i := range many {
		many[i] = fmt.Sprintf("i%d", i)
	}
	if w := f.do("GET", "/sandboxes/metrics?sandbox_ids="+strings.Join(many[:100], ","), ""); w.Code != http.StatusOK {
		t.Errorf("of 100: %d %s", w.Code, w.Body)
	}
	wantError(t, f.do("GET", "/sandboxes/metrics?sandbox_ids="+strings.Join(many, ","), ""), http.StatusBadRequest, "101", "100")
	wantError(t, f.do("GET", "/sandboxes/metrics", ""), http.StatusBadRequest, "sandbox_ids", "required")
	wantError(t, f.do("GET", "/sandboxes/metrics?sandbox_ids=i1&start=1", ""), http.StatusBadRequest, "start")
}

func TestLogs(t *testing.T) {
	f := withUsage(t)
	entry := map[string]any{"timestamp": "2026-03-01T12:00:00.123456Z", "message": "ä \"quoted\"", "level": "warn",
		"fields": map[string]any{"event": "paused", "logger": "lifecycle", "level": "not this one"}}
	w := f.do("GET", "/v2/sandboxes/iabc/logs", "")
	if diff := cmp.Diff(map[string]any{"logs": []any{entry}}, fields(t, w)); diff != "" || w.Code != http.StatusOK {
		t.Errorf("%d (-want +got):\n%s", w.Code, diff)
	}
	w = f.do("GET", "/sandboxes/iabc/logs", "")
	body := fields(t, w)
	if diff := cmp.Diff([]any{entry}, body["logEntries"]); diff != "" || w.Code != http.StatusOK {
		t.Errorf("%d (-want +got):\n%s", w.Code, diff)
	}
	log, _ := body["logs"].([]any)[0].(map[string]any)
	text, _ := log["line"].(string)
	var line map[string]any
	if err := json.Unmarshal([]byte(text), &line); err != nil {
		t.Fatalf("line %q: %v", text, err)
	}
	want := map[string]any{"timestamp": "2026-03-01T12:00:00.123456Z", "message": "ä \"quoted\"", "level": "warn", "logger": "lifecycle", "event": "paused"}
	if diff := cmp.Diff(want, line); diff != "" || log["timestamp"] != "2026-03-01T12:00:00.123456Z" || len(log) != 2 {
		t.Errorf("%v (-want +got):\n%s", log, diff)
	}
	f.control.lines = nil
	for path, want := range map[string]string{"/sandboxes/iabc/logs": `{"logEntries":[],"logs":[]}`, "/v2/sandboxes/iabc/logs": `{"logs":[]}`} {
		if w := f.do("GET", path, ""); strings.TrimSpace(w.Body.String()) != want {
			t.Errorf("%s without lines: %s", path, w.Body)
		}
		wantError(t, f.do("GET", strings.Replace(path, "iabc", "nosuch", 1), ""), http.StatusNotFound, "nosuch")
	}
}

func TestLogFilters(t *testing.T) {
	at := time.UnixMilli(1772366400123)
	for target, want := range map[string]cove.LogFilter{
		"/sandboxes/iabc/logs":                                                   {Limit: 1000},
		"/sandboxes/iabc/logs?start=1772366400123&limit=5":                       {Limit: 5, From: at},
		"/v2/sandboxes/iabc/logs":                                                {Limit: 1000},
		"/v2/sandboxes/iabc/logs?cursor=1772366400123&limit=0":                   {From: at},
		"/v2/sandboxes/iabc/logs?cursor=1772366400123&direction=forward":         {Limit: 1000, From: at},
		"/v2/sandboxes/iabc/logs?cursor=1772366400123&direction=backward":        {Limit: 1000, To: at, Backward: true},
		"/v2/sandboxes/iabc/logs?level=warn&search=a+b":                          {Limit: 1000, Level: cove.LogWarn, Search: "a b"},
		"/v2/sandboxes/iabc/logs?level=debug&search=" + strings.Repeat("ü", 256): {Limit: 1000, Search: strings.Repeat("ü", 256)},
	} {
		f := withUsage(t)
		if w := f.do("GET", strings.ReplaceAll(target, "ü", url.QueryEscape("ü")), ""); w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
		if diff := cmp.Diff(want, f.control.logs); diff != "" {
			t.Errorf("%s (-want +got):\n%s", target, diff)
		}
	}
}

func TestLogsRefused(t *testing.T) {
	f := withUsage(t)
	for query, words := range map[string]string{
		"cursor=-1":                          `"cursor"`,
		"cursor=9223372036854775807":         `"cursor"`,
		"cursor=x":                           `"cursor"`,
		"limit=-1":                           `"limit"`,
		"limit=1001":                         "1000",
		"direction=sideways":                 "sideways",
		"level=loud":                         "loud",
		"search=" + strings.Repeat("a", 257): `"search"`,
		"start=1":                            `"start"`,
	} {
		wantError(t, f.do("GET", "/v2/sandboxes/iabc/logs?"+query, ""), http.StatusBadRequest, words)
	}
	for query, words := range map[string]string{"start=-1": `"start"`, "limit=1001": `"limit"`, "cursor=1": `"cursor"`} {
		wantError(t, f.do("GET", "/sandboxes/iabc/logs?"+query, ""), http.StatusBadRequest, words)
	}
	if len(f.control.calls) != 0 {
		t.Errorf("calls: %v", f.control.calls)
	}
}
