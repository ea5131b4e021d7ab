package orchestrator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cove-sandbox/cove/internal/node"
)

// sweeping is one look at what is on the disk and who needs it.
type sweeping struct {
	o       *Orchestrator
	order   node.SweepOrder
	needed  map[Kind]map[string]bool
	blind   bool // a snapshot does not say what it needs
	garbage []node.Garbage
	errs    []error
}

// Sweep implements node.Node.
func (o *Orchestrator) Sweep(ctx context.Context, order node.SweepOrder) ([]node.Garbage, error) {
	if _, err := o.running(ctx); err != nil {
		return nil, err
	}
	s := &sweeping{o: o, order: order, needed: map[Kind]map[string]bool{BuildItem: {}, DaemonItem: {}, EngineItem: {}}}
	for _, build := range order.Builds {
		s.needed[BuildItem][string(build)] = true
	}
	items, err := o.cfg.Stock.List(ctx)
	if err != nil {
		return nil, err
	}
	// Twice, so that neither a sandbox that becomes a snapshot meanwhile nor one
	// that comes from a snapshot is missed.
	s.sandboxes()
	if err := s.snapshots(ctx); err != nil {
		return nil, err
	}
	s.sandboxes()
	if !s.blind {
		s.stock(ctx, items)
	}
	return s.garbage, errors.Join(s.errs...)
}

// sandboxes notes what the sandboxes here need.
func (s *sweeping) sandboxes() {
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	for _, sb := range s.o.sandboxes {
		if n := sb.needs.Load(); n != nil { // nil: it has only begun to start, from what the order names
			s.needed[BuildItem][string(n.build)] = true
			s.needed[DaemonItem][n.tools] = true
			s.needed[EngineItem][n.engine] = true
		}
	}
}

// snapshots removes those that may go, and notes what the others need.
func (s *sweeping) snapshots(ctx context.Context) error {
	ids, err := s.o.Snapshots(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		dir := s.o.snapshotDir(id)
		m, err := readManifest(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue // it has just been removed
		}
		if err != nil {
			s.blind = true
			s.errs = append(s.errs, fmt.Errorf("snapshot %s does not say what it needs, so only snapshots are removed: %w", id, err))
			continue
		}
		if !slices.Contains(s.order.Snapshots, id) || s.young(m.Created) {
			s.needed[BuildItem][string(m.Build)] = true
			s.needed[DaemonItem][m.Tools] = true
			s.needed[EngineItem][m.Engine] = true
			continue
		}
		s.remove(node.Garbage{Kind: "snapshot", Name: string(id), Bytes: sizeOf(dir)}, func() error { return s.o.DeleteSnapshot(ctx, id) })
	}
	return nil
}

// stock removes what nobody needs.
func (s *sweeping) stock(ctx context.Context, items []Item) {
	for _, item := range items {
		if item.Fixed || s.needed[item.Kind][item.Name] || s.young(item.Made) {
			continue
		}
		s.remove(node.Garbage{Kind: string(item.Kind), Name: item.Name, Bytes: item.Bytes}, func() error { return s.o.cfg.Stock.Remove(ctx, item) })
	}
}

func (s *sweeping) young(made time.Time) bool {
	return s.order.OlderThan > 0 && s.o.cfg.Now().Sub(made) < s.order.OlderThan
}

func (s *sweeping) remove(g node.Garbage, do func() error) {
	if !s.order.DryRun {
		if err := do(); err != nil {
			s.errs = append(s.errs, fmt.Errorf("removing %s %s: %w", g.Kind, g.Name, err))
			return
		}
		s.o.cfg.Log.Info("removed what nothing needs any more", "kind", g.Kind, "name", g.Name, "bytes", g.Bytes)
	}
	s.garbage = append(s.garbage, g)
}

// readManifest reads a manifest, whether this server could go on from it or not.
func readManifest(dir string) (manifest, error) {
	content, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		return manifest{}, err
	}
	var m manifest
	err = json.Unmarshal(content, &m)
	return m, err
}

// sizeOf returns how many bytes of disk the files of a directory take; 0 for
// those that cannot be looked at.
func sizeOf(dir string) (size int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if n, err := allocated(filepath.Join(dir, e.Name())); err == nil {
			size += n
		}
	}
	return size
}
