package runtimetest_test

import (
	"testing"

	"github.com/cove-sandbox/cove/internal/runtime"
	"github.com/cove-sandbox/cove/internal/runtime/runtimetest"
)

func TestFake(t *testing.T) {
	host := runtimetest.NewHost()
	runtimetest.Run(t, runtimetest.Bench{
		Open: func(*testing.T) runtime.Runtime { return &runtimetest.Fake{Host: host} },
		Spec: func(t *testing.T, id string) runtime.Spec {
			return runtime.Spec{ID: id, Dir: t.TempDir(), Rootfs: "image"}
		},
		Lives: func(_ *testing.T, p runtime.Process) bool { return !host.Frozen(p.Handle().ID) },
		Broken: func(t *testing.T, id string) runtime.Spec {
			return runtime.Spec{ID: id, Dir: t.TempDir()}
		},
		Left: func(t *testing.T, id string) []string {
			if n := host.Running(id); n > 0 {
				return []string{"a process"}
			}
			return nil
		},
	})
}
