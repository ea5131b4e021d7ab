package orchestrator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// manifest says what a snapshot is of and what it needs to go on. It lies
// beside the engine's files.
type manifest struct {
	Format    int              `json:"format"`
	Snapshot  cove.SnapshotID  `json:"snapshot"`
	Sandbox   cove.SandboxID   `json:"sandbox"`
	Execution cove.ExecutionID `json:"execution"`
	Identity  cove.SandboxID   `json:"identity"` // see record
	FilesOnly bool             `json:"filesOnly,omitempty"`
	Build     cove.BuildID     `json:"build"`
	Tools     string           `json:"tools"`
	Engine    string           `json:"engine"` // version of the engine that wrote it
	CPU       []string         `json:"cpu"`    // features of the processors it ran on
	Resources cove.Resources   `json:"resources"`
	Created   time.Time        `json:"created"`
	Heard     int64            `json:"heard"` // number of the last line of the daemon's journal that was heard
}

// heardBy returns which lines of the daemon's journal are not told of a sandbox
// that goes on from the snapshot. The same sandbox goes on where it was; to
// another, what is in the journal happened to somebody else.
func (m *manifest) heardBy(id cove.SandboxID) int64 {
	switch {
	case m.FilesOnly: // the daemon is started anew
		return 0
	case m.Sandbox == id:
		return m.Heard
	}
	return fromNow
}

const (
	manifestName   = "manifest.json"
	manifestFormat = 1 // raised when a field changes its meaning
)

func (o *Orchestrator) snapshotDir(id cove.SnapshotID) string {
	return filepath.Join(o.cfg.Snapshots, string(id))
}

func (o *Orchestrator) partialDir(id cove.SnapshotID) string {
	return filepath.Join(o.cfg.Snapshots, "."+string(id)+".partial")
}

func (o *Orchestrator) saveManifest(dir string, m manifest) error {
	content, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, manifestName), content, 0o600); err != nil {
		return hostFailure("orchestrator.saveManifest", err)
	}
	return nil
}

// loadManifest reads a snapshot's manifest and refuses what this server cannot
// go on from.
func (o *Orchestrator) loadManifest(id cove.SnapshotID) (*manifest, error) {
	const op = "orchestrator.loadManifest"
	if !id.Valid() {
		return nil, cove.E(cove.Invalid, op, nil, "invalid snapshot identifier")
	}
	content, err := os.ReadFile(filepath.Join(o.snapshotDir(id), manifestName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, cove.E(cove.NotFound, op, err, "the sandbox's snapshot is not on this server")
	}
	if err != nil {
		return nil, hostFailure(op, err)
	}
	var m manifest
	if err := json.Unmarshal(content, &m); err != nil {
		return nil, hostFailure(op, err)
	}
	if m.Format != manifestFormat || m.Snapshot != id {
		return nil, cove.E(cove.Internal, op, fmt.Errorf("format %d of snapshot %q", m.Format, m.Snapshot), "the sandbox's snapshot is damaged")
	}
	return &m, nil
}

// unfit explains why memory could not go on, if it is from a processor that
// could do more than those here. It is asked only after that failed: most
// features nobody uses, and a new kernel names some that an old one did not.
func (o *Orchestrator) unfit(m *manifest, cause error) error {
	var missing []string
	for _, feature := range m.CPU {
		if _, ok := slices.BinarySearch(o.cpu, feature); !ok {
			missing = append(missing, feature)
		}
	}
	if missing == nil || m.FilesOnly {
		return cause
	}
	return cove.E(cove.Conflict, "orchestrator.unfit", cause,
		"the sandbox's memory was saved on a processor that this server's is not like (%s): start it on a server like the one it was saved on", strings.Join(missing, ", "))
}

// DeleteSnapshot implements node.Node.
func (o *Orchestrator) DeleteSnapshot(_ context.Context, id cove.SnapshotID) error {
	const op = "orchestrator.DeleteSnapshot"
	if !id.Valid() {
		return nil
	}
	// Renamed first: what a crash leaves then is cleared at the next start.
	partial := o.partialDir(id)
	if err := os.Rename(o.snapshotDir(id), partial); err != nil && !errors.Is(err, os.ErrNotExist) {
		return hostFailure(op, err)
	}
	if !o.enter() { // Run is not at work, and would not wait for it
		if err := os.RemoveAll(partial); err != nil {
			return hostFailure(op, err)
		}
		return nil
	}
	// It is gone for everybody. The kernel takes its time to give back gigabytes,
	// and whoever resumes a sandbox waits for this.
	go func() {
		defer o.waits.Done()
		if err := os.RemoveAll(partial); err != nil {
			o.cfg.Log.Error("what is left of a snapshot could not be removed; the next start does it", "snapshot", id, "err", err)
		}
	}()
	return nil
}

// Snapshots implements node.Node.
func (o *Orchestrator) Snapshots(context.Context) ([]cove.SnapshotID, error) {
	entries, err := os.ReadDir(o.cfg.Snapshots)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, hostFailure("orchestrator.Snapshots", err)
	}
	var ids []cove.SnapshotID
	for _, e := range entries {
		if id := cove.SnapshotID(e.Name()); e.IsDir() && id.Valid() {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// clearPartial removes snapshots that were never finished or half removed.
func (o *Orchestrator) clearPartial() error {
	entries, err := os.ReadDir(o.cfg.Snapshots)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return hostFailure("orchestrator.clearPartial", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			if err := os.RemoveAll(filepath.Join(o.cfg.Snapshots, e.Name())); err != nil {
				return hostFailure("orchestrator.clearPartial", err)
			}
		}
	}
	return nil
}
