package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cove-sandbox/cove/internal/node"
)

// adminSocket returns where an operator's commands reach the server of an
// instance. It lies in a directory that only the server's user may enter, beside
// the engines' sockets: a data directory's name may be too long for a socket's.
func adminSocket(instance string) string {
	return filepath.Join(stateDir(instance), "admin", "sock")
}

// admin serves the operator's commands.
type admin struct {
	path  string
	sweep func(ctx context.Context, olderThan time.Duration, dryRun bool) ([]node.Garbage, error)
}

// run serves until ctx is done.
func (a *admin) run(ctx context.Context) error {
	const failure = "the socket for the operator's commands cannot be made: %w"
	if err := os.MkdirAll(filepath.Dir(filepath.Dir(a.path)), 0o711); err != nil {
		return fmt.Errorf(failure, err)
	}
	if err := os.MkdirAll(filepath.Dir(a.path), 0o700); err != nil {
		return fmt.Errorf(failure, err)
	}
	if err := os.Remove(a.path); err != nil && !errors.Is(err, os.ErrNotExist) { // of a server that was killed
		return fmt.Errorf(failure, err)
	}
	listener, err := net.Listen("unix", a.path)
	if err != nil {
		return fmt.Errorf(failure, err)
	}
	// What is left is removed if it is empty: engines of running sandboxes have
	// their sockets beside.
	defer os.Remove(filepath.Dir(filepath.Dir(a.path)))
	defer os.Remove(filepath.Dir(a.path))
	mux := http.NewServeMux()
	mux.HandleFunc("POST /gc", a.gc)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// gcAnswer is what became of a request to clean up.
type gcAnswer struct {
	Garbage []node.Garbage `json:"garbage"`
	Error   string         `json:"error,omitempty"` // what could not be removed, and why
}

func (a *admin) gc(w http.ResponseWriter, r *http.Request) {
	olderThan, err := time.ParseDuration(r.FormValue("older-than"))
	if err != nil {
		http.Error(w, "older-than is not a duration", http.StatusBadRequest)
		return
	}
	garbage, err := a.sweep(r.Context(), olderThan, r.FormValue("dry-run") == "true")
	answer := gcAnswer{Garbage: garbage}
	if err != nil {
		answer.Error = err.Error() // the operator reads the log, too
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // an operator who has gone is no error
}

// CollectGarbage has the server that runs on a data directory remove what
// nothing needs any more and is old enough, or with dryRun say what that is. An
// error may come beside what was removed.
func CollectGarbage(ctx context.Context, dataDir string, olderThan time.Duration, dryRun bool) ([]node.Garbage, error) {
	if resolved, err := filepath.EvalSymlinks(dataDir); err == nil {
		dataDir = resolved
	}
	path := adminSocket(InstanceOf(dataDir))
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("http://cove/gc?dry-run=%t&older-than=%s", dryRun, olderThan), nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("no server runs on %s: start it with \"cove serve\" (it cleans up at its start, too), or name its directory with --data-dir", dataDir)
	}
	if errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("the server on %s is another user's: run this as the user it runs as", dataDir)
	}
	if err != nil {
		return nil, fmt.Errorf("asking the server: %w", err)
	}
	defer resp.Body.Close()
	var answer gcAnswer
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("the server's answer cannot be read: %w", err)
	}
	if answer.Error != "" {
		err = errors.New(answer.Error)
	}
	return answer.Garbage, err
}
