package nodetest

import (
	"context"
	"maps"
	"net"
	"slices"
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
	// FailPause, if set, is asked before each pause; its error is the pause's.
	FailPause func(cove.SandboxID) error
	// Created, if set, is told of each create that succeeded, before it returns.
	Created func(cove.Spec)
	// Deaf makes the daemons inside not answer.
	Deaf bool

	// Layer, if set, is asked for what Export writes. Nil: an empty layer.
	Layer func(cove.SandboxID) []byte

	// Words are what is said of a crash.
	Words string
	// Use, if set, is asked for the figures of a measurement.
	Use func(cove.SandboxID) node.Measurement

	mu          sync.Mutex
	sandboxes   map[cove.SandboxID]*fakeSandbox // guarded by mu
	subscribers []subscription                  // guarded by mu
	listeners   []listener                      // guarded by mu
	telling     sync.Mutex                      // one call of subscribers at a time; taken before mu
	snapshots   map[cove.SnapshotID]bool        // guarded by mu
}

// FakeSnapshotBytes is the size of every snapshot of a Fake.
const FakeSnapshotBytes = 1 << 20

type fakeSandbox struct {
	spec   cove.Spec
	timer  *time.Timer
	frozen bool
}

type subscription struct {
	ctx      context.Context // the subscriber's; its end is the subscription's
	happened func(node.Event)
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
func (f *Fake) end(id cove.SandboxID, execution cove.ExecutionID, reason node.What) {
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
	f.mu.Unlock()
	event := node.Event{ID: id, Execution: sb.spec.Execution, What: reason}
	if reason == node.Crashed {
		event.Reason = f.Words
	}
	f.tellLocked(event)
}

func (f *Fake) tell(e node.Event) {
	f.telling.Lock()
	defer f.telling.Unlock()
	f.tellLocked(e)
}

// tellLocked tells the subscribers; telling is held.
func (f *Fake) tellLocked(e node.Event) {
	f.mu.Lock()
	subscribers := append([]subscription(nil), f.subscribers...)
	f.mu.Unlock()
	for _, s := range subscribers {
		if s.ctx.Err() == nil {
			s.happened(e)
		}
	}
}

// Pause implements node.Node.
func (f *Fake) Pause(_ context.Context, id cove.SandboxID, execution cove.ExecutionID, how node.Save) (node.Saved, error) {
	if f.FailPause != nil {
		if err := f.FailPause(id); err != nil {
			return node.Saved{}, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	sb, ok := f.sandboxes[id]
	if !ok || sb.spec.Execution != execution {
		return node.Saved{}, cove.E(cove.NotFound, "nodetest.Pause", nil, "the sandbox does not run")
	}
	if f.Deaf && (how.Strict || how.FilesOnly) {
		return node.Saved{}, cove.E(cove.Unavailable, "nodetest.Pause", nil, "the daemon does not answer")
	}
	if how.Most > 0 && how.Most < FakeSnapshotBytes {
		return node.Saved{}, cove.E(cove.Exhausted, "nodetest.Pause", nil, "the snapshot would be too large")
	}
	sb.frozen = true
	if f.snapshots == nil {
		f.snapshots = map[cove.SnapshotID]bool{}
	}
	f.snapshots[how.Snapshot] = true
	return node.Saved{Bytes: FakeSnapshotBytes, Unresponsive: f.Deaf}, nil
}

// Thaw implements node.Node.
func (f *Fake) Thaw(_ context.Context, id cove.SandboxID, execution cove.ExecutionID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	sb, ok := f.sandboxes[id]
	if !ok || sb.spec.Execution != execution {
		return cove.E(cove.NotFound, "nodetest.Thaw", nil, "the sandbox does not run")
	}
	sb.frozen = false
	return nil
}

// Frozen reports whether a sandbox runs and stands still.
func (f *Fake) Frozen(id cove.SandboxID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	sb, ok := f.sandboxes[id]
	return ok && sb.frozen
}

// DeleteSnapshot implements node.Node.
func (f *Fake) DeleteSnapshot(_ context.Context, snapshot cove.SnapshotID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.snapshots, snapshot)
	return nil
}

// Snapshots implements node.Node.
func (f *Fake) Snapshots(context.Context) ([]cove.SnapshotID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.snapshots)), nil
}

// Sweep implements node.Node. Everything is young.
func (f *Fake) Sweep(_ context.Context, order node.SweepOrder) ([]node.Garbage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var garbage []node.Garbage
	for id := range f.snapshots {
		if !slices.Contains(order.Snapshots, id) || order.OlderThan > 0 {
			continue
		}
		garbage = append(garbage, node.Garbage{Kind: "snapshot", Name: string(id), Bytes: FakeSnapshotBytes})
		if !order.DryRun {
			delete(f.snapshots, id)
		}
	}
	return garbage, nil
}

// Create implements node.Node.
func (f *Fake) Create(_ context.Context, spec cove.Spec) error {
	if f.Fail != nil {
		if err := f.Fail(spec); err != nil {
			return err
		}
	}
	if err := f.create(spec); err != nil {
		return err
	}
	if f.Created != nil {
		f.Created(spec)
	}
	return nil
}

func (f *Fake) create(spec cove.Spec) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.sandboxes[spec.ID]; ok {
		return cove.E(cove.Conflict, "nodetest.Create", nil, "the sandbox runs already")
	}
	if spec.Snapshot != "" && !f.snapshots[spec.Snapshot] {
		return cove.E(cove.NotFound, "nodetest.Create", nil, "the sandbox's snapshot is not on this server")
	}
	if f.sandboxes == nil {
		f.sandboxes = map[cove.SandboxID]*fakeSandbox{}
	}
	f.sandboxes[spec.ID] = &fakeSandbox{spec: spec, timer: time.AfterFunc(time.Until(spec.EndAt), func() {
		if spec.OnTimeout == cove.PauseOnTimeout {
			f.tell(node.Event{ID: spec.ID, Execution: spec.Execution, What: node.Due})
			return
		}
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
func (f *Fake) Subscribe(ctx context.Context, happened func(node.Event)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subscribers = append(f.subscribers, subscription{ctx, happened})
	return nil
}

// Dial implements node.Node.
func (f *Fake) Dial(_ context.Context, id cove.SandboxID, _ uint16) (net.Conn, error) {
	if _, ok := f.Spec(id); !ok {
		return nil, cove.E(cove.NotFound, "nodetest.Dial", nil, "the sandbox does not run")
	}
	return nil, node.ErrPortClosed
}
