package stand

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cove-sandbox/cove/internal/gen/process"
	"github.com/cove-sandbox/cove/internal/gen/process/processconnect"
)

// Do makes a request to the API and returns status and body; body is nil if it
// is no JSON object.
func (s *Server) Do(t testing.TB, method, path string, body any) (int, map[string]any) {
	t.Helper()
	status, content := s.send(t, method, path, body)
	var object map[string]any
	_ = json.Unmarshal(content, &object) // a list, or nothing: the caller looks at the status
	return status, object
}

// send makes a request to the API and returns status and body.
func (s *Server) send(t testing.TB, method, path string, body any) (int, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	status, content, err := s.Attempt(ctx, method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	return status, content
}

// Attempt makes a request to the API of a server that may die meanwhile, and
// returns status and body.
func (s *Server) Attempt(ctx context.Context, method, path string, body any) (int, []byte, error) {
	var in io.Reader
	if body != nil {
		content, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		in = bytes.NewReader(content)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, in)
	if err != nil {
		return 0, nil, err
	}
	maps.Copy(req.Header, s.Header)
	req.Header.Set("X-API-Key", s.Key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return resp.StatusCode, content, nil
}

// List returns the identifiers of the running sandboxes.
func (s *Server) List(t testing.TB) []string {
	t.Helper()
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), "GET", s.URL+"/v2/sandboxes?limit=100", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", s.Key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Errorf("list: %v", err)
		return nil
	}
	defer resp.Body.Close()
	var list []struct{ SandboxID string }
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		t.Errorf("list: %v", err)
	}
	var ids []string
	for _, sb := range list {
		ids = append(ids, sb.SandboxID)
	}
	return ids
}

// Sandbox is a sandbox of a server, as its owner sees it.
type Sandbox struct {
	ID, Token string
	server    *Server
}

// Create creates a sandbox; request adds to the body or changes it.
func (s *Server) Create(t testing.TB, request map[string]any) *Sandbox {
	t.Helper()
	body := map[string]any{"templateID": "base", "timeout": 600}
	for k, v := range request {
		body[k] = v
	}
	status, answer := s.Do(t, "POST", "/v2/sandboxes", body)
	if status != http.StatusCreated {
		t.Fatalf("create: %d %v\n%s", status, answer, s.log)
	}
	token, _ := answer["envdAccessToken"].(string)
	return &Sandbox{ID: answer["sandboxID"].(string), Token: token, server: s}
}

// Sandbox returns a sandbox that somebody else created.
func (s *Server) Sandbox(id, token string) *Sandbox { return &Sandbox{ID: id, Token: token, server: s} }

// Kill ends the sandbox.
func (sb *Sandbox) Kill(t testing.TB) {
	t.Helper()
	if status, body := sb.server.Do(t, "DELETE", "/sandboxes/"+sb.ID, nil); status != http.StatusNoContent {
		t.Errorf("kill: %d %v", status, body)
	}
}

// Fork makes copies of the sandbox; all of them must succeed.
func (sb *Sandbox) Fork(t testing.TB, count int) []*Sandbox {
	t.Helper()
	var results []struct {
		Sandbox *struct{ SandboxID, EnvdAccessToken string }
		Error   json.RawMessage
	}
	status, content := sb.server.send(t, "POST", "/sandboxes/"+sb.ID+"/fork", map[string]any{"count": count, "timeout": 600})
	if err := json.Unmarshal(content, &results); err != nil || status != http.StatusCreated || len(results) != count {
		t.Fatalf("fork: %d %s: %v\n%s", status, content, err, sb.server.log)
	}
	copies := make([]*Sandbox, 0, count)
	for _, r := range results {
		if r.Sandbox == nil {
			t.Fatalf("fork: %s\n%s", content, sb.server.log)
		}
		copies = append(copies, &Sandbox{ID: r.Sandbox.SandboxID, Token: r.Sandbox.EnvdAccessToken, server: sb.server})
	}
	return copies
}

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Exit           int
}

// Run runs a shell command as root in the sandbox and waits for its end.
func (sb *Sandbox) Run(t testing.TB, command string) Result {
	t.Helper()
	r, err := sb.TryRun(t, command)
	if err != nil {
		t.Fatalf("%q: %v", command, err)
	}
	return r
}

// TryRun is Run for a command that may not come to its end.
func (sb *Sandbox) TryRun(t testing.TB, command string) (Result, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	stream, err := sb.Start(ctx, command)
	if err != nil {
		return Result{}, err
	}
	defer stream.Close()
	var r Result
	for stream.Receive() {
		switch e := stream.Msg().GetEvent().GetEvent().(type) {
		case *process.ProcessEvent_Data:
			r.Stdout += string(e.Data.GetStdout())
			r.Stderr += string(e.Data.GetStderr())
		case *process.ProcessEvent_End:
			r.Exit = int(e.End.GetExitCode())
			return r, nil
		}
	}
	return r, errors.Join(errors.New("the stream ended without an end event"), stream.Err())
}

// Start starts a shell command as root and returns its events.
func (sb *Sandbox) Start(ctx context.Context, command string) (*connect.ServerStreamForClient[process.StartResponse], error) {
	client := processconnect.NewProcessClient(http.DefaultClient, sb.server.URL, connect.WithProtoJSON())
	noInput := false
	req := connect.NewRequest(&process.StartRequest{
		Process: &process.ProcessConfig{Cmd: "/bin/bash", Args: []string{"-l", "-c", command}}, Stdin: &noInput,
	})
	for name, value := range sb.Headers("49983") {
		req.Header().Set(name, value)
	}
	req.Header().Set("Authorization", "Basic cm9vdDo=") // "root:"
	return client.Start(ctx, req)
}

// Headers are what routes a request to a port of the sandbox.
func (sb *Sandbox) Headers(port string) map[string]string {
	return map[string]string{"E2b-Sandbox-Id": sb.ID, "E2b-Sandbox-Port": port, "X-Access-Token": sb.Token}
}
