package control

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/id"
	"github.com/cove-sandbox/cove/internal/store"
)

// unknown is the one answer about a sandbox that is not there or not the
// caller's. Clients show it; the text is the protocol's.
func unknown(op string, id cove.SandboxID, cause error) error {
	return cove.E(cove.NotFound, op, cause, "Sandbox %q doesn't exist or you don't have access to it", id)
}

func orUnknown(op string, id cove.SandboxID, err error) error {
	if cove.Is(err, cove.NotFound) {
		return unknown(op, id, err)
	}
	return err
}

// CreateSandbox starts a sandbox and returns once it can be used. If ctx ends
// first, nothing is left of it.
func (c *Control) CreateSandbox(ctx context.Context, team cove.TeamID, req cove.NewSandbox) (cove.Sandbox, error) {
	const op = "control.CreateSandbox"
	if err := c.ready(ctx); err != nil {
		return cove.Sandbox{}, err
	}
	if err := c.checkTimeout(op, req.Timeout, 0); err != nil {
		return cove.Sandbox{}, err
	}
	if req.Key != "" {
		return c.createOnce(ctx, team, req)
	}
	return c.create(ctx, team, req, id.Sandbox())
}

// create starts a sandbox of the given identifier.
func (c *Control) create(ctx context.Context, team cove.TeamID, req cove.NewSandbox, sandbox cove.SandboxID) (cove.Sandbox, error) {
	template, build, err := c.resolve(ctx, team, req.Template)
	if err != nil {
		return cove.Sandbox{}, err
	}
	now := c.cfg.Now()
	sb := cove.Sandbox{
		ID: sandbox, Execution: id.Execution(), Team: team, Template: template.ID,
		Build: build.ID, Node: cove.LocalNode, State: cove.Starting, Resources: build.Resources,
		StartedAt: now, EndAt: now.Add(c.cfg.StartLimit + req.Timeout), Metadata: req.Metadata, Env: withDefaults(req.Env, build.Env),
		Secure: req.Secure, Internet: req.Internet, Envd: build.Envd, User: build.User, Workdir: build.Workdir,
		Lifecycle: cove.Lifecycle{OnTimeout: cmp.Or(req.OnTimeout, cove.KillOnTimeout), FilesOnly: req.FilesOnly, AutoResume: req.AutoResume, IdleAfter: req.IdleAfter, Timeout: req.Timeout},
	}
	if template.Named() {
		sb.Alias = template.Alias
	}
	from := source{snapshot: build.Snapshot}
	if build.FilesOnly {
		from.start = build.StartCommand()
	}
	started, err := c.admit(ctx, sb, from, req.Timeout)
	if err == nil {
		c.noteCreated(started)
	}
	return started, err
}

// withDefaults returns variables, with those of a template where they say
// nothing.
func withDefaults(env, defaults map[string]string) map[string]string {
	if len(defaults) == 0 {
		return env
	}
	all := maps.Clone(defaults)
	maps.Copy(all, env)
	return all
}

// A source is what a new sandbox goes on from.
type source struct {
	snapshot cove.SnapshotID   // empty: it starts afresh
	start    cove.StartCommand // if that has no memory in which it runs already
}

// admit records a sandbox and starts it, if its team may have one more. What is
// not started leaves no record.
func (c *Control) admit(ctx context.Context, sb cove.Sandbox, from source, life time.Duration) (cove.Sandbox, error) {
	// The record comes first: if the server dies from here on, the next one
	// finds it and ends what it names.
	err := c.withinQuota(ctx, sb.Team, func() error { return c.cfg.Store.CreateSandbox(ctx, sb) })
	if err != nil {
		return cove.Sandbox{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.StartLimit)
	defer cancel()
	started, err := c.start(ctx, sb, from, life)
	if err != nil {
		return cove.Sandbox{}, errors.Join(err, c.cfg.Store.DeleteSandbox(context.WithoutCancel(ctx), sb.ID, sb.Execution))
	}
	return started, nil
}

// withinQuota runs add, which makes one more sandbox of a team run, if the team
// may have it.
func (c *Control) withinQuota(ctx context.Context, team cove.TeamID, add func() error) error {
	limit := c.cfg.TeamSandboxes
	if limit == 0 {
		return add()
	}
	c.admission.Lock()
	defer c.admission.Unlock()
	usage, err := c.cfg.Store.Usage(ctx, team)
	if err != nil {
		return err
	}
	if usage.Sandboxes >= limit {
		return cove.E(cove.Exhausted, "control.withinQuota", nil,
			"you have reached the maximum number of concurrent sandboxes (%d): end or pause one first", limit)
	}
	return add()
}

// start runs a recorded sandbox on the node. The time that takes is not taken from
// the sandbox's life. On an error the node has nothing of it.
func (c *Control) start(ctx context.Context, sb cove.Sandbox, from source, life time.Duration) (cove.Sandbox, error) {
	spec := c.spec(sb)
	spec.Snapshot, spec.Start = from.snapshot, from.start
	if err := c.cfg.Node.Create(ctx, spec); err != nil {
		return cove.Sandbox{}, err
	}
	now := c.cfg.Now()
	sb, err := c.cfg.Store.Transition(ctx, sb.ID, sb.Execution, store.Change{To: cove.Running, StartedAt: now, EndAt: now.Add(life)})
	if err == nil {
		err = c.cfg.Node.SetEnd(ctx, spec.ID, spec.Execution, sb.EndAt)
	}
	if err != nil {
		return cove.Sandbox{}, errors.Join(err, c.cfg.Node.Kill(context.WithoutCancel(ctx), spec.ID, spec.Execution))
	}
	return sb, nil
}

// spec is what a node needs to know of a sandbox to start it.
func (c *Control) spec(sb cove.Sandbox) cove.Spec {
	spec := cove.Spec{
		ID: sb.ID, Execution: sb.Execution, Template: sb.Template, Build: sb.Build, Resources: sb.Resources,
		Env: sb.Env, Internet: sb.Internet == nil || *sb.Internet, EndAt: sb.EndAt, OnTimeout: sb.Lifecycle.OnTimeout, IdleAfter: sb.Lifecycle.IdleAfter,
		Snapshot: sb.Snapshot, User: sb.User, Workdir: sb.Workdir,
	}
	if sb.Secure {
		spec.Token = c.cfg.Tokens.Envd(sb.ID)
	}
	return spec
}

// checkTimeout refuses what the installation does not allow; nothing is ever
// shortened in silence. lived is how long the sandbox has run already.
func (c *Control) checkTimeout(op string, timeout, lived time.Duration) error {
	if limit := c.cfg.MaxTimeout; limit > 0 && lived+timeout > limit {
		return cove.E(cove.Invalid, op, nil, "Timeout cannot be greater than %s from the sandbox's start; this server's limit", limit)
	}
	return nil
}

// Sandbox returns a team's sandbox.
func (c *Control) Sandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID) (cove.Sandbox, error) {
	return c.shown(ctx, "control.Sandbox", team, id)
}

// ListSandboxes returns a page of a team's sandboxes.
func (c *Control) ListSandboxes(ctx context.Context, team cove.TeamID, f cove.SandboxFilter) (cove.SandboxPage, error) {
	if err := c.ready(ctx); err != nil {
		return cove.SandboxPage{}, err
	}
	if f.Template != "" {
		ref, err := cove.ParseTemplateRef(f.Template)
		if err != nil {
			return cove.SandboxPage{}, err
		}
		f.Template = ref.Alias
	}
	return c.cfg.Store.ListSandboxes(ctx, team, f)
}

// KillSandbox ends a sandbox, running or paused, and returns when nothing of it
// is left. Several callers may ask at once; each that found it is told that it
// is gone.
func (c *Control) KillSandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID) error {
	const op = "control.KillSandbox"
	if err := c.ready(ctx); err != nil {
		return err
	}
	for {
		sb, err := c.cfg.Store.Sandbox(ctx, team, id)
		if err != nil {
			return orUnknown(op, id, err)
		}
		if sb.State == cove.Starting {
			return unknown(op, id, nil) // its creator has not been told of it yet
		}
		_, again, err := c.operate(ctx, id, killing, func(ctx context.Context) (cove.Sandbox, error) {
			sb, err := c.cfg.Store.Sandbox(ctx, team, id) // what was done meanwhile counts
			if err != nil {
				return cove.Sandbox{}, orUnknown(op, id, err)
			}
			// Recorded first: if the server dies now, the next one finishes it.
			_, err = c.cfg.Store.Transition(ctx, sb.ID, sb.Execution, store.Change{To: cove.Killing})
			if err != nil && !cove.Is(err, cove.Conflict) {
				return cove.Sandbox{}, orUnknown(op, id, err)
			}
			if err := c.finish(ctx, sb); err != nil {
				return cove.Sandbox{}, err
			}
			c.noteKilled(sb)
			return sb, nil
		})
		if !again {
			return err
		}
	}
}

// SetTimeout makes a sandbox end d from now, sooner or later than before. With
// zero it ends at once.
func (c *Control) SetTimeout(ctx context.Context, team cove.TeamID, id cove.SandboxID, d time.Duration) error {
	_, err := c.moveEnd(ctx, "control.SetTimeout", team, id, d, false)
	return err
}

// ExtendSandbox makes a sandbox live at least d from now; it never shortens its
// life. It returns the sandbox as it is then.
func (c *Control) ExtendSandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID, d time.Duration) (cove.Sandbox, error) {
	return c.moveEnd(ctx, "control.ExtendSandbox", team, id, d, true)
}

func (c *Control) moveEnd(ctx context.Context, op string, team cove.TeamID, id cove.SandboxID, d time.Duration, extend bool) (cove.Sandbox, error) {
	now := c.cfg.Now()
	sb, err := c.shown(ctx, op, team, id)
	if err != nil {
		return cove.Sandbox{}, err
	}
	switch sb.State {
	case cove.Paused:
		if extend {
			return cove.Sandbox{}, cove.E(cove.Conflict, op, nil, "Sandbox %q is paused", id)
		}
		return cove.Sandbox{}, unknown(op, id, nil)
	case cove.Pausing, cove.Resuming:
		return cove.Sandbox{}, cove.E(cove.Conflict, op, nil, "Sandbox %q is being %s", id, map[cove.State]string{cove.Pausing: "paused", cove.Resuming: "resumed"}[sb.State])
	}
	if err := c.checkTimeout(op, d, now.Sub(sb.StartedAt)); err != nil {
		return cove.Sandbox{}, err
	}
	sb, err = c.cfg.Store.MoveEnd(ctx, team, id, now.Add(d), extend)
	if err != nil {
		return cove.Sandbox{}, orUnknown(op, id, err)
	}
	// The record counts; a server that dies here tells the node at its start.
	err = c.cfg.Node.SetEnd(ctx, id, sb.Execution, sb.EndAt)
	if cove.Is(err, cove.NotFound) { // it stopped running between the two
		err = cove.E(cove.Conflict, op, err, "Sandbox %q is being paused or ended", id)
	}
	return sb, err
}
