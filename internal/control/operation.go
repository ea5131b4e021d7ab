package control

import (
	"cmp"
	"context"
	"errors"

	cove "github.com/cove-sandbox/cove"
)

// An operation is a change of state that takes time. There is at most one per
// sandbox. Whoever wants the same while it is under way waits for it and gets
// the same result; whoever wants something else waits and then looks again.
type operation struct {
	kind string
	done chan struct{}
	sb   cove.Sandbox // the result; set before done is closed
	err  error
}

// operate runs do as the sandbox's operation, or joins one of the same kind.
// again reports that one of another kind was waited for and do was not run. The
// operation goes on if ctx ends: what was begun is finished.
func (c *Control) operate(ctx context.Context, id cove.SandboxID, kind string,
	do func(ctx context.Context) (cove.Sandbox, error)) (sb cove.Sandbox, again bool, err error) {
	if ctx.Err() != nil {
		return cove.Sandbox{}, false, givenUp(ctx)
	}
	c.mu.Lock()
	op, busy := c.ops[id]
	if !busy {
		op = &operation{kind: kind, done: make(chan struct{})}
		c.ops[id] = op
		c.work.Add(1)
		detached := context.WithoutCancel(ctx)
		go func() {
			defer c.work.Done()
			op.sb, op.err = do(detached)
			c.mu.Lock()
			delete(c.ops, id)
			c.mu.Unlock()
			close(op.done)
		}()
	}
	c.mu.Unlock()
	select {
	case <-op.done:
	case <-ctx.Done():
		return cove.Sandbox{}, false, givenUp(ctx)
	}
	if op.kind != kind || errors.Is(op.err, errChanged) {
		return cove.Sandbox{}, true, nil
	}
	return op.sb, false, op.err
}

// errChanged ends an operation that found another state than it is for.
var errChanged = errors.New("the sandbox's state has changed")

// fresh returns a sandbox at the beginning of its operation. What the caller
// saw before may have been changed by the operation it waited for. One that is on
// its way somewhere, although nothing else is done to it, was left so by an
// operation that could not write down its end; that is put right, as after a
// restart.
func (c *Control) fresh(ctx context.Context, id cove.SandboxID, want cove.State) (cove.Sandbox, error) {
	sb, err := c.cfg.Store.SandboxByID(ctx, id)
	if err == nil && sb.State != want {
		err = errChanged
		if sb.State == cove.Pausing || sb.State == cove.Resuming {
			err = cmp.Or(c.reconcileOne(ctx, sb), err)
		}
	}
	return sb, orUnknown("control.fresh", id, err)
}

func givenUp(ctx context.Context) error {
	return cove.E(cove.Unavailable, "control.operate", ctx.Err(),
		"the sandbox is being changed and the request was given up; ask again how it is")
}
