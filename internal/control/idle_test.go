package control_test

import (
	"sync"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/control"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/node/nodetest"
)

// TestIdle lets sandboxes be busy in every way in turn, and then idle.
func TestIdle(t *testing.T) {
	const idleAfter = 50 * time.Millisecond
	for name, busy := range map[string]func(m *node.Measurement, n int){
		"a request under way":   func(m *node.Measurement, _ int) { m.Open = 1 },
		"requests now and then": func(m *node.Measurement, _ int) { m.UsedAt = m.At.Add(-time.Millisecond) },
		"a processor":           func(m *node.Measurement, n int) { m.CPU = time.Duration(n) * time.Second },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			isBusy, looks := true, 0
			fake := &nodetest.Fake{Use: func(cove.SandboxID) (m node.Measurement) {
				mu.Lock()
				defer mu.Unlock()
				looks++
				m.At = time.Now()
				if isBusy {
					busy(&m, looks)
				} else {
					m.CPU = 1000 * time.Hour // and no more
				}
				return m
			}}
			b := open(t, records(t), fake, &builder{}, func(c *control.Config) { c.SampleEvery = time.Millisecond })
			req := request()
			req.IdleAfter = idleAfter
			sb, err := b.CreateSandbox(t.Context(), team, req)
			if err != nil {
				t.Fatal(err)
			}
			other := create(t, b) // which may be idle
			seen := func() int {
				mu.Lock()
				defer mu.Unlock()
				return looks
			}
			waitFor(t, func() bool { return seen() > 200 })
			wantState(t, b, sb.ID, cove.Running)
			mu.Lock()
			isBusy = false
			mu.Unlock()
			waitFor(t, func() bool {
				now, err := b.Sandbox(t.Context(), team, sb.ID)
				return err == nil && now.State == cove.Paused
			})
			wantState(t, b, other.ID, cove.Running)
			got, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Hour})
			if spec, _ := fake.Spec(sb.ID); err != nil || got.Lifecycle.IdleAfter != idleAfter || spec.IdleAfter != idleAfter {
				t.Errorf("resumed: %+v, spec %+v, %v", got, spec, err)
			}
		})
	}
}

// waitFor asks again until the answer is yes.
func waitFor(t *testing.T, ask func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ask() {
		if time.Now().After(deadline) {
			t.Fatal("it does not come to it")
		}
		time.Sleep(time.Millisecond)
	}
}
