package orchestrator

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/runtime"
)

// record is what a restarted server needs to take a sandbox over. It lies in
// the sandbox's directory and holds no secrets: tokens are derived anew.
type record struct {
	ID        cove.SandboxID   `json:"id"`
	Execution cove.ExecutionID `json:"execution"`
	Internet  bool             `json:"internet"`
	EndAt     time.Time        `json:"endAt"`
	OnTimeout cove.OnTimeout   `json:"onTimeout,omitempty"`
	IdleAfter time.Duration    `json:"idleAfter,omitempty"`
	Build     cove.BuildID     `json:"build"`
	Tools     string           `json:"tools"` // name of the image with the daemon
	Resources cove.Resources   `json:"resources"`
	// Identity is the sandbox whose control token the daemon inside knows: this
	// one, or the one its snapshot was taken of.
	Identity cove.SandboxID `json:"identity"`
	// Unused says that nobody uses it, and so nobody told its daemon who it is.
	Unused bool `json:"unused,omitempty"`
	// Frozen is set before everything inside is stopped and cleared after it
	// goes on: while it is set, either may be the case.
	Frozen bool            `json:"frozen,omitempty"`
	Slot   int             `json:"slot"`
	Handle *runtime.Handle `json:"handle,omitempty"` // nil: it was being started
}

const recordName = "sandbox.json"

// save writes the record so that a reader finds the old or the new one whole.
// It survives the server's death; a sandbox does not survive the host's, so
// neither need its record, and nothing is synced.
func (s *sandbox) save() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	if s.ending { // its directory is being removed, and must not come back
		return notHere("orchestrator.save")
	}
	s.mu.Lock()
	content, err := json.Marshal(s.record)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir(), recordName)
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return hostFailure("orchestrator.save", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return hostFailure("orchestrator.save", err)
	}
	return nil
}

// removeDir removes a sandbox's directory, unless its engine could not be ended:
// the next start finds the engine by it.
func (s *sandbox) removeDir(process runtime.Process) error {
	if process != nil {
		select {
		case <-process.Done():
		default:
			return errors.New("the engine still runs, so its directory stays")
		}
	}
	return os.RemoveAll(s.dir())
}

func load(dir string) (record, error) {
	content, err := os.ReadFile(filepath.Join(dir, recordName))
	if err != nil {
		return record{}, err
	}
	var r record
	if err := json.Unmarshal(content, &r); err != nil {
		return record{}, err
	}
	if string(r.ID) != filepath.Base(dir) || !r.ID.Valid() {
		return record{}, errors.New("the record is another sandbox's")
	}
	return r, nil
}

// hostFailure says of an error of the host's file system what a caller may know.
func hostFailure(op string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return cove.E(cove.NoSpace, op, err, "the server's disk is full: free space in its data directory")
	}
	return cove.E(cove.Internal, op, err, "the server could not write its files; its log says why")
}
