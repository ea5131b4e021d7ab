package control

import (
	"context"
	"errors"
	"sync"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/id"
)

// BaseBuilder builds the installation's own template.
type BaseBuilder interface {
	// Find returns the newest finished build on this host that the present
	// recipe would make again. ok is false if there is none.
	Find(ctx context.Context) (build cove.Build, ok bool, err error)
	// Build builds it. It reports progress to the operator by itself.
	Build(ctx context.Context, id cove.BuildID) (cove.Build, error)
}

// baseState tells those who ask for the base template how its build goes.
type baseState struct {
	settled chan struct{} // closed when the build of this start is ready or failed

	mu  sync.Mutex
	err error // why it failed; guarded by mu, read once settled
}

// buildBase makes the base template available: as it is on this host already,
// or newly built. A failure is kept for those who ask for the template; the
// server goes on, and the next start tries again.
func (c *Control) buildBase(ctx context.Context) {
	err := c.ensureBase(ctx)
	c.base.mu.Lock()
	c.base.err = err
	c.base.mu.Unlock()
	close(c.base.settled)
	if err != nil && ctx.Err() == nil {
		c.cfg.Log.Error("the base template could not be built; restart the server to try again", "err", err)
	}
}

func (c *Control) ensureBase(ctx context.Context) error {
	template, err := c.baseTemplate(ctx)
	if err != nil {
		return err
	}
	found, ok, err := c.cfg.Base.Find(ctx)
	if err != nil {
		return err
	}
	if err := c.closeOldBuilds(ctx, template, found); err != nil {
		return err
	}
	if ok {
		if ok, err = c.recordBase(ctx, template, found); ok || err != nil {
			return err
		}
	}
	build := cove.Build{
		ID: cove.BuildID(id.UUID()), Template: template.ID, Status: cove.BuildRunning,
		Resources: c.cfg.Resources, CreatedAt: c.cfg.Now(),
	}
	if err := c.cfg.Store.CreateBuild(ctx, build); err != nil {
		return err
	}
	built, err := c.cfg.Base.Build(ctx, build.ID)
	build.EndedAt = c.cfg.Now()
	if err != nil {
		_, build.Reason = cove.Describe(err)
		build.Status = cove.BuildError
		return errors.Join(err, c.cfg.Store.UpdateBuild(context.WithoutCancel(ctx), build))
	}
	build.Status, build.Envd, build.User, build.Workdir = cove.BuildReady, built.Envd, built.User, built.Workdir
	return c.cfg.Store.UpdateBuild(context.WithoutCancel(ctx), build) // it is on disk, server or no server
}

// baseTemplate returns the record of the base template and makes it at the
// first start.
func (c *Control) baseTemplate(ctx context.Context) (cove.Template, error) {
	t, err := c.cfg.Store.TemplateByName(ctx, "", cove.BaseTemplate)
	if !cove.Is(err, cove.NotFound) {
		return t, err
	}
	t = cove.Template{ID: id.Template(), Alias: cove.BaseTemplate, Public: true, CreatedAt: c.cfg.Now()}
	return t, c.cfg.Store.CreateTemplate(ctx, t)
}

// closeOldBuilds closes the records of builds of the base template that a server
// began and did not live to record the end of: as ready if it is the one found
// on disk, as failed if not.
func (c *Control) closeOldBuilds(ctx context.Context, template cove.Template, found cove.Build) error {
	builds, err := c.cfg.Store.UnfinishedBuilds(ctx)
	for _, b := range builds {
		if b.Template != template.ID {
			continue
		}
		b.EndedAt = c.cfg.Now()
		if b.ID == found.ID {
			b.Status, b.Envd, b.User, b.Workdir = cove.BuildReady, found.Envd, found.User, found.Workdir
		} else {
			b.Status, b.Reason = cove.BuildError, "the server was stopped while it built the template"
		}
		err = errors.Join(err, c.cfg.Store.UpdateBuild(ctx, b))
	}
	return err
}

// recordBase makes sure that the newest ready build on record is the one found
// on disk: the two may differ if records or files were restored or removed. It
// reports false if the found one cannot be used because a newer one of another
// recipe is on record; then a new build puts things right.
func (c *Control) recordBase(ctx context.Context, template cove.Template, found cove.Build) (bool, error) {
	latest, err := c.cfg.Store.LatestBuild(ctx, template.ID, cove.BuildReady)
	if err == nil && latest.ID == found.ID {
		return true, nil
	}
	if err != nil && !cove.Is(err, cove.NotFound) {
		return false, err
	}
	found.Template, found.Status, found.Resources = template.ID, cove.BuildReady, c.cfg.Resources
	found.CreatedAt, found.EndedAt = c.cfg.Now(), c.cfg.Now()
	err = c.cfg.Store.CreateBuild(ctx, found)
	if cove.Is(err, cove.Conflict) {
		return false, nil
	}
	return err == nil, err
}

// resolve returns the template a caller named and the build to start. For the
// base template it waits, as long as ctx allows, until its build has settled.
func (c *Control) resolve(ctx context.Context, team cove.TeamID, name string) (cove.Template, cove.Build, error) {
	const op = "control.resolve"
	ref, err := cove.ParseTemplateRef(name)
	if err != nil {
		return cove.Template{}, cove.Build{}, err
	}
	if ref.Alias == cove.BaseTemplate {
		if err := c.awaitBase(ctx); err != nil {
			return cove.Template{}, cove.Build{}, err
		}
	}
	template, err := c.template(ctx, op, team, name, ref)
	if err != nil {
		return cove.Template{}, cove.Build{}, err
	}
	build, err := c.build(ctx, op, template, ref.Tag)
	return template, build, err
}

// awaitBase waits until the base template can be used.
func (c *Control) awaitBase(ctx context.Context) error {
	const op = "control.awaitBase"
	select {
	case <-c.base.settled:
	case <-ctx.Done():
		return cove.E(cove.Unavailable, op, ctx.Err(), "the base template is still being built; try again in a few minutes")
	}
	c.base.mu.Lock()
	defer c.base.mu.Unlock()
	if err := c.base.err; err != nil {
		_, msg := cove.Describe(err)
		return cove.E(cove.Unavailable, op, err, "the base template could not be built: %s", msg)
	}
	return nil
}
