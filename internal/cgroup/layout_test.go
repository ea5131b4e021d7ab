package cgroup_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/cgroup"
)

// fake makes plain files and directories that look like the kernel's tree from
// the outside.
func fake(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestCombinedMountsOfVersion1(t *testing.T) {
	root := fake(t, map[string]string{
		"cpu,cpuacct/cgroup.procs":                  "",
		"memory/cgroup.procs":                       "",
		"pids/nothing-mounted":                      "",
		"unified/cgroup.procs":                      "",
		"cpu,cpuacct/cove/one/cgroup.procs":         "7\n8\n",
		"cpu,cpuacct/cove/one/cpuacct.usage":        "1500\n",
		"memory/cove/one/cgroup.procs":              "8\n",
		"memory/cove/one/memory.usage_in_bytes":     "4096\n",
		"memory/cove/one/memory.stat":               "cache 1\ninactive_file 2\ntotal_inactive_file 3\n",
		"memory/cove/one/memory.oom_control":        "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
		"cpu,cpuacct/cove/half/cgroup.procs":        "",
		"cpu,cpuacct/cove/not.a.group/cgroup.procs": "",
	})
	for _, name := range []string{"cpu", "cpuacct"} {
		if err := os.Symlink("cpu,cpuacct", filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	tr, err := cgroup.New(cgroup.Config{Parent: "cove", Root: root})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"pids", "freezer"}; !slices.Equal(tr.Missing(), want) {
		t.Errorf("Missing = %v, want %v", tr.Missing(), want)
	}
	if names, err := tr.List(t.Context()); err != nil || !slices.Equal(names, []string{"half", "one"}) {
		t.Errorf("List = %v, %v", names, err)
	}
	g, err := tr.Open("one")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{filepath.Join(root, "cpu,cpuacct/cove/one"), filepath.Join(root, "memory/cove/one")}; !slices.Equal(g.Dirs(), want) {
		t.Errorf("Dirs = %v, want %v", g.Dirs(), want)
	}
	if pids, err := g.Procs(); err != nil || !slices.Equal(pids, []int{7, 8}) {
		t.Errorf("Procs = %v, %v", pids, err)
	}
	want := cgroup.Usage{CPU: 1500, MemoryBytes: 4096, ReclaimableBytes: 3, OOMKills: 4}
	if got, err := g.Usage(); err != nil || got != want {
		t.Errorf("Usage = %+v, %v, want %+v", got, err, want)
	}
}

func TestVersion2EnablesControllersDownThePath(t *testing.T) {
	root := fake(t, map[string]string{
		"cgroup.controllers":                       "cpuset cpu io memory pids\n",
		"cgroup.subtree_control":                   "cpu memory\n",
		"cove.slice/cgroup.subtree_control":        "\n",
		"cove.slice/server/cgroup.subtree_control": "cpu memory pids\n",
	})
	tr, err := cgroup.New(cgroup.Config{Parent: "cove.slice/server", Root: root})
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.Missing()) != 0 {
		t.Errorf("Missing = %v", tr.Missing())
	}
	// Plain directories come without the kernel's files, so the first limit fails.
	if _, err := tr.Create(t.Context(), "one", cgroup.Limits{CPUs: 1}); err == nil {
		t.Fatal("a limit was written to a file that is not there")
	}
	if names, err := tr.List(t.Context()); err != nil || len(names) != 0 {
		t.Errorf("left: %v, %v", names, err)
	}
	if _, err := tr.Create(t.Context(), "one", cgroup.Limits{}); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, dir := range []string{"", "cove.slice", "cove.slice/server"} {
		text, err := os.ReadFile(filepath.Join(root, dir, "cgroup.subtree_control"))
		if err != nil {
			t.Fatal(err)
		}
		got[dir] = string(text)
	}
	// A write adds to what the kernel has; a plain file shows the last one, and
	// the second Create found no plain words in what the first had written.
	want := map[string]string{
		"":                  "+cpu +memory +pids",
		"cove.slice":        "+cpu +memory +pids",
		"cove.slice/server": "cpu memory pids\n", // nothing to add
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestVersion2Usage(t *testing.T) {
	root := fake(t, map[string]string{
		"cgroup.controllers":      "memory\n",
		"cove/one/cgroup.procs":   "12\n",
		"cove/one/cpu.stat":       "usage_usec 2500\nuser_usec 2000\n",
		"cove/one/memory.current": "8192\n",
		"cove/one/memory.stat":    "anon 1\ninactive_file 5\n",
		"cove/one/memory.events":  "low 0\noom 2\noom_kill 1\n",
		"cove/two/cpu.stat":       "usage_usec lots\n",
	})
	tr, err := cgroup.New(cgroup.Config{Parent: "cove", Root: root})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"cpu", "pids"}; !slices.Equal(tr.Missing(), want) {
		t.Errorf("Missing = %v, want %v", tr.Missing(), want)
	}
	g, err := tr.Open("one")
	if err != nil {
		t.Fatal(err)
	}
	want := cgroup.Usage{CPU: 2_500_000, MemoryBytes: 8192, ReclaimableBytes: 5, OOMKills: 1}
	if got, err := g.Usage(); err != nil || got != want {
		t.Errorf("Usage = %+v, %v, want %+v", got, err, want)
	}
	if g, err = tr.Open("two"); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Usage(); err == nil {
		t.Error("words were taken for a number")
	}
}

func TestHostWithoutCgroups(t *testing.T) {
	if _, err := cgroup.New(cgroup.Config{Parent: "cove", Root: t.TempDir()}); !cove.Is(err, cove.Unavailable) {
		t.Errorf("New: %v", err)
	}
	for _, parent := range []string{"", "/cove", "a//b", "../up", "."} {
		if _, err := cgroup.New(cgroup.Config{Parent: parent, Root: t.TempDir()}); err == nil || cove.Is(err, cove.Unavailable) {
			t.Errorf("parent %q: %v", parent, err)
		}
	}
}
