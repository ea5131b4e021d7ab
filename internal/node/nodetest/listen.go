package nodetest

import (
	"context"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
)

type listener struct {
	ctx  context.Context // the listener's; its end is that of the listening
	said func(node.Line)
}

// Listen implements node.Node.
func (f *Fake) Listen(ctx context.Context, said func(node.Line)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listeners = append(f.listeners, listener{ctx, said})
	return nil
}

// Say makes the daemon in a sandbox say something, as a warning of its guard.
// Whoever listens knows when it returns. One that does not run says nothing.
func (f *Fake) Say(id cove.SandboxID, message string) {
	f.telling.Lock()
	defer f.telling.Unlock()
	f.mu.Lock()
	sb, ok := f.sandboxes[id]
	listeners := append([]listener(nil), f.listeners...)
	f.mu.Unlock()
	if !ok || sb.frozen {
		return
	}
	line := node.Line{ID: id, Execution: sb.spec.Execution, At: time.Now(), Level: cove.LogWarn, Logger: "guard", Message: message}
	for _, l := range listeners {
		if l.ctx.Err() == nil {
			l.said(line)
		}
	}
}

func sayingIsTold(t *testing.T, b Bench) {
	n := b.Open(t)
	lines, ended := make(chan node.Line, 16), make(chan node.Line, 16)
	if err := n.Listen(t.Context(), func(l node.Line) { lines <- l }); err != nil {
		t.Fatalf("listen: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := n.Listen(ctx, func(l node.Line) { ended <- l }); err != nil {
		t.Fatalf("listen: %v", err)
	}
	before := time.Now()
	create(t, n, time.Hour)
	for _, message := range []string{"one", "two"} {
		b.Say(t, "i1", message)
		select {
		case l := <-lines:
			if l.At.Before(before) || l.At.After(time.Now()) {
				t.Errorf("said at %v", l.At)
			}
			l.At = time.Time{}
			if l != (node.Line{ID: "i1", Execution: "x1", Level: cove.LogWarn, Logger: "guard", Message: message}) {
				t.Errorf("line = %+v", l)
			}
		case <-time.After(bound):
			t.Fatalf("%q was not told", message)
		}
	}
	cancel()
	// As with subscriptions: each round is one more chance for the end to come.
	for range 100 {
		for len(ended) > 0 {
			<-ended
		}
		b.Say(t, "i1", "more")
		select {
		case <-lines:
		case <-time.After(bound):
			t.Fatal("not told any more")
		}
		if len(ended) == 0 {
			return
		}
	}
	t.Error("the ended listener is still told")
}
