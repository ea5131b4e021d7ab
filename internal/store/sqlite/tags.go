package sqlite

import (
	"context"
	"database/sql"
	"slices"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// giveTags names a template's build by tags. One that was given to a build later
// than at stays with that.
func giveTags(ctx context.Context, tx *sql.Tx, template cove.TemplateID, build cove.BuildID, tags []string, at time.Time) error {
	for _, tag := range tags {
		_, err := tx.ExecContext(ctx, `INSERT INTO tags (template_id, tag, build_id, created_at) VALUES (?, ?, ?, ?)
			ON CONFLICT (template_id, tag) DO UPDATE SET build_id = excluded.build_id, created_at = excluded.created_at
			WHERE tags.created_at <= excluded.created_at`, template, tag, build, micros(at))
		if err != nil {
			return err
		}
	}
	return nil
}

// AssignTags implements store.Templates.
func (s *Store) AssignTags(ctx context.Context, template cove.TemplateID, build cove.BuildID, tags []string, at time.Time) error {
	const op = "sqlite.AssignTags"
	return s.tx(ctx, op, func(tx *sql.Tx) error {
		var status cove.BuildStatus
		if err := tx.QueryRowContext(ctx, `SELECT status FROM builds WHERE id = ? AND template_id = ?`, build, template).Scan(&status); err != nil {
			return err
		}
		if status != cove.BuildReady {
			return cove.E(cove.Conflict, op, nil, "the build is not ready")
		}
		if err := giveTags(ctx, tx, template, build, tags, at); err != nil {
			return err
		}
		_, err := dropUntagged(ctx, tx, op, template) // the sweep finds their snapshots
		return err
	})
}

// RemoveTags implements store.Templates.
func (s *Store) RemoveTags(ctx context.Context, template cove.TemplateID, tags []string) error {
	const op = "sqlite.RemoveTags"
	tags = slices.Compact(slices.Sorted(slices.Values(tags)))
	return s.tx(ctx, op, func(tx *sql.Tx) error {
		for _, tag := range tags {
			if err := someRow(tx.ExecContext(ctx, `DELETE FROM tags WHERE template_id = ? AND tag = ?`, template, tag)); err != nil {
				return err
			}
		}
		_, err := dropUntagged(ctx, tx, op, template) // the sweep finds their snapshots
		return err
	})
}

// Tags implements store.Templates.
func (s *Store) Tags(ctx context.Context, template cove.TemplateID) ([]cove.TemplateTag, error) {
	const op = "sqlite.Tags"
	rows, err := s.read.QueryContext(ctx, `SELECT tag, build_id, created_at FROM tags WHERE template_id = ? ORDER BY created_at DESC, tag`, template)
	if err != nil {
		return nil, convert(op, err)
	}
	return collect(op, rows, func(row scanner) (cove.TemplateTag, error) {
		var t cove.TemplateTag
		var created int64
		err := row.Scan(&t.Tag, &t.Build, &created)
		t.CreatedAt = fromMicros(created)
		return t, err
	})
}

// TaggedBuild implements store.Templates.
func (s *Store) TaggedBuild(ctx context.Context, template cove.TemplateID, tag string) (cove.Build, error) {
	b, err := scanBuild(s.read.QueryRowContext(ctx, `SELECT `+buildColumns+` FROM builds
		WHERE id = (SELECT build_id FROM tags WHERE template_id = ? AND tag = ?)`, template, tag))
	return b, convert("sqlite.TaggedBuild", err)
}

// dropUntagged removes the builds of a template that were made from sandboxes
// and that no tag names any more, and the template with its last one. It returns
// those whose snapshot nothing needs now.
func dropUntagged(ctx context.Context, tx *sql.Tx, op string, template cove.TemplateID) ([]cove.Build, error) {
	const untagged = ` FROM builds WHERE id NOT IN (SELECT build_id FROM tags)
		AND template_id = (SELECT id FROM templates WHERE id = ? AND source = '` + string(cove.FromSandbox) + `')`
	rows, err := tx.QueryContext(ctx, `SELECT `+buildColumns+untagged, template)
	if err != nil {
		return nil, err
	}
	builds, err := collect(op, rows, scanBuild)
	if err != nil || len(builds) == 0 {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, `DELETE`+untagged, template); err != nil {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM templates WHERE id = ? AND id NOT IN (SELECT template_id FROM tags)`, template); err != nil {
		return nil, err
	}
	var last []cove.Build
	for _, b := range builds {
		var needed bool
		err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM builds WHERE snapshot_id = ?1 AND snapshot_id <> '')
			OR EXISTS (SELECT 1 FROM layers WHERE snapshot_id = ?1)`, b.Snapshot).Scan(&needed)
		if err != nil {
			return nil, err
		}
		if !needed {
			last = append(last, b)
		}
	}
	return last, nil
}
