package stand

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Built is how a template build ended.
type Built struct {
	Template, Build string
	Status          string
	Reason, Step    string
	Log             string // a line each
	Took            time.Duration
}

// buildLimit is how long a build may take that a test waits for.
const buildLimit = 5 * time.Minute

// Build has a template built by an order, as clients send it, and waits until
// the build has ended.
func (s *Server) Build(t testing.TB, name string, order map[string]any) Built {
	t.Helper()
	b := s.BeginBuild(t, name, order)
	s.AwaitBuild(t, &b)
	return b
}

// BeginBuild has a build begun.
func (s *Server) BeginBuild(t testing.TB, name string, order map[string]any) Built {
	t.Helper()
	status, body := s.Do(t, "POST", "/v3/templates", map[string]any{"name": name})
	if status != 202 {
		t.Fatalf("requesting a build: %d %v", status, body)
	}
	b := Built{Template: body["templateID"].(string), Build: body["buildID"].(string)}
	if status, body := s.Do(t, "POST", "/v2/templates/"+b.Template+"/builds/"+b.Build, order); status != 202 {
		t.Fatalf("beginning a build: %d %v", status, body)
	}
	return b
}

// Upload sends files for a build, and returns the hash they go by.
func (s *Server) Upload(t testing.TB, archive []byte) (hash string) {
	t.Helper()
	status, body := s.Do(t, "POST", "/v3/templates", map[string]any{"name": "uploads"})
	if status != 202 {
		t.Fatalf("requesting a build: %d %v", status, body)
	}
	sum := sha256.Sum256(archive)
	hash = hex.EncodeToString(sum[:])
	status, body = s.Do(t, "GET", fmt.Sprintf("/templates/%s/files/%s", body["templateID"], hash), nil)
	to, _ := body["url"].(string)
	if status != 201 || to == "" {
		t.Fatalf("asking where to send files: %d %v", status, body)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, to, bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		t.Fatalf("sending files: %s", resp.Status)
	}
	return hash
}

// AwaitBuild waits until a build has ended.
func (s *Server) AwaitBuild(t testing.TB, b *Built) {
	t.Helper()
	begun := time.Now()
	var log strings.Builder
	offset := 0
	for {
		status, body := s.Do(t, "GET", fmt.Sprintf("/templates/%s/builds/%s/status?logsOffset=%d", b.Template, b.Build, offset), nil)
		if status != 200 {
			t.Fatalf("the status of a build: %d %v", status, body)
		}
		entries, _ := body["logEntries"].([]any)
		for _, e := range entries {
			fmt.Fprintln(&log, e.(map[string]any)["message"])
		}
		offset += len(entries)
		b.Status, _ = body["status"].(string)
		if reason, ok := body["reason"].(map[string]any); ok {
			b.Reason, _ = reason["message"].(string)
			b.Step, _ = reason["step"].(string)
		}
		if len(entries) == 0 && (b.Status == "ready" || b.Status == "error") {
			break
		}
		if b.Took = time.Since(begun); b.Took > buildLimit {
			t.Fatalf("the build takes too long:\n%s", log.String())
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.Log, b.Took = log.String(), time.Since(begun)
}

// Ready demands that the build ended well.
func (b Built) Ready(t testing.TB) Built {
	t.Helper()
	if b.Status != "ready" {
		t.Fatalf("the build ended as %s at step %q: %s\n%s", b.Status, b.Step, b.Reason, b.Log)
	}
	return b
}

// Failed demands that the build failed at a step, for a reason with some words.
func (b Built) Failed(t testing.TB, step string, words ...string) {
	t.Helper()
	if b.Status != "error" || b.Step != step {
		t.Errorf("the build ended as %s at step %q, want error at %q: %s\n%s", b.Status, b.Step, step, b.Reason, b.Log)
	}
	for _, w := range words {
		if !strings.Contains(b.Reason, w) {
			t.Errorf("the reason %q does not have %q", b.Reason, w)
		}
	}
}
