// Package cgroup bounds what a sandbox takes from its host: processors, memory
// and processes. It speaks both versions of the kernel's interface; under
// version 1 a group is one directory per hierarchy.
//
// It is not a launcher: a process that is to be bounded writes itself to
// cgroup.procs in every one of Group.Dirs before it starts others. It never
// kills anything. It moves no process but its own and the descendants of it, and
// only where version 2 asks for it: a group of the tree that is to hold limited
// groups, as a container's own, may have no processes itself. They go to a
// group cove-server beside ours.
//
// Engines, the composition root and the commands that look at a host may import
// it. It starts no goroutines and keeps nothing open; the kernel's tree is its
// only state, so groups outlive the server.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	cove "github.com/cove-sandbox/cove"
)

const defaultRoot = "/sys/fs/cgroup"

// Config says where groups live. The zero value of an optional field means the
// default written beside it.
type Config struct {
	Parent string // required: path below Root of the group that holds all groups of a server
	Root   string // where cgroups are mounted; /sys/fs/cgroup
}

// Names have no dots: the kernel's own files do.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`)

// hierarchy is a tree of the kernel's with the controllers in it that matter.
type hierarchy struct {
	dir         string // its root
	parent      string // the group that holds ours
	controllers []string

	write func(path, text string) error // to a file of version 2 that may refuse
}

// A Tree is the groups of one server. Its methods may be called from any
// goroutine.
type Tree struct {
	unified     bool // version 2: one hierarchy
	root        string
	parent      string
	hierarchies []hierarchy
	missing     []string
}

// New finds out what the host offers; it changes nothing. The error is
// Unavailable if that is nothing.
func New(cfg Config) (*Tree, error) {
	if cfg.Root == "" {
		cfg.Root = defaultRoot
	}
	for _, name := range strings.Split(cfg.Parent, "/") {
		// systemd's names end in .slice or .service.
		if !namePattern.MatchString(strings.ReplaceAll(name, ".", "_")) {
			return nil, fmt.Errorf("cgroup: Config.Parent %q is not a path of plain names", cfg.Parent)
		}
	}
	t := &Tree{root: cfg.Root, parent: cfg.Parent}
	find := t.findV1
	if _, err := os.Stat(filepath.Join(cfg.Root, "cgroup.controllers")); err == nil {
		t.unified = true
		find = t.findV2
	}
	if err := find(); err != nil {
		return nil, fmt.Errorf("looking for cgroups: %w", err)
	}
	if len(t.hierarchies) == 0 {
		return nil, cove.E(cove.Unavailable, "cgroup.New", nil, "limits need cgroups, and none are mounted on this host")
	}
	return t, nil
}

// controllers are those a group uses, where the host has them. Under version 2
// accounting and freezing need none.
func controllers(unified bool) []string {
	if unified {
		return []string{"cpu", "memory", "pids"}
	}
	return []string{"cpu", "cpuacct", "memory", "pids", "freezer"}
}

// findV1 looks for one mount per controller or set of them; "cpu,cpuacct" and a
// link to it are the same.
func (t *Tree) findV1() error {
	entries, err := os.ReadDir(t.root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	found := map[string]string{}
	for _, entry := range entries {
		dir, err := filepath.EvalSymlinks(filepath.Join(t.root, entry.Name()))
		if err != nil {
			continue // a link to a controller this kernel lacks
		}
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			continue // nothing is mounted there
		}
		for _, name := range strings.Split(entry.Name(), ",") {
			found[name] = dir
		}
	}
	for _, name := range controllers(false) {
		dir, ok := found[name]
		if !ok {
			t.missing = append(t.missing, name)
			continue
		}
		i := slices.IndexFunc(t.hierarchies, func(h hierarchy) bool { return h.dir == dir })
		if i < 0 {
			i = len(t.hierarchies)
			t.hierarchies = append(t.hierarchies, hierarchy{dir: dir, parent: filepath.Join(dir, t.parent)})
		}
		t.hierarchies[i].controllers = append(t.hierarchies[i].controllers, name)
	}
	return nil
}

// Missing names the controllers this host lacks; their limits are not enforced.
func (t *Tree) Missing() []string { return slices.Clone(t.missing) }

// Open returns a group that exists, in whole or in part. The error is NotFound
// if it does not.
func (t *Tree) Open(name string) (*Group, error) {
	const op = "cgroup.Open"
	if !namePattern.MatchString(name) {
		return nil, cove.E(cove.Invalid, op, nil, "%q cannot be the name of a group", name)
	}
	g := &Group{name: name, unified: t.unified}
	for _, h := range t.hierarchies {
		dir := filepath.Join(h.parent, name)
		if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
			g.parts = append(g.parts, part{dir, h.controllers})
		}
	}
	if len(g.parts) == 0 {
		return nil, cove.E(cove.NotFound, op, nil, "no group %q", name)
	}
	return g, nil
}

// List returns the names of the groups, sorted, with those that exist only in
// part.
func (t *Tree) List(ctx context.Context) ([]string, error) {
	var names []string
	for _, h := range t.hierarchies {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		entries, err := os.ReadDir(h.parent)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("listing groups: %w", err)
		}
		for _, entry := range entries {
			if entry.IsDir() && namePattern.MatchString(entry.Name()) {
				names = append(names, entry.Name())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// RemoveParent removes the group that holds all others. It fails if there are
// others a second from now: the kernel takes a moment to forget the last one.
func (t *Tree) RemoveParent(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var errs []error
	for _, h := range t.hierarchies {
		if err := remove(ctx, h.parent); err != nil {
			errs = append(errs, fmt.Errorf("removing the group of all groups: %w", err))
		}
	}
	return errors.Join(errs...)
}

// notPermitted turns the errors of a process without privileges into one
// sentence, and leaves others alone.
func notPermitted(op string, err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return cove.E(cove.Unavailable, op, err, "limits need cgroups that this process may change: run it as root, with cgroups mounted writable")
	}
	return err
}
