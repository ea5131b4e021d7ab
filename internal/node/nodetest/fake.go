package nodetest

import (
	"context"
	"net"
	"sync"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
)

// Fake is a node.Node whose sandboxes are entries of a map. Its zero value is
// ready to use. Nothing listens in its sandboxes.
type Fake struct {
	// Fail, if set, is asked before each create; its error is the create's.
	Fail func(cove.Spec) error

	mu          sync.Mutex
	sandboxes   map[cove.SandboxID]*fakeSandbox // guarded by mu
	subscribers []subscription                  // guarded by mu
	telling     sync.Mutex                      // one call of subscribers at a time; taken before mu
}

type fakeSandbox struct {
	spec  cove.Spec
	timer *time.Timer
}

type subscription struct {
	ctx   context.Context // the subscriber's; its end is the subscription's
	ended func(node.Ended)
}

var _ node.Node = (*Fake)(nil)

// Spec returns what a running sandbox was created from.
func (f *Fake) Spec(id cove.SandboxID) (cove.Spec, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sb, ok := f.sandboxes[id]
	if !ok {
		return cove.Spec{}, false
	}
	return sb.spec, true
}

// Crash ends a sandbox as its own fault would.
func (f *Fake) Crash(id cove.SandboxID) { f.end(id, "", node.Crashed) }

// end removes a sandbox, of the given execution if that is not empty.
func (f *Fake) end(id cove.SandboxID, execution cove.ExecutionID, reason node.Reason) {
	f.telling.Lock()
	defer f.telling.Unlock()
	f.mu.Lock()
	sb, ok := f.sandboxes[id]
	if !ok || (execution != "" && sb.spec.Execution != execution) {
		f.mu.Unlock()
		return
	}
	sb.timer.Stop()
	delete(f.sandboxes, id)
	subscribers := append([]subscription(nil), f.subscribers...)
	f.mu.Unlock()
	for _, s := range subscribers {
		if s.ctx.Err() == nil {
			s.ended(node.Ended{ID: id, Execution: sb.spec.Execution, Reason: reason})
		}
	}
}

// Create implements node.Node.
func (f *Fake) Create(_ context.Context, spec cove.Spec) error {
	if f.Fail != nil {
		if err := f.Fail(spec); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.sandboxes[spec.ID]; ok {
		return cove.E(cove.Conflict, "nodetest.Create", nil, "the sandbox runs already")
	}
	if f.sandboxes == nil {
		f.sandboxes = map[cove.SandboxID]*fakeSandbox{}
	}
	f.sandboxes[spec.ID] = &fakeSandbox{spec: spec, timer: time.AfterFunc(time.Until(spec.EndAt), func() {
		f.end(spec.ID, spec.Execution, node.Expired)
	})}
	return nil
}

// Kill implements node.Node.
func (f *Fake) Kill(_ context.Context, id cove.SandboxID, execution cove.ExecutionID) error {
	f.end(id, execution, node.Killed)
	return nil
}

// SetEnd implements node.Node.
func (f *Fake) SetEnd(_ context.Context, id cove.SandboxID, execution cove.ExecutionID, end time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	sb, ok := f.sandboxes[id]
	if !ok || sb.spec.Execution != execution {
		return cove.E(cove.NotFound, "nodetest.SetEnd", nil, "the sandbox does not run")
	}
	sb.spec.EndAt = end
	sb.timer.Reset(time.Until(end))
	return nil
}

// List implements node.Node.
func (f *Fake) List(context.Context) ([]node.Running, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []node.Running
	for _, sb := range f.sandboxes {
		all = append(all, node.Running{ID: sb.spec.ID, Execution: sb.spec.Execution, EndAt: sb.spec.EndAt})
	}
	return all, nil
}

// Subscribe implements node.Node.
func (f *Fake) Subscribe(ctx context.Context, ended func(node.Ended)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subscribers = append(f.subscribers, subscription{ctx, ended})
	return nil
}

// Dial implements node.Node.
func (f *Fake) Dial(_ context.Context, id cove.SandboxID, _ uint16) (net.Conn, error) {
	if _, ok := f.Spec(id); !ok {
		return nil, cove.E(cove.NotFound, "nodetest.Dial", nil, "the sandbox does not run")
	}
	return nil, node.ErrPortClosed
}
