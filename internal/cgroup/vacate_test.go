package cgroup_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/cgroup"
)

// container looks like the tree in a container: its root is no root of the
// kernel's, and has processes.
func container(t *testing.T, pids ...int) (root string) {
	t.Helper()
	return fake(t, map[string]string{
		"cgroup.controllers":          "cpu memory pids\n",
		"cgroup.type":                 "domain\n",
		"cgroup.subtree_control":      "\n",
		"cgroup.procs":                strings.Trim(fmt.Sprint(pids), "[]") + "\n",
		"cove/cgroup.subtree_control": "\n",
		"cove-server/cgroup.procs":    "",
	})
}

func unified(t *testing.T, root string) *cgroup.Tree {
	t.Helper()
	tr, err := cgroup.New(cgroup.Config{Parent: "cove", Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// moved is the last process that was moved to the group for the server.
func moved(t *testing.T, root string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "cove-server/cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheServerMakesRoomInItsOwnGroup(t *testing.T) {
	self := os.Getpid()
	child := exec.Command("cat")
	if _, err := child.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { child.Process.Kill(); child.Wait() })
	// A plain file shows the last one that was written to it.
	for name, test := range map[string]struct {
		pids []int
		want string
	}{
		"itself":             {[]int{1, child.Process.Pid, self}, strconv.Itoa(self)},
		"its children":       {[]int{1, self, child.Process.Pid}, strconv.Itoa(child.Process.Pid)},
		"nobody else":        {[]int{self, child.Process.Pid, 1, os.Getppid(), 0}, strconv.Itoa(child.Process.Pid)},
		"only from its own":  {[]int{1, child.Process.Pid}, ""},
		"nothing to move at": {nil, ""},
	} {
		root := container(t, test.pids...)
		if _, err := unified(t, root).Create(t.Context(), "one", cgroup.Limits{}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := moved(t, root); got != test.want {
			t.Errorf("%s: %q was moved last, want %q", name, got, test.want)
		}
	}
}

// The root of the whole tree may have processes and controllers.
func TestNobodyMovesOutOfTheRoot(t *testing.T) {
	root := container(t, os.Getpid())
	if err := os.Remove(filepath.Join(root, "cgroup.type")); err != nil {
		t.Fatal(err)
	}
	if _, err := unified(t, root).Create(t.Context(), "one", cgroup.Limits{}); err != nil {
		t.Fatal(err)
	}
	if got := moved(t, root); got != "" {
		t.Errorf("%s was moved", got)
	}
}

func TestAGroupWithOthersInIt(t *testing.T) {
	tr := unified(t, container(t, 1, 4242))
	tr.RefuseWith(syscall.EBUSY)
	_, err := tr.Create(t.Context(), "one", cgroup.Limits{})
	if _, msg := cove.Describe(err); !cove.Is(err, cove.Unavailable) || !strings.Contains(msg, "container") {
		t.Errorf("Create = %v", err)
	}
	if !strings.Contains(err.Error(), "4242") {
		t.Errorf("the operator is not told who is in the way: %v", err)
	}
	if names, err := tr.List(t.Context()); err != nil || len(names) != 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}
