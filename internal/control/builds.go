package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// builds are the template builds that are under way.
type builds struct {
	c    *Control
	turn chan struct{} // has an element for each that is being done; the others wait

	mu      sync.Mutex
	ctx     context.Context // Run's; nil before it. Builds end with it, not with a request
	running map[cove.BuildID]*underWay
}

// underWay is one build that is under way, or waits for its turn.
type underWay struct {
	BuildJob
	end context.CancelCauseFunc

	mu    sync.Mutex
	lines []cove.BuildLine // not on record yet; guarded by mu
	said  int              // lines in all; guarded by mu
	bytes int              // of them; guarded by mu

	writing sync.Mutex // held while lines go on record, in their order

	holding sync.Mutex
	held    []func() // release the snapshots the build has made or found; guarded by holding
}

// hold keeps a snapshot for the build. It is released once the build's end is on
// record, not when the builder is done with it: until then nothing else names it.
func (u *underWay) hold(c *Control) func(cove.SnapshotID) func() {
	return func(snapshot cove.SnapshotID) func() {
		u.holding.Lock()
		defer u.holding.Unlock()
		u.held = append(u.held, c.hold(snapshot))
		return func() {}
	}
}

func (u *underWay) release() {
	u.holding.Lock()
	defer u.holding.Unlock()
	for _, release := range u.held {
		release()
	}
	u.held = nil
}

// A build's log is bounded: what is inside may print anything.
const (
	maxBuildLines = 20_000
	maxBuildBytes = 8 << 20
	flushBuilds   = 200 * time.Millisecond // how often lines go on record
)

var (
	errDeleted = cove.E(cove.Conflict, "control.builds", nil, "the template was deleted while it was built")
	errStopped = cove.E(cove.Unavailable, "control.builds", nil, "the server was stopped while it built the template: build it again")
)

// open lets builds begin, and end when ctx is done.
func (b *builds) open(ctx context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ctx = ctx
}

// close lets no build begin any more.
func (b *builds) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ctx = nil
}

// of returns how many builds of a team are under way.
func (b *builds) of(team cove.TeamID) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, u := range b.running {
		if u.Team == team {
			n++
		}
	}
	return n
}

// cancel ends the builds of a template.
func (b *builds) cancel(template cove.TemplateID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, u := range b.running {
		if u.Build.Template == template {
			u.end(errDeleted)
		}
	}
}

// flush puts what a build has said on record. One that is not under way has said
// everything.
func (b *builds) flush(ctx context.Context, id cove.BuildID) error {
	b.mu.Lock()
	u := b.running[id]
	b.mu.Unlock()
	if u == nil {
		return nil
	}
	return u.flush(ctx, b.c)
}

// carryOut begins a build, which goes on by itself.
func (c *Control) carryOut(job BuildJob) error {
	b := &c.builds
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx == nil || b.ctx.Err() != nil {
		return errStopped
	}
	ctx, end := context.WithCancelCause(b.ctx)
	u := &underWay{BuildJob: job, end: end}
	u.Log, u.Hold = u.log(c), u.hold(c)
	b.running[job.Build.ID] = u
	c.work.Go(func() {
		defer end(nil)
		c.finishBuild(context.WithoutCancel(ctx), u, func() (cove.Build, error) { return c.doBuild(ctx, u) })
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.running, job.Build.ID)
	})
	return nil
}

// doBuild waits for the build's turn and does it.
func (c *Control) doBuild(ctx context.Context, u *underWay) (cove.Build, error) {
	stop := make(chan struct{})
	var flushing sync.WaitGroup
	defer flushing.Wait()
	defer close(stop)
	flushing.Go(func() { c.flushEvery(context.WithoutCancel(ctx), u, stop) })

	select {
	case c.builds.turn <- struct{}{}:
	default:
		u.Log(cove.LogInfo, "", fmt.Sprintf("Waiting for one of %d builds to end", cap(c.builds.turn)))
		select {
		case c.builds.turn <- struct{}{}:
		case <-ctx.Done():
			return cove.Build{}, c.whyEnded(ctx, ctx.Err())
		}
	}
	defer func() { <-c.builds.turn }()
	limited, cancel := context.WithTimeoutCause(ctx, c.cfg.BuildLimit, context.DeadlineExceeded)
	defer cancel()
	built, err := c.cfg.Templates.Build(limited, u.BuildJob)
	if err != nil && ctx.Err() != nil {
		err = c.whyEnded(ctx, err)
	}
	return built, err
}

// whyEnded says why a build was broken off.
func (c *Control) whyEnded(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errDeleted) {
		return errors.Join(errDeleted, err)
	}
	return errors.Join(errStopped, err)
}

// finishBuild does a build and records how it ended.
func (c *Control) finishBuild(ctx context.Context, u *underWay, do func() (cove.Build, error)) {
	defer u.release()
	built, err := do()
	b := u.Build
	if err == nil {
		b = built
		b.Status = cove.BuildReady
	} else {
		b.Status = cove.BuildError
		b.Reason, b.ReasonStep = reasonOf(err)
		u.Log(cove.LogError, b.ReasonStep, b.Reason)
		c.cfg.Log.Info("a template build failed", "build", b.ID, "template", b.Template, "err", err)
	}
	b.EndedAt = c.cfg.Now()
	// Whoever sees the end sees all lines.
	if ferr := u.flush(ctx, c); ferr != nil && !cove.Is(ferr, cove.NotFound) {
		c.cfg.Log.Error("the log of a build could not be written", "build", b.ID, "err", ferr)
	}
	if uerr := c.cfg.Store.UpdateBuild(ctx, b); uerr != nil {
		if !cove.Is(uerr, cove.NotFound) { // else its template was deleted; what it left is swept
			c.cfg.Log.Error("the end of a build could not be recorded; the next start does it", "build", b.ID, "err", uerr)
		}
		c.sweepSoon()
	}
}

// reasonOf returns an error of a build in words for its owner, and the step.
func reasonOf(err error) (reason, step string) {
	if s, ok := errors.AsType[*cove.StepError](err); ok {
		step = s.Step
	}
	_, reason = cove.Describe(err)
	return reason, step
}

// log returns the function that takes down what a build says.
func (u *underWay) log(c *Control) func(cove.LogLevel, string, string) {
	return func(level cove.LogLevel, step, message string) {
		u.mu.Lock()
		defer u.mu.Unlock()
		full := u.said >= maxBuildLines || u.bytes >= maxBuildBytes
		u.said++
		u.bytes += len(message)
		switch {
		case !full && (u.said == maxBuildLines || u.bytes >= maxBuildBytes):
			message = "The log is full: what follows is left out"
		case full && level < cove.LogError: // how it ends is told in any case
			return
		}
		u.lines = append(u.lines, cove.BuildLine{At: c.cfg.Now(), Level: level, Step: step, Message: message})
	}
}

// flush puts on record what the build has said.
func (u *underWay) flush(ctx context.Context, c *Control) error {
	u.writing.Lock()
	defer u.writing.Unlock()
	u.mu.Lock()
	lines := u.lines
	u.lines = nil
	u.mu.Unlock()
	if len(lines) == 0 {
		return nil
	}
	err := c.cfg.Store.AddBuildLines(ctx, u.Build.ID, lines, 2*maxBuildLines) // the last errors have room
	if err != nil && !cove.Is(err, cove.NotFound) {
		u.mu.Lock()
		u.lines = append(lines, u.lines...)
		u.mu.Unlock()
	}
	return err
}

func (c *Control) flushEvery(ctx context.Context, u *underWay, stop <-chan struct{}) {
	ticker := time.NewTicker(flushBuilds)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			if err := u.flush(ctx, c); err != nil && !cove.Is(err, cove.NotFound) {
				c.cfg.Log.Warn("the log of a build could not be written; it is tried again", "build", u.Build.ID, "err", err)
			}
		}
	}
}

// closeBuilds closes the records of teams' builds that an earlier server was at.
func (c *Control) closeBuilds(ctx context.Context) error {
	return c.closeUnfinished(ctx, func(b cove.Build) error {
		if b.Status != cove.BuildRunning {
			return nil
		}
		return errStopped
	})
}

// expireBuilds closes the records of builds that nobody has begun for long.
func (c *Control) expireBuilds(ctx context.Context) error {
	return c.closeUnfinished(ctx, func(b cove.Build) error {
		if b.Status != cove.BuildWaiting || c.cfg.Now().Sub(b.CreatedAt) < c.cfg.WaitLimit {
			return nil
		}
		return cove.E(cove.DeadlineExceeded, "control.expireBuilds", nil, "nobody began the build within %s of its request", c.cfg.WaitLimit)
	})
}

// closeUnfinished closes, as failed, the records of teams' builds for which why
// returns the reason.
func (c *Control) closeUnfinished(ctx context.Context, why func(cove.Build) error) error {
	unfinished, err := c.cfg.Store.UnfinishedBuilds(ctx)
	if err != nil {
		return err
	}
	base, err := c.cfg.Store.TemplateByName(ctx, "", cove.BaseTemplate)
	if err != nil && !cove.Is(err, cove.NotFound) { // at the first start it is about to be made
		return err
	}
	err = nil
	for _, b := range unfinished {
		reason := why(b)
		if b.Template == base.ID || reason == nil {
			continue
		}
		b.Status, b.EndedAt = cove.BuildError, c.cfg.Now()
		b.Reason, _ = reasonOf(reason)
		uerr := c.cfg.Store.UpdateBuild(ctx, b)
		if cove.Is(uerr, cove.Conflict) || cove.Is(uerr, cove.NotFound) {
			uerr = nil // somebody was faster
		}
		err = cmp.Or(err, uerr)
	}
	return err
}
