package soak_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cove-sandbox/cove/test/stand"
)

// callLimit is how long one call may take on a machine that has much to do.
const callLimit = 2 * time.Minute

// state is how a sandbox is, as its owner sees it.
type state int

const (
	running state = iota
	paused        // with its memory
	filed         // paused without its memory
	gone
)

func (s state) String() string { return [...]string{"running", "paused", "filed", "gone"}[s] }

// A twin is what the model knows of a sandbox: what was acknowledged.
type twin struct {
	sb    *stand.Sandbox
	label string // its metadata; copies have that of their origin
	wakes bool   // it is paused at the end of its time and resumed by requests
	state state
	birth string            // of the process that counts; empty: it does not run
	boot  string            // of its kernel
	count []int             // the numbers that were counted
	files map[string]string // name -> SHA-256
}

func (w *twin) String() string { return fmt.Sprintf("%s (%s)", w.sb.ID, w.state) }

// copyAs returns the twin of a copy.
func (w *twin) copyAs(sb *stand.Sandbox) *twin {
	c := *w
	c.sb, c.state, c.count, c.files = sb, running, slices.Clone(w.count), maps.Clone(w.files)
	return &c
}

// report is what the process that counts tells.
type report struct {
	Birth, Boot  string
	Whole        bool
	Memory, Disk []int
	Files        map[string]string
}

// want is what it has to tell.
func (w *twin) want() report {
	return report{Birth: w.birth, Boot: w.boot, Whole: true, Memory: w.count, Disk: w.count, Files: w.files}
}

// ask asks the process that counts; path is "look" or "count/<number>".
func (k *soak) ask(w *twin, path string) (report, error) {
	var r report
	status, content, err := k.request(w, http.MethodGet, "8080", "/"+path, nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("its port: %d %s", status, content)
	}
	if err == nil {
		err = json.Unmarshal(content, &r)
	}
	return r, err
}

// request makes a request to a port of a sandbox.
func (k *soak) request(w *twin, method, port, path string, body io.Reader) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(k.t.Context(), callLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, k.s.URL+path, body)
	if err != nil {
		return 0, nil, err
	}
	for name, value := range w.sb.Headers(port) {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	return resp.StatusCode, content, err
}

// call makes a request to the API about a sandbox and demands a status.
func (k *soak) call(method, path string, body any, want int, answer any) error {
	ctx, cancel := context.WithTimeout(k.t.Context(), callLimit)
	defer cancel()
	status, content, err := k.s.Attempt(ctx, method, path, body)
	if err == nil && status != want {
		err = fmt.Errorf("%s %s: %d %s, want %d", method, path, status, content, want)
	}
	if err == nil && answer != nil {
		err = json.Unmarshal(content, answer)
	}
	return err
}

// stateOf asks the server how a sandbox is. That a paused one has no memory is
// known only to who paused it.
func (k *soak) stateOf(w *twin) (state, error) {
	ctx, cancel := context.WithTimeout(k.t.Context(), callLimit)
	defer cancel()
	status, content, err := k.s.Attempt(ctx, http.MethodGet, "/sandboxes/"+w.sb.ID, nil)
	if err != nil || status == http.StatusNotFound {
		return gone, err
	}
	var detail struct{ State string }
	if err := json.Unmarshal(content, &detail); err != nil || status != http.StatusOK {
		return gone, fmt.Errorf("its detail: %d %s", status, content)
	}
	switch detail.State {
	case "running":
		return running, nil
	case "paused":
		return paused, nil
	}
	return gone, fmt.Errorf("its detail: %s", content)
}

// check compares a sandbox with its twin.
func (k *soak) check(w *twin) {
	k.t.Helper()
	want := w.state
	if want == filed {
		want = paused
	}
	if s, err := k.stateOf(w); err != nil || s != want {
		k.t.Errorf("%s: it is %v, %v", w, s, err)
		return
	}
	if w.state != running {
		return
	}
	r, err := k.ask(w, "look")
	if err != nil {
		k.t.Errorf("%s: %v", w, err)
		return
	}
	if diff := cmp.Diff(w.want(), r); diff != "" {
		k.t.Errorf("%s is not as it should be (-want +got):\n%s", w, diff)
	}
}

// listed is a sandbox in the server's list.
type listed struct {
	SandboxID, State string
	Metadata         map[string]string
}

func (k *soak) list() []listed {
	var all []listed
	if err := k.call(http.MethodGet, "/v2/sandboxes?limit=100", nil, http.StatusOK, &all); err != nil {
		k.t.Errorf("list: %v", err)
	}
	return all
}

func sum(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}
