package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	cove "github.com/cove-sandbox/cove"
)

// findV2 looks for the controllers of the one hierarchy of version 2.
func (t *Tree) findV2() error {
	has, err := words(filepath.Join(t.root, "cgroup.controllers"))
	if err != nil {
		return err
	}
	h := hierarchy{dir: t.root, parent: filepath.Join(t.root, t.parent), write: write}
	for _, name := range controllers(true) {
		if slices.Contains(has, name) {
			h.controllers = append(h.controllers, name)
		} else {
			t.missing = append(t.missing, name)
		}
	}
	t.hierarchies = []hierarchy{h}
	return nil
}

// delegate makes the controllers available below every directory from the root
// to the parent. The kernel refuses that in a group with processes of its own,
// the root of the whole tree excepted.
func (h hierarchy) delegate() error {
	const op = "cgroup.Create"
	if len(h.controllers) == 0 {
		return nil
	}
	rel, err := filepath.Rel(h.dir, h.parent)
	if err != nil {
		return err
	}
	dir := h.dir
	for _, name := range append([]string{""}, strings.Split(rel, "/")...) {
		dir = filepath.Join(dir, name)
		control := filepath.Join(dir, "cgroup.subtree_control")
		enabled, err := words(control)
		if err != nil {
			return notPermitted(op, err)
		}
		var enable []string
		for _, c := range h.controllers {
			if !slices.Contains(enabled, c) {
				enable = append(enable, "+"+c)
			}
		}
		if len(enable) == 0 {
			continue
		}
		if err := vacate(dir); err != nil {
			return notPermitted(op, err)
		}
		err = h.write(control, strings.Join(enable, " "))
		if errors.Is(err, syscall.EBUSY) {
			others, _ := words(filepath.Join(dir, procsFile)) // for the operator only
			return cove.E(cove.Unavailable, op, fmt.Errorf("processes %v: %w", others, err),
				"limits need a cgroup without processes of others: run the server as the only process of its container, or as a service with a cgroup of its own")
		}
		if err != nil {
			return notPermitted(op, fmt.Errorf("enabling controllers: %w", err))
		}
	}
	return nil
}

// words reads a file of words.
func words(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	return strings.Fields(string(text)), err
}

// write writes to a file of the kernel's, which must exist, in one go.
func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
