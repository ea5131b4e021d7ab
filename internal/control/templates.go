package control

import (
	"cmp"
	"context"
	"strings"

	cove "github.com/cove-sandbox/cove"
)

// own returns a team's own template by any of its names. NotFound: there is none
// that the team may know of. Forbidden: it is another's.
func (c *Control) own(ctx context.Context, op string, team cove.TeamID, name string) (cove.Template, cove.TemplateRef, error) {
	if err := c.ready(ctx); err != nil {
		return cove.Template{}, cove.TemplateRef{}, err
	}
	ref, err := cove.ParseTemplateRef(name)
	if err != nil {
		return cove.Template{}, ref, cove.E(cove.NotFound, op, err, "template '%s' not found", name)
	}
	t, err := c.template(ctx, op, team, name, ref)
	if err == nil && t.Team != team {
		err = cove.E(cove.Forbidden, op, nil, "template '%s' is not your team's", name)
	}
	return t, ref, err
}

// template returns the template of a reference that a team may use: its own,
// the installation's, or a public one of another team.
func (c *Control) template(ctx context.Context, op string, team cove.TeamID, name string, ref cove.TemplateRef) (t cove.Template, err error) {
	if ref.Namespace == "" {
		t, err = c.cfg.Store.TemplateByName(ctx, team, ref.Alias)
	} else {
		t, err = c.inNamespace(ctx, team, ref)
	}
	if cove.Is(err, cove.NotFound) {
		return t, cove.E(cove.NotFound, op, err, "template '%s' not found", name)
	}
	return t, err
}

// inNamespace returns a template by the name of the team that owns it and its
// own.
func (c *Control) inNamespace(ctx context.Context, team cove.TeamID, ref cove.TemplateRef) (cove.Template, error) {
	self, err := c.cfg.Store.Team(ctx, team)
	if err != nil {
		return cove.Template{}, err
	}
	if self.Slug() != ref.Namespace {
		return c.cfg.Store.PublicTemplate(ctx, ref.Namespace, ref.Alias)
	}
	t, err := c.cfg.Store.TemplateByName(ctx, team, ref.Alias)
	if err == nil && t.Team != team {
		err = cove.E(cove.NotFound, "control.inNamespace", nil, "there is no such template in the namespace")
	}
	return t, err
}

// build returns the build of a template that a tag names; the tag may be the
// build's identifier. The installation's own templates need no tags.
func (c *Control) build(ctx context.Context, op string, t cove.Template, tag string) (cove.Build, error) {
	if cove.BuildID(tag).Valid() {
		b, err := c.cfg.Store.Build(ctx, cove.BuildID(tag))
		if err == nil && b.Template == t.ID && b.Status == cove.BuildReady {
			return b, nil
		}
		if err != nil && !cove.Is(err, cove.NotFound) {
			return b, err
		}
	}
	b, err := c.cfg.Store.TaggedBuild(ctx, t.ID, tag)
	if !cove.Is(err, cove.NotFound) {
		return b, err
	}
	if tag == cove.DefaultTag && t.Team == "" {
		b, err = c.cfg.Store.LatestBuild(ctx, t.ID, cove.BuildReady)
	}
	if cove.Is(err, cove.NotFound) {
		return b, c.noTag(ctx, op, t, tag)
	}
	return b, err
}

// noTag says why a template has no build of a tag.
func (c *Control) noTag(ctx context.Context, op string, t cove.Template, tag string) error {
	if tag == cove.DefaultTag && t.Source != cove.FromSandbox {
		if _, err := c.cfg.Store.LatestBuild(ctx, t.ID, cove.BuildReady); cove.Is(err, cove.NotFound) {
			return cove.E(cove.NotFound, op, nil, "template '%s' has no finished build yet", t.Alias)
		}
	}
	return cove.E(cove.NotFound, op, nil, "tag '%s' does not exist for template '%s'", tag, t.Alias)
}

// ListTemplates returns a page of a team's templates, newest first.
func (c *Control) ListTemplates(ctx context.Context, team cove.TeamID, after cove.TemplatePos, limit int) ([]cove.TemplateInfo, error) {
	return c.cfg.Store.ListTemplates(ctx, team, after, limit)
}

// TemplateBuilds returns a template and a page of its builds, newest first.
func (c *Control) TemplateBuilds(ctx context.Context, team cove.TeamID, name string, after cove.BuildPos, limit int) (cove.TemplateInfo, []cove.Build, error) {
	t, _, err := c.own(ctx, "control.TemplateBuilds", team, name)
	if err != nil {
		return cove.TemplateInfo{}, nil, err
	}
	info, err := c.cfg.Store.TemplateInfo(ctx, t.ID)
	if err != nil {
		return info, nil, err
	}
	builds, err := c.cfg.Store.ListBuilds(ctx, t.ID, after, limit)
	return info, builds, err
}

// TemplateByAlias returns a template that a team may use.
func (c *Control) TemplateByAlias(ctx context.Context, team cove.TeamID, alias string) (cove.Template, error) {
	const op = "control.TemplateByAlias"
	ref, err := cove.ParseTemplateRef(alias)
	if err != nil {
		return cove.Template{}, err
	}
	return c.template(ctx, op, team, alias, ref)
}

// PublishTemplate says whether other teams may use a template.
func (c *Control) PublishTemplate(ctx context.Context, team cove.TeamID, name string, public bool) (cove.Template, error) {
	t, _, err := c.own(ctx, "control.PublishTemplate", team, name)
	if err != nil {
		return t, err
	}
	t.Public = public
	return t, c.cfg.Store.SetPublic(ctx, team, t.ID, public)
}

// DeleteTemplate removes a template with all its builds. Of one that was made
// from sandboxes, a tag in the name selects the snapshot that is removed alone.
// Invalid: there are sandboxes of it. Sandboxes of snapshots go on.
func (c *Control) DeleteTemplate(ctx context.Context, team cove.TeamID, name string) error {
	const op = "control.DeleteTemplate"
	t, ref, err := c.own(ctx, op, team, name)
	if err != nil {
		return err
	}
	tagged := strings.Contains(name, ":")
	if t.Source == cove.FromSandbox {
		if !tagged {
			ref.Tag = ""
		}
		return c.dropSnapshot(ctx, name, t, ref.Tag)
	}
	if tagged {
		return cove.E(cove.Invalid, op, nil, "a single tag of a template is not deleted but removed: remove the tag '%s', or delete '%s'", ref.Tag, t.Alias)
	}
	c.builds.cancel(t.ID)
	if err := c.cfg.Store.DeleteTemplate(ctx, team, t.ID); err != nil {
		if cove.Is(err, cove.Conflict) {
			// Not Conflict: clients know 400 of this from the reference.
			return cove.E(cove.Invalid, op, err, "template '%s' has sandboxes, running or paused: end them first", name)
		}
		return err
	}
	c.sweepSoon()
	return nil
}

// dropSnapshot removes snapshots that a team keeps: that of a tag, or all of the
// template.
func (c *Control) dropSnapshot(ctx context.Context, name string, t cove.Template, tag string) error {
	dropped, err := c.cfg.Store.DropSnapshot(ctx, t.Team, t.ID, tag)
	if cove.Is(err, cove.NotFound) {
		return cove.E(cove.NotFound, "control.dropSnapshot", err, "template '%s' not found", name)
	}
	if err != nil {
		return err
	}
	c.discard(context.WithoutCancel(ctx), dropped)
	return nil
}

// AssignTags names the build that target does by more tags, also such as name
// another build of the template.
func (c *Control) AssignTags(ctx context.Context, team cove.TeamID, target string, tags []string) (cove.BuildID, error) {
	const op = "control.AssignTags"
	if err := checkTags(op, tags); err != nil {
		return "", err
	}
	t, ref, err := c.own(ctx, op, team, target)
	if err != nil {
		return "", err
	}
	b, err := c.build(ctx, op, t, ref.Tag)
	if err != nil {
		return "", err
	}
	return b.ID, c.cfg.Store.AssignTags(ctx, t.ID, b.ID, tags, c.cfg.Now())
}

// RemoveTags takes tags from a template; its builds stay for a day.
func (c *Control) RemoveTags(ctx context.Context, team cove.TeamID, name string, tags []string) error {
	const op = "control.RemoveTags"
	if err := checkTags(op, tags); err != nil {
		return err
	}
	t, _, err := c.own(ctx, op, team, name)
	if err != nil {
		return err
	}
	if t.Source == cove.FromSandbox {
		return cove.E(cove.Invalid, op, nil, "template '%s' is a snapshot: delete it, with the tag in its name", t.Alias)
	}
	for _, tag := range tags {
		if tag == cove.DefaultTag {
			return cove.E(cove.Invalid, op, nil, "Cannot delete the 'default' tag")
		}
	}
	err = c.cfg.Store.RemoveTags(ctx, t.ID, tags)
	if cove.Is(err, cove.NotFound) {
		return cove.E(cove.NotFound, op, err, "template '%s' does not have all of these tags: %s", t.Alias, strings.Join(tags, ", "))
	}
	return err
}

// TemplateTags returns a template's tags, newest first.
func (c *Control) TemplateTags(ctx context.Context, team cove.TeamID, name string) ([]cove.TemplateTag, error) {
	t, _, err := c.own(ctx, "control.TemplateTags", team, name)
	if err != nil {
		return nil, err
	}
	return c.cfg.Store.Tags(ctx, t.ID)
}

// checkTags refuses what cannot be tags.
func checkTags(op string, tags []string) error {
	if len(tags) == 0 {
		return cove.E(cove.Invalid, op, nil, "no tags are named")
	}
	for _, tag := range tags {
		if folded, err := cove.ParseTag(tag); err != nil || folded != tag {
			return cmp.Or(err, cove.E(cove.Invalid, op, nil, "invalid tag %q: it must be in lower case", tag))
		}
	}
	return nil
}
