package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/undo"
)

// Limits bound a group. A zero means no limit.
type Limits struct {
	CPUs        int   // processors' worth of time
	MemoryBytes int64 // swap included
	Pids        int   // processes and threads
}

const period = 100_000 // microseconds over which processor time is shared out, the kernel's default

// Create makes a group. The error is Conflict if there is one of that name and
// Unavailable if this process may not, or the host is set up against it. On an
// error no group is left.
func (t *Tree) Create(ctx context.Context, name string, limits Limits) (_ *Group, err error) {
	const op = "cgroup.Create"
	if !namePattern.MatchString(name) {
		return nil, cove.E(cove.Invalid, op, nil, "%q cannot be the name of a group", name)
	}
	if limits.CPUs < 0 || limits.MemoryBytes < 0 || limits.Pids < 0 {
		return nil, cove.E(cove.Invalid, op, nil, "limits cannot be negative")
	}
	var steps undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(err, steps.Unwind(ctx))
		}
	}()
	g := &Group{name: name, unified: t.unified}
	for _, h := range t.hierarchies {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		dir, err := h.mkdir(name)
		if errors.Is(err, fs.ErrExist) {
			return nil, cove.E(cove.Conflict, op, err, "there is a group %q already", name)
		}
		if err != nil {
			return nil, notPermitted(op, fmt.Errorf("making a group: %w", err))
		}
		steps.Add("group", func(context.Context) error { return os.Remove(dir) })
		if t.unified {
			if err := h.delegate(); err != nil {
				return nil, err
			}
		}
		for _, s := range settings(t.unified, h.controllers, limits) {
			if err := s.apply(dir); err != nil {
				return nil, notPermitted(op, err)
			}
		}
		g.parts = append(g.parts, part{dir, h.controllers})
	}
	steps.Keep()
	return g, nil
}

// mkdir makes a group's directory, and the parent's. The parent may be removed
// in between by whoever finds it empty.
func (h hierarchy) mkdir(name string) (dir string, err error) {
	const attempts = 3
	dir = filepath.Join(h.parent, name)
	for range attempts {
		if err = os.MkdirAll(h.parent, 0o755); err != nil {
			return "", err
		}
		if err = os.Mkdir(dir, 0o755); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return dir, err
}

// setting is a value to write to a file of a group.
type setting struct {
	file, value string
	optional    bool // a kernel without the file has nothing to limit
}

func (s setting) apply(dir string) error {
	err := write(filepath.Join(dir, s.file), s.value)
	if s.optional && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("setting %s: %w", s.file, err)
	}
	return nil
}

// settings says what to write, in order, for the controllers there are.
func settings(unified bool, controllers []string, l Limits) []setting {
	var all []setting
	for _, c := range controllers {
		switch {
		case c == "cpu" && l.CPUs > 0 && unified:
			all = append(all, setting{"cpu.max", fmt.Sprintf("%d %d", l.CPUs*period, period), false})
		case c == "cpu" && l.CPUs > 0:
			all = append(all,
				setting{"cpu.cfs_period_us", strconv.Itoa(period), false},
				setting{"cpu.cfs_quota_us", strconv.Itoa(l.CPUs * period), false})
		case c == "memory" && l.MemoryBytes > 0 && unified:
			all = append(all,
				setting{"memory.max", strconv.FormatInt(l.MemoryBytes, 10), false},
				setting{"memory.swap.max", "0", true},
				// A sandbox without one of its processes is of no use.
				setting{"memory.oom.group", "1", true})
		case c == "memory" && l.MemoryBytes > 0:
			all = append(all,
				setting{"memory.limit_in_bytes", strconv.FormatInt(l.MemoryBytes, 10), false},
				// Memory and swap together, which may not be less than memory.
				setting{"memory.memsw.limit_in_bytes", strconv.FormatInt(l.MemoryBytes, 10), true})
		case c == "pids" && l.Pids > 0:
			all = append(all, setting{"pids.max", strconv.Itoa(l.Pids), false})
		}
	}
	return all
}
