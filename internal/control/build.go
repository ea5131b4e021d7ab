package control

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/id"
)

// TemplateBuilder builds teams' templates.
type TemplateBuilder interface {
	// Check refuses, as Invalid, an order that cannot be carried out whatever it
	// begins with, and returns the images that it names.
	Check(order cove.BuildOrder) (images []string, err error)
	// Build does one build and returns it as it is when it is ready. On an error
	// nothing is left of it; a *cove.StepError says where it failed.
	Build(ctx context.Context, job BuildJob) (cove.Build, error)
	// InUse returns the root file systems that builds stand on now.
	InUse() []cove.BuildID
}

// BuildJob is one build to be done.
type BuildJob struct {
	Team   cove.TeamID
	Build  cove.Build // its identifier and resources
	Order  cove.BuildOrder
	Parent *cove.Build // what it begins with if that is a template
	Base   *cove.Build // what the images of a Dockerfile mean that stand for the base template
	// Log is told how it goes. It may be called concurrently.
	Log func(level cove.LogLevel, step, message string)
	// Hold keeps a snapshot that no record names yet from being swept, until
	// release is called.
	Hold func(cove.SnapshotID) (release func())
}

// Uploads are the files that clients send for the steps that copy.
type Uploads interface {
	// Has reports whether a team's files of a hash are there.
	Has(team cove.TeamID, hash string) bool
	// Store keeps files. NoSpace: the disk is full.
	Store(ctx context.Context, team cove.TeamID, hash string, body io.Reader) error
	// Sweep removes those that were not used since a time.
	Sweep(ctx context.Context, since time.Time) error
}

// RequestBuild makes a build that waits for its order, and its template if the
// team has none of that name. Exhausted: the team builds as many as it may.
// Conflict: the name is that of something else.
func (c *Control) RequestBuild(ctx context.Context, team cove.TeamID, req cove.NewBuild) (cove.Template, cove.Build, error) {
	const op = "control.RequestBuild"
	none := cove.Template{}
	if err := c.ready(ctx); err != nil {
		return none, cove.Build{}, err
	}
	ref, tags, err := c.buildName(ctx, op, team, req)
	if err != nil {
		return none, cove.Build{}, err
	}
	if n := c.builds.of(team); n >= c.cfg.TeamBuilds {
		return none, cove.Build{}, cove.E(cove.Exhausted, op, nil,
			"you have reached the maximum number of concurrent template builds (%d): wait until one has ended", c.cfg.TeamBuilds)
	}
	resources, err := c.buildResources(op, req)
	if err != nil {
		return none, cove.Build{}, err
	}
	now := c.cfg.Now()
	build := cove.Build{ID: cove.BuildID(id.UUID()), Status: cove.BuildWaiting, Tags: tags, Resources: resources, Envd: c.cfg.EnvdVersion, CreatedAt: now}
	t := cove.Template{ID: id.Template(), Team: team, Alias: ref.Alias, Source: cove.FromRecipe, CreatedAt: now}
	if found, err := c.cfg.Store.TemplateByName(ctx, team, ref.Alias); err == nil && found.Team == team {
		t.Alias = found.Alias // it may have been named by its identifier
	}
	build.Template = t.ID
	t, err = c.cfg.Store.RequestBuild(ctx, t, build)
	build.Template = t.ID
	return t, build, err
}

// buildName returns what a build is to be called.
func (c *Control) buildName(ctx context.Context, op string, team cove.TeamID, req cove.NewBuild) (cove.TemplateRef, []string, error) {
	ref, err := cove.ParseTemplateRef(req.Name)
	if err != nil {
		return ref, nil, err
	}
	if ref.Namespace != "" {
		owner, err := c.cfg.Store.Team(ctx, team)
		if err != nil {
			return ref, nil, err
		}
		if owner.Slug() != ref.Namespace {
			return ref, nil, cove.E(cove.Forbidden, op, nil, "invalid template name %q: its namespace is not your team's, which is %q", req.Name, owner.Slug())
		}
	}
	if ref.Alias == cove.BaseTemplate {
		return ref, nil, cove.E(cove.Conflict, op, nil, "Alias '%s' is already used by the installation's own template", ref.Alias)
	}
	tags := slices.Clone(req.Tags)
	if strings.Contains(req.Name, ":") {
		tags = append(tags, ref.Tag)
	}
	if len(tags) == 0 {
		tags = []string{cove.DefaultTag}
	}
	slices.Sort(tags)
	tags = slices.Compact(tags)
	return ref, tags, checkTags(op, tags)
}

// The least that a sandbox can be given.
const leastMemoryMB = 128

// buildResources returns what sandboxes of a build are to have.
func (c *Control) buildResources(op string, req cove.NewBuild) (cove.Resources, error) {
	r := c.cfg.Resources
	if req.CPUs != 0 {
		r.CPUs = req.CPUs
	}
	if req.MemoryMB != 0 {
		r.MemoryMB = req.MemoryMB
	}
	r.DiskMB = max(r.DiskMB, req.FreeDiskMB)
	most := c.cfg.MostResources
	switch {
	case r.CPUs < 1 || r.CPUs > most.CPUs:
		return r, cove.E(cove.Invalid, op, nil, "cpuCount must be from 1 to %d", most.CPUs)
	case r.MemoryMB < leastMemoryMB || r.MemoryMB > most.MemoryMB:
		return r, cove.E(cove.Invalid, op, nil, "memoryMB must be from %d to %d", leastMemoryMB, most.MemoryMB)
	case r.DiskMB > most.DiskMB:
		return r, cove.E(cove.Invalid, op, nil, "minFreeDiskMB must be at most %d", most.DiskMB)
	}
	return r, nil
}

// ownBuild returns a team's build of a template.
func (c *Control) ownBuild(ctx context.Context, op string, team cove.TeamID, template string, build cove.BuildID) (cove.Template, cove.Build, error) {
	t, _, err := c.own(ctx, op, team, template)
	if err != nil {
		return t, cove.Build{}, err
	}
	b, err := c.cfg.Store.Build(ctx, build)
	if cove.Is(err, cove.NotFound) || err == nil && b.Template != t.ID {
		return t, b, cove.E(cove.NotFound, op, err, "build '%s' not found", build)
	}
	return t, b, err
}

// BeginBuild begins a build that waits. It goes on after the call; BuildStatus
// tells how. Invalid: it does not wait, or the order cannot be carried out.
func (c *Control) BeginBuild(ctx context.Context, team cove.TeamID, template string, build cove.BuildID, order cove.BuildOrder) error {
	const op = "control.BeginBuild"
	_, b, err := c.ownBuild(ctx, op, team, template, build)
	if err != nil {
		return err
	}
	if b.Status != cove.BuildWaiting {
		return cove.E(cove.Invalid, op, nil, "build is not in waiting state")
	}
	images, err := c.checkOrder(op, team, order)
	if err != nil {
		return err
	}
	job := BuildJob{Team: team, Order: order}
	if err := c.resolveImages(ctx, &job, images); err != nil {
		return err
	}
	err = c.cfg.Store.BeginBuild(ctx, b.ID)
	if cove.Is(err, cove.Conflict) {
		return cove.E(cove.Invalid, op, err, "build is not in waiting state")
	}
	if err != nil {
		return err
	}
	b.Status = cove.BuildRunning
	job.Build = b
	return c.carryOut(job)
}

// checkOrder refuses an order that is bound to fail, and returns the images that
// it names.
func (c *Control) checkOrder(op string, team cove.TeamID, order cove.BuildOrder) ([]string, error) {
	begins := 0
	for _, given := range []bool{order.FromImage != "", order.FromTemplate != "", order.Dockerfile != nil} {
		if given {
			begins++
		}
	}
	if begins != 1 {
		return nil, cove.E(cove.Invalid, op, nil, "a build begins with one thing: give one of fromImage, fromTemplate and dockerfile")
	}
	images, err := c.cfg.Templates.Check(order)
	if err != nil {
		return nil, err
	}
	for i, s := range order.Steps {
		if s.Type == cove.CopyStep && !c.cfg.Uploads.Has(team, s.FilesHash) {
			return nil, cove.E(cove.Invalid, op, nil, "step %d: the files to copy were not uploaded", i+1)
		}
	}
	if d := order.Dockerfile; d != nil && d.Context != "" && !c.cfg.Uploads.Has(team, d.Context) {
		return nil, cove.E(cove.Invalid, op, nil, "the build context was not uploaded")
	}
	return images, nil
}

// resolveImages finds the templates that an order begins with, by their names or
// by an image that stands for one. It waits for the base template only as long
// as ctx allows.
func (c *Control) resolveImages(ctx context.Context, job *BuildJob, images []string) error {
	name, to := job.Order.FromTemplate, &job.Parent
	if slices.ContainsFunc(images, cove.IsBaseImage) {
		name = cove.BaseTemplate
		if job.Order.Dockerfile != nil {
			to = &job.Base
		}
	}
	if name == "" {
		return nil
	}
	_, b, err := c.resolve(ctx, job.Team, name)
	*to = &b
	return err
}

// BuildStatus returns a build and lines of its log.
func (c *Control) BuildStatus(ctx context.Context, team cove.TeamID, template string, build cove.BuildID, f cove.BuildLineFilter) (cove.Build, []cove.BuildLine, error) {
	const op = "control.BuildStatus"
	// The build comes first: once it has ended, all its lines are there.
	_, b, err := c.ownBuild(ctx, op, team, template, build)
	if err != nil {
		return b, nil, err
	}
	if err := c.builds.flush(ctx, b.ID); err != nil {
		return b, nil, err
	}
	lines, err := c.cfg.Store.BuildLines(ctx, b.ID, f)
	return b, lines, err
}

// uploadLife is how long the permission to upload files is good for.
const uploadLife = 30 * time.Minute

// FilesUpload says whether a team's files of a hash are there already; if not,
// it returns the token with which they may be sent.
func (c *Control) FilesUpload(ctx context.Context, team cove.TeamID, template, hash string) (present bool, token string, err error) {
	const op = "control.FilesUpload"
	if _, _, err := c.own(ctx, op, team, template); err != nil {
		return false, "", err
	}
	if !cove.FilesHashValid(hash) {
		return false, "", cove.E(cove.Invalid, op, nil, "Invalid files hash")
	}
	// A token is given in any case: clients may insist on sending files again.
	return c.cfg.Uploads.Has(team, hash), c.cfg.Tokens.Upload(team, hash, c.cfg.Now().Add(uploadLife)), nil
}

// StoreFiles keeps what a client uploads. Forbidden: the token is not ours, or
// too old.
func (c *Control) StoreFiles(ctx context.Context, token string, body io.Reader) error {
	team, hash, ok := c.cfg.Tokens.Uploader(token, c.cfg.Now())
	if !ok {
		return cove.E(cove.Forbidden, "control.StoreFiles", nil, "the address to upload to is not valid any more: ask for a new one")
	}
	return c.cfg.Uploads.Store(ctx, team, hash, body)
}
