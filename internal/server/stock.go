package server

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder"
	"github.com/cove-sandbox/cove/internal/orchestrator"
	"github.com/cove-sandbox/cove/internal/runtime/runsc"
)

// stock fits what lies in the data directory to the orchestrator.
type stock struct {
	builder *builder.Builder
	tools   string // directory of images with the daemon
	engine  string // path of the server's own
	engines string // directory of engines that are kept
	fixed   map[orchestrator.Kind]string
}

func (s stock) List(ctx context.Context) ([]orchestrator.Item, error) {
	builds, err := s.builder.List(ctx)
	if err != nil {
		return nil, err
	}
	var items []orchestrator.Item
	for _, m := range builds {
		items = append(items, orchestrator.Item{Kind: orchestrator.BuildItem, Name: string(m.Build), Bytes: m.Rootfs.Bytes, Made: m.Created})
	}
	for kind, dir := range map[orchestrator.Kind]string{orchestrator.DaemonItem: s.tools, orchestrator.EngineItem: s.engines} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				continue // it has just gone
			}
			items = append(items, orchestrator.Item{
				Kind: kind, Name: e.Name(), Bytes: bytesBelow(filepath.Join(dir, e.Name())), Made: info.ModTime(), Fixed: s.fixed[kind] == e.Name(),
			})
		}
	}
	return items, nil
}

// bytesBelow adds up the files of a tree.
func bytesBelow(root string) (size int64) {
	_ = filepath.WalkDir(root, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be looked at is not counted
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return nil
	})
	return size
}

func (s stock) KeepEngine(_ context.Context, name string) error {
	if name != s.fixed[orchestrator.EngineItem] {
		if _, err := os.Stat(filepath.Join(s.engines, name, runsc.EngineFile)); err != nil {
			return cove.E(cove.Unavailable, "server.KeepEngine", err,
				"the engine that runs the sandbox was replaced and no copy of it could be kept, so it cannot be paused; it goes on running")
		}
		return nil
	}
	err := keepEngine(s.engine, s.engines, name)
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return cove.E(cove.NoSpace, "server.KeepEngine", err, "the server's disk is full: free space in its data directory")
	case err != nil:
		return cove.E(cove.Internal, "server.KeepEngine", err, "the server could not write its files; its log says why")
	}
	return nil
}

func (s stock) Remove(ctx context.Context, item orchestrator.Item) error {
	switch item.Kind {
	case orchestrator.BuildItem:
		return s.builder.Remove(ctx, cove.BuildID(item.Name))
	case orchestrator.DaemonItem:
		return os.RemoveAll(filepath.Join(s.tools, filepath.Base(item.Name)))
	case orchestrator.EngineItem:
		return os.RemoveAll(filepath.Join(s.engines, filepath.Base(item.Name)))
	}
	return cove.E(cove.Internal, "server.stock", nil, "unknown kind of item %q", item.Kind)
}
