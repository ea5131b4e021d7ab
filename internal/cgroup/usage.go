package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a group has taken. A figure whose controller the host lacks is
// zero.
type Usage struct {
	CPU              time.Duration // processor time since the group was created
	MemoryBytes      int64         // as counted against the limit, page cache included
	ReclaimableBytes int64         // of those, file pages not used lately
	Pids             int           // processes and threads now
	OOMKills         int64         // processes killed for lack of memory
}

// figure is where a number is found.
type figure struct {
	controller, file string
	key              string // of a line "key number"; empty: the file is the number
	to               *int64
}

// Usage reads what the group has taken.
func (g *Group) Usage() (Usage, error) {
	var u Usage
	var cpu, pids int64
	figures := []figure{
		{"cpuacct", "cpuacct.usage", "", &cpu}, // ns
		{"memory", "memory.usage_in_bytes", "", &u.MemoryBytes},
		{"memory", "memory.stat", "total_inactive_file", &u.ReclaimableBytes},
		{"memory", "memory.oom_control", "oom_kill", &u.OOMKills},
		{"pids", "pids.current", "", &pids},
	}
	unit := time.Nanosecond
	if g.unified {
		unit = time.Microsecond
		figures = []figure{
			{"", "cpu.stat", "usage_usec", &cpu},
			{"memory", "memory.current", "", &u.MemoryBytes},
			{"memory", "memory.stat", "inactive_file", &u.ReclaimableBytes},
			{"memory", "memory.events", "oom_kill", &u.OOMKills},
			{"pids", "pids.current", "", &pids},
		}
	}
	if err := g.read(figures); err != nil {
		return Usage{}, fmt.Errorf("reading the usage of group %s: %w", g.name, err)
	}
	u.CPU, u.Pids = time.Duration(cpu)*unit, int(pids)
	return u, nil
}

// read leaves a figure alone that an older kernel does not keep.
func (f figure) read(dir string) error {
	file, err := os.Open(filepath.Join(dir, f.file))
	if errors.Is(err, fs.ErrNotExist) {
		if _, gone := os.Stat(dir); gone != nil {
			return gone
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		value := lines.Text()
		if f.key != "" {
			key, rest, _ := strings.Cut(value, " ")
			if key != f.key {
				continue
			}
			value = rest
		}
		if *f.to, err = strconv.ParseInt(strings.TrimSpace(value), 10, 64); err != nil {
			return fmt.Errorf("%s: %w", f.file, err)
		}
		return nil
	}
	return lines.Err()
}
