package cgroup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/cgroup"
	"github.com/cove-sandbox/cove/internal/id"
)

// tree returns the groups of a server of its own on this host.
func tree(t *testing.T, root string) *cgroup.Tree {
	t.Helper()
	tr, err := cgroup.New(cgroup.Config{Parent: "cove-test-" + id.Secret(4), Root: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.RemoveParent(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return tr
}

func create(t *testing.T, tr *cgroup.Tree, name string, l cgroup.Limits) *cgroup.Group {
	t.Helper()
	g, err := tr.Create(t.Context(), name, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return g
}

// sh starts a shell that joins the group before it does anything else.
func sh(t *testing.T, g *cgroup.Group, script string) *exec.Cmd {
	t.Helper()
	var join strings.Builder
	for _, dir := range g.Dirs() {
		fmt.Fprintf(&join, "echo $$ >%s/cgroup.procs || exit 99\n", dir)
	}
	return exec.Command("sh", "-c", join.String()+script)
}

// roots are the trees of this host to test on: its own, and where version 1 is
// in use a version 2 beside it, which has no controllers of ours.
func roots(t *testing.T) []string {
	t.Helper()
	roots := []string{"/sys/fs/cgroup"}
	if unified := "/sys/fs/cgroup/unified"; exists(unified + "/cgroup.controllers") {
		roots = append(roots, unified)
	}
	return roots
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestLifeOfAGroup(t *testing.T) {
	for _, root := range roots(t) {
		t.Run(filepath.Base(root), func(t *testing.T) {
			tr := tree(t, root)
			t.Logf("missing: %v", tr.Missing())
			g := create(t, tr, "one", cgroup.Limits{CPUs: 2, MemoryBytes: 64 << 20, Pids: 50})
			if _, err := tr.Create(t.Context(), "one", cgroup.Limits{}); !cove.Is(err, cove.Conflict) {
				t.Errorf("creating it twice: %v", err)
			}
			if names, err := tr.List(t.Context()); err != nil || !slices.Equal(names, []string{"one"}) {
				t.Errorf("List = %v, %v", names, err)
			}
			again, err := tr.Open("one")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(g.Dirs(), again.Dirs()); diff != "" {
				t.Errorf("the opened group differs: %s", diff)
			}

			cmd := sh(t, g, "echo in; read line")
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 3)); err != nil {
				t.Fatalf("the process could not join: %v", err)
			}
			if pids, err := again.Procs(); err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
				t.Errorf("Procs = %v, %v, want %d", pids, err, cmd.Process.Pid)
			}
			usage, err := again.Usage()
			if err != nil {
				t.Fatal(err)
			}
			if has(tr, "pids") && usage.Pids != 1 || has(tr, "memory") && usage.MemoryBytes == 0 || usage.CPU == 0 {
				t.Errorf("Usage = %+v", usage)
			}

			short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if err := g.Remove(short); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
				t.Errorf("Remove with a process inside: %v", err)
			}
			removed := make(chan error, 1)
			go func() { removed <- g.Remove(context.Background()) }()
			in.Close()
			if err := <-removed; err != nil {
				t.Errorf("Remove while the process ends: %v", err)
			}
			cmd.Wait()
			if pids, err := g.Procs(); err != nil || len(pids) != 0 {
				t.Errorf("Procs of a removed group = %v, %v", pids, err)
			}
			if _, err := g.Usage(); err == nil {
				t.Error("a removed group has a usage")
			}
			if _, err := tr.Open("one"); !cove.Is(err, cove.NotFound) {
				t.Errorf("Open after Remove: %v", err)
			}
			if names, err := tr.List(t.Context()); err != nil || len(names) != 0 {
				t.Errorf("List = %v, %v", names, err)
			}
		})
	}
}

func has(tr *cgroup.Tree, controller string) bool { return !slices.Contains(tr.Missing(), controller) }

func TestLimitsHold(t *testing.T) {
	tr := tree(t, "")
	for _, c := range []string{"cpu", "memory", "pids"} {
		if !has(tr, c) {
			t.Fatalf("this host has no %s controller", c)
		}
	}
	t.Run("memory", func(t *testing.T) {
		g := create(t, tr, "memory", cgroup.Limits{MemoryBytes: 16 << 20})
		// tail keeps what has no line end.
		if err := sh(t, g, "head -c 200000000 /dev/zero | tail >/dev/null").Run(); err == nil {
			t.Error("200 MB fit into 16")
		}
		if u, err := g.Usage(); err != nil || u.OOMKills == 0 {
			t.Errorf("Usage = %+v, %v, want a kill", u, err)
		}
	})
	t.Run("pids", func(t *testing.T) {
		g := create(t, tr, "pids", cgroup.Limits{Pids: 3})
		cmd := sh(t, g, "(read a)& (read b)& (read c)& (read d)& wait")
		var complaint bytes.Buffer
		cmd.Stderr = &complaint
		cmd.Run()
		if complaint.Len() == 0 {
			t.Error("five processes fit into three")
		}
	})
	t.Run("cpu", func(t *testing.T) {
		g := create(t, tr, "cpu", cgroup.Limits{CPUs: 1})
		var quota string
		for _, dir := range g.Dirs() {
			for _, file := range []string{"cpu.cfs_quota_us", "cpu.max"} {
				if text, err := os.ReadFile(filepath.Join(dir, file)); err == nil {
					quota, _, _ = strings.Cut(strings.TrimSpace(string(text)), " ")
				}
			}
		}
		if quota != "100000" {
			t.Errorf("the quota of one processor is %q", quota)
		}
	})
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	tr := tree(t, "")
	// More than the kernel takes for any of its files.
	if _, err := tr.Create(t.Context(), "bad", cgroup.Limits{Pids: 1 << 40}); err == nil {
		t.Fatal("accepted")
	}
	if names, err := tr.List(t.Context()); err != nil || len(names) != 0 {
		t.Errorf("left: %v, %v", names, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tr.Create(ctx, "late", cgroup.Limits{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Create when it is too late: %v", err)
	}
	for _, name := range []string{"", "../up", "a/b", "cpu.max", "-x"} {
		if _, err := tr.Create(t.Context(), name, cgroup.Limits{}); !cove.Is(err, cove.Invalid) {
			t.Errorf("Create(%q): %v", name, err)
		}
	}
	if _, err := tr.Create(t.Context(), "x", cgroup.Limits{CPUs: -1}); !cove.Is(err, cove.Invalid) {
		t.Errorf("a negative limit: %v", err)
	}
}

func TestSettings(t *testing.T) {
	l := cgroup.Limits{CPUs: 2, MemoryBytes: 512 << 20, Pids: 100}
	for name, test := range map[string]struct {
		unified     bool
		controllers []string
		want        []string
	}{
		"version 1": {false, []string{"cpu", "cpuacct", "memory", "pids", "freezer"}, []string{
			"cpu.cfs_period_us=100000", "cpu.cfs_quota_us=200000", "memory.limit_in_bytes=536870912",
			"memory.memsw.limit_in_bytes=536870912", "pids.max=100"}},
		"version 2": {true, []string{"cpu", "memory", "pids"}, []string{
			"cpu.max=200000 100000", "memory.max=536870912", "memory.swap.max=0", "memory.oom.group=1", "pids.max=100"}},
		"without memory": {true, []string{"cpu", "pids"}, []string{"cpu.max=200000 100000", "pids.max=100"}},
	} {
		if diff := cmp.Diff(test.want, cgroup.Settings(test.unified, test.controllers, l)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if got := cgroup.Settings(true, []string{"cpu", "memory", "pids"}, cgroup.Limits{}); got != nil {
		t.Errorf("no limits make %v", got)
	}
}
