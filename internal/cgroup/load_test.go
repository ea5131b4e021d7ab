package cgroup_test

import (
	"path/filepath"
	"testing"

	"github.com/cove-sandbox/cove/internal/cgroup"
)

func TestLoad(t *testing.T) {
	for _, root := range roots(t) {
		t.Run(filepath.Base(root), func(t *testing.T) {
			tr := tree(t, root)
			g := create(t, tr, "load", cgroup.Limits{MemoryBytes: 64 << 20})
			before, err := g.Load()
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "file")
			if err := sh(t, g, "head -c 8000000 /dev/urandom >"+file).Run(); err != nil {
				t.Fatal(err)
			}
			after, err := g.Load()
			if err != nil {
				t.Fatal(err)
			}
			usage, err := g.Usage()
			if err != nil {
				t.Fatal(err)
			}
			if after.CPU <= before.CPU || after.CPU > usage.CPU {
				t.Errorf("processor time: %v before, %v after, %v as usage", before.CPU, after.CPU, usage.CPU)
			}
			if grown := after.FileBytes - before.FileBytes; has(tr, "memory") && (grown < 7e6 || grown > 30e6) {
				t.Errorf("the cache grew by %d bytes, by 8 MB of a file", grown)
			}
			if err := g.Remove(t.Context()); err != nil {
				t.Fatal(err)
			}
			if load, err := g.Load(); err == nil {
				t.Errorf("of a removed group: %+v", load)
			}
		})
	}
}
