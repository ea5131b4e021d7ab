package cgroup

import (
	"fmt"
	"time"
)

// Load is the part of a group's usage that is asked for often. A figure whose
// controller the host lacks is zero.
type Load struct {
	CPU       time.Duration // processor time since the group was created
	FileBytes int64         // page cache of files on disk
}

// Load reads what the group has taken lately, with as little work as it takes.
func (g *Group) Load() (Load, error) {
	var cpu, cache, shared int64
	unit := time.Nanosecond
	figures := []figure{
		{"cpuacct", "cpuacct.usage", "", &cpu},
		{"memory", "memory.stat", "total_cache", &cache},
		{"memory", "memory.stat", "total_shmem", &shared},
	}
	if g.unified {
		unit = time.Microsecond
		figures = []figure{
			{"", "cpu.stat", "usage_usec", &cpu},
			{"memory", "memory.stat", "file", &cache},
			{"memory", "memory.stat", "shmem", &shared},
		}
	}
	if err := g.read(figures); err != nil {
		return Load{}, fmt.Errorf("reading the load of group %s: %w", g.name, err)
	}
	// The kernel counts files that lie in memory as cache.
	return Load{CPU: time.Duration(cpu) * unit, FileBytes: max(cache-shared, 0)}, nil
}

// read reads figures from where their controllers are.
func (g *Group) read(figures []figure) error {
	for _, f := range figures {
		dir := g.dir(f.controller)
		if f.controller == "" {
			dir = g.parts[0].dir
		}
		if dir == "" {
			continue
		}
		if err := f.read(dir); err != nil {
			return err
		}
	}
	return nil
}
