package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// removeTimeout bounds Remove: processes that were killed are gone long before.
const removeTimeout = 10 * time.Second

// A Group is the limits and the processes of one sandbox. It holds nothing
// open; its methods may be called from any goroutine.
type Group struct {
	name    string
	unified bool
	parts   []part // one per hierarchy
}

type part struct {
	dir         string
	controllers []string
}

// Name returns the name the group was created with.
func (g *Group) Name() string { return g.name }

// Dirs returns the directories whose cgroup.procs a process writes itself to,
// to be in the group.
func (g *Group) Dirs() []string {
	var dirs []string
	for _, p := range g.parts {
		dirs = append(dirs, p.dir)
	}
	return dirs
}

// dir is where a controller's files are; empty if the host lacks it.
func (g *Group) dir(controller string) string {
	for _, p := range g.parts {
		if slices.Contains(p.controllers, controller) {
			return p.dir
		}
	}
	return ""
}

// Procs returns the processes in the group, sorted; none if it was removed.
func (g *Group) Procs() ([]int, error) {
	var pids []int
	for _, p := range g.parts {
		list, err := words(filepath.Join(p.dir, "cgroup.procs"))
		// ENODEV: removed between opening and reading.
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing processes: %w", err)
		}
		for _, word := range list {
			pid, err := strconv.Atoi(word)
			if err != nil {
				return nil, fmt.Errorf("listing processes: %w", err)
			}
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// Remove removes the group once its last process is gone, which somebody else
// sees to; it waits for that until ctx is done, and at most ten seconds. A group
// that does not exist is removed.
func (g *Group) Remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	var errs []error
	for _, p := range g.parts {
		if err := remove(ctx, p.dir); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		pids, _ := g.Procs() // for the message only
		return fmt.Errorf("removing group %s, with processes %v: %w", g.name, pids, errors.Join(errs...))
	}
	return nil
}

// remove waits by trying: under version 1 nothing tells of the last process, and
// under either the kernel says EBUSY for a moment longer.
func remove(ctx context.Context, dir string) error {
	const first, longest = time.Millisecond, 50 * time.Millisecond
	wait := time.NewTimer(0)
	defer wait.Stop()
	<-wait.C
	for pause := first; ; pause = min(2*pause, longest) {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) {
			return err
		}
		wait.Reset(pause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}
