package cgroup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/cove-sandbox/cove/internal/undo"
)

// Leave removes the group that holds all others if there are none: a server
// calls it at its end. With others in it, which still run, it does nothing.
func (t *Tree) Leave(ctx context.Context) error {
	names, err := t.List(ctx)
	if err != nil || len(names) > 0 {
		return err
	}
	return t.RemoveParent(ctx)
}

// Procs returns the processes in all groups, sorted: those that have to end
// before RemoveAll.
func (t *Tree) Procs(ctx context.Context) ([]int, error) {
	names, err := t.List(ctx)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		g, err := t.Open(name)
		if err != nil { // removed since
			continue
		}
		list, err := g.Procs()
		if err != nil {
			return nil, err
		}
		pids = append(pids, list...)
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// RemoveAll removes everything of this server, for uninstalling. It waits for
// the last process of each group as Group.Remove does, and fails if that does
// not end; all groups are tried.
func (t *Tree) RemoveAll(ctx context.Context) error {
	names, err := t.List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		g, err := t.Open(name)
		if err != nil { // removed since
			continue
		}
		errs = append(errs, g.Remove(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if t.unified {
		// Where a server moved itself; if another one is in there, it stays.
		_ = os.Remove(filepath.Join(t.root, leaf))
	}
	return t.RemoveParent(ctx)
}

// Try makes a group with limits and removes it, to find out whether this host
// and process can. The error is that of Create.
func (t *Tree) Try(ctx context.Context) (err error) {
	var steps undo.Stack
	defer func() { err = errors.Join(err, steps.Unwind(ctx)) }()
	steps.Add("parent", t.Leave)
	g, err := t.Create(ctx, "try", Limits{CPUs: 1, MemoryBytes: 64 << 20, Pids: 64})
	if err != nil {
		return err
	}
	steps.Add("group", g.Remove)
	return nil
}
