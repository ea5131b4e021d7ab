package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const (
	procsFile = "cgroup.procs"

	// leaf is the group that the server moves to from one that is to hold others.
	leaf = "cove-server"
)

// vacate moves this process and its descendants out of a group, to one below
// it, if it is in there and the group may have no processes of its own. Those of
// others stay, whatever that means for us.
func vacate(dir string) error {
	// The root of the whole tree may have processes, and has no type.
	if _, err := os.Stat(filepath.Join(dir, "cgroup.type")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	const rounds = 3 // a process may start another one before it is moved
	for range rounds {
		ours, err := ownProcesses(dir)
		if err != nil || len(ours) == 0 {
			return err
		}
		to := filepath.Join(dir, leaf)
		if err := os.Mkdir(to, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making a group for the server: %w", err)
		}
		for _, pid := range ours {
			err := write(filepath.Join(to, procsFile), strconv.Itoa(pid))
			if err != nil && !errors.Is(err, syscall.ESRCH) { // it ended
				return fmt.Errorf("moving to a group for the server: %w", err)
			}
		}
	}
	return nil
}

// ownProcesses lists this process and its descendants in a group; none if this
// process is elsewhere.
func ownProcesses(dir string) ([]int, error) {
	list, err := words(filepath.Join(dir, procsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	self := os.Getpid()
	if !slices.Contains(list, strconv.Itoa(self)) {
		return nil, nil
	}
	var ours []int
	for _, word := range list {
		if pid, err := strconv.Atoi(word); err == nil && descends(pid, self) {
			ours = append(ours, pid)
		}
	}
	return ours, nil
}

// descends reports whether a process is another one or comes from it.
func descends(pid, from int) bool {
	const deepest = 64
	for range deepest {
		if pid == from {
			return true
		}
		if pid <= 1 {
			return false
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return false
		}
		// "pid (name) state parent ...", where the name may have anything in it.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 2 {
			return false
		}
		if pid, err = strconv.Atoi(fields[1]); err != nil {
			return false
		}
	}
	return false
}
