package cgroup_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/cgroup"
	"github.com/cove-sandbox/cove/internal/id"
)

func parents(t *testing.T, root, name string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	deeper, err := filepath.Glob(filepath.Join(root, "*", name))
	if err != nil {
		t.Fatal(err)
	}
	return append(found, deeper...)
}

func TestAServerLeavesNothing(t *testing.T) {
	for _, root := range roots(t) {
		t.Run(filepath.Base(root), func(t *testing.T) {
			name := "cove-test-" + id.Secret(4)
			tr, err := cgroup.New(cgroup.Config{Parent: name, Root: root})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := tr.RemoveAll(context.Background()); err != nil {
					t.Error(err)
				}
			})
			if err := tr.Leave(t.Context()); err != nil {
				t.Errorf("leaving what was never entered: %v", err)
			}
			one, two := create(t, tr, "one", cgroup.Limits{}), create(t, tr, "two", cgroup.Limits{})
			if err := tr.Leave(t.Context()); err != nil || len(parents(t, root, name)) == 0 {
				t.Errorf("leaving with groups: %v", err)
			}
			cmd := sh(t, one, "echo in; read line")
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
				t.Fatal(err)
			}
			if pids, err := tr.Procs(t.Context()); err != nil || !slices.Equal(pids, []int{cmd.Process.Pid}) {
				t.Errorf("Procs = %v, %v", pids, err)
			}
			short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if err := tr.RemoveAll(short); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("RemoveAll with a process inside: %v", err)
			}
			in.Close()
			cmd.Wait()
			if err := one.Remove(t.Context()); err != nil {
				t.Error(err)
			}
			if err := two.Remove(t.Context()); err != nil {
				t.Error(err)
			}
			if err := tr.Leave(t.Context()); err != nil {
				t.Error(err)
			}
			if left := parents(t, root, name); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestRemoveAll(t *testing.T) {
	name := "cove-test-" + id.Secret(4)
	tr, err := cgroup.New(cgroup.Config{Parent: name})
	if err != nil {
		t.Fatal(err)
	}
	create(t, tr, "one", cgroup.Limits{})
	create(t, tr, "two", cgroup.Limits{})
	if err := tr.RemoveAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := parents(t, "/sys/fs/cgroup", name); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestTry(t *testing.T) {
	name := "cove-test-" + id.Secret(4)
	tr, err := cgroup.New(cgroup.Config{Parent: name})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Try(t.Context()); err != nil {
		t.Error(err)
	}
	if left := parents(t, "/sys/fs/cgroup", name); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	refused := unified(t, container(t, 1))
	refused.RefuseWith(errors.New("no"))
	if err := refused.Try(t.Context()); err == nil || cove.Is(err, cove.Conflict) {
		t.Errorf("where it cannot work: %v", err)
	}
}
