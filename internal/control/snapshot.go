package control

import (
	"cmp"
	"context"
	"errors"
	"strings"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/id"
	"github.com/cove-sandbox/cove/internal/node"
)

const snapshotting = "snapshot"

// KeepSnapshot saves a running sandbox, lets it go on, and keeps what was saved
// for its team to make sandboxes from. One of the same name and tag that was
// there before is replaced. Conflict: the sandbox is paused, or the name is that
// of another template.
func (c *Control) KeepSnapshot(ctx context.Context, team cove.TeamID, sandbox cove.SandboxID, req cove.NewSnapshot) (cove.NamedSnapshot, error) {
	const op = "control.KeepSnapshot"
	template, tag, err := c.snapshotName(ctx, team, req.Name)
	if err != nil {
		return cove.NamedSnapshot{}, err
	}
	for {
		sb, err := c.shown(ctx, op, team, sandbox)
		if err != nil {
			return cove.NamedSnapshot{}, err
		}
		if sb.State == cove.Paused {
			return cove.NamedSnapshot{}, cove.E(cove.Conflict, op, nil, "Sandbox '%s' is paused and no snapshot of it can be made; resume it first", sandbox)
		}
		// Not joined: each who asks gets a snapshot that is not older than the
		// question.
		var kept cove.NamedSnapshot
		kind := snapshotting + string(id.Snapshot())
		_, again, err := c.operate(ctx, sandbox, kind, func(ctx context.Context) (_ cove.Sandbox, err error) {
			kept, err = c.keep(ctx, sandbox, template, tag, req.FilesOnly)
			return sb, err
		})
		if !again {
			return kept, err
		}
	}
}

// snapshotName returns the template and tag that a snapshot goes by. The
// template is a new one; the store puts the team's own in its place if there is
// one of that alias.
func (c *Control) snapshotName(ctx context.Context, team cove.TeamID, name string) (cove.Template, string, error) {
	const op = "control.snapshotName"
	template := cove.Template{ID: id.Template(), Team: team, Source: cove.FromSandbox, CreatedAt: c.cfg.Now()}
	template.Alias = string(template.ID)
	if name == "" {
		return template, cove.DefaultTag, nil
	}
	ref, err := cove.ParseTemplateRef(name)
	if err != nil {
		return template, "", err
	}
	if ref.Namespace != "" {
		owner, err := c.cfg.Store.Team(ctx, team)
		if err != nil {
			return template, "", err
		}
		if owner.Slug() != ref.Namespace {
			return template, "", cove.E(cove.Invalid, op, nil, "invalid snapshot name %q: its namespace is not your team's, which is %q", name, owner.Slug())
		}
	}
	template.Alias = ref.Alias
	return template, ref.Tag, nil
}

// keep is the operation. Should the server die before the snapshot is on record,
// the next one removes it: nobody was told of it.
func (c *Control) keep(ctx context.Context, sandbox cove.SandboxID, template cove.Template, tag string, filesOnly bool) (cove.NamedSnapshot, error) {
	const op = "control.keep"
	sb, err := c.fresh(ctx, sandbox, cove.Running)
	if err != nil {
		return cove.NamedSnapshot{}, err
	}
	most, err := c.snapshotRoom(ctx, sb.Team)
	if err != nil {
		return cove.NamedSnapshot{}, err
	}
	root, setup, err := c.origin(ctx, sb)
	if err != nil {
		return cove.NamedSnapshot{}, err
	}
	snapshot, begun := id.Snapshot(), c.cfg.Now()
	defer c.hold(snapshot)()
	saved, err := c.save(ctx, op, sb, node.Save{Snapshot: snapshot, FilesOnly: filesOnly, Strict: true, Most: most})
	if err != nil {
		return cove.NamedSnapshot{}, err
	}
	now := c.cfg.Now()
	kept, superseded, err := c.cfg.Store.KeepSnapshot(ctx, cove.NamedSnapshot{
		Template: template, Tag: tag, TaggedAt: now,
		Build: cove.Build{
			ID: cove.BuildID(id.UUID()), Status: cove.BuildReady, Resources: sb.Resources, Envd: sb.Envd, Setup: setup,
			Root: root, CreatedAt: begun, EndedAt: now, Snapshot: snapshot, FilesOnly: filesOnly, SnapshotBytes: saved.Bytes, Origin: sb.ID,
		},
	})
	if err != nil {
		return cove.NamedSnapshot{}, errors.Join(err, c.cfg.Node.DeleteSnapshot(ctx, snapshot))
	}
	c.discard(ctx, superseded)
	c.noteKept(sb, kept)
	return kept, nil
}

// origin returns the build whose root file system a sandbox has, and what its own
// build has handed on to it. If that is not on record any more, because its
// template is gone, both are empty but for what the sandbox itself knows.
func (c *Control) origin(ctx context.Context, sb cove.Sandbox) (root cove.BuildID, setup cove.Setup, err error) {
	b, err := c.cfg.Store.Build(ctx, sb.Build)
	switch {
	case err == nil:
		root, setup = cmp.Or(b.Root, b.ID), b.Setup
	case !cove.Is(err, cove.NotFound):
		return "", cove.Setup{}, err
	}
	setup.User, setup.Workdir = sb.User, sb.Workdir
	return root, setup, nil
}

// discard removes the snapshots of builds that are not on record any more.
func (c *Control) discard(ctx context.Context, builds []cove.Build) {
	for _, b := range builds {
		if err := c.cfg.Node.DeleteSnapshot(ctx, b.Snapshot); err != nil {
			c.cfg.Log.Error("a snapshot that is not kept any more could not be removed; the next start does it", "snapshot", b.Snapshot, "err", err)
		}
	}
}

// snapshotRoom returns how many bytes a team's next snapshot may take; 0: any
// number.
func (c *Control) snapshotRoom(ctx context.Context, team cove.TeamID) (int64, error) {
	if c.cfg.TeamSnapshotBytes == 0 {
		return 0, nil
	}
	usage, err := c.cfg.Store.Usage(ctx, team)
	if err != nil {
		return 0, err
	}
	return max(1, c.cfg.TeamSnapshotBytes-usage.SnapshotBytes), nil
}

// ListSnapshots returns a page of the snapshots that a team keeps. name, if not
// empty, is a reference: [namespace/]alias[:tag]. One that names nothing selects
// nothing.
func (c *Control) ListSnapshots(ctx context.Context, team cove.TeamID, name string, f cove.SnapshotFilter) (cove.SnapshotPage, error) {
	if name != "" {
		ref, err := cove.ParseTemplateRef(name)
		if err != nil {
			return cove.SnapshotPage{}, err
		}
		if ref.Namespace != "" {
			owner, err := c.cfg.Store.Team(ctx, team)
			if err != nil || owner.Slug() != ref.Namespace {
				return cove.SnapshotPage{}, err
			}
		}
		f.Name = ref.Alias
		if strings.Contains(name, ":") {
			f.Tag = ref.Tag
		}
	}
	return c.cfg.Store.ListSnapshots(ctx, team, f)
}

// Team returns a team, for the names of its templates.
func (c *Control) Team(ctx context.Context, id cove.TeamID) (cove.Team, error) {
	return c.cfg.Store.Team(ctx, id)
}
