package sqlite

import (
	"context"
	"database/sql"
	"strings"

	cove "github.com/cove-sandbox/cove"
)

// KeepSnapshot implements store.Snapshots.
func (s *Store) KeepSnapshot(ctx context.Context, n cove.NamedSnapshot) (cove.NamedSnapshot, []cove.Build, error) {
	const op = "sqlite.KeepSnapshot"
	var superseded []cove.Build
	n.TaggedAt = fromMicros(micros(n.TaggedAt))
	err := s.tx(ctx, op, func(tx *sql.Tx) error {
		found, err := templateOf(ctx, tx, n.Template)
		if err != nil {
			return err
		}
		if found.Source != cove.FromSandbox {
			return cove.E(cove.Conflict, op, nil, "Alias '%s' is already used by a template that is not a snapshot", n.Template.Alias)
		}
		n.Template = found
		n.Build.Template = n.Template.ID
		if err := insertBuild(ctx, tx, n.Build); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO tags (template_id, tag, build_id, created_at) VALUES (?, ?, ?, ?)
			ON CONFLICT (template_id, tag) DO UPDATE SET build_id = excluded.build_id, created_at = excluded.created_at`,
			n.Template.ID, n.Tag, n.Build.ID, micros(n.TaggedAt)); err != nil {
			return err
		}
		superseded, err = dropUntagged(ctx, tx, op, n.Template.ID)
		return err
	})
	return n, superseded, err
}

// ListSnapshots implements store.Snapshots.
func (s *Store) ListSnapshots(ctx context.Context, team cove.TeamID, f cove.SnapshotFilter) (cove.SnapshotPage, error) {
	const op = "sqlite.ListSnapshots"
	var page cove.SnapshotPage
	where, args := []string{"t.team_id = ?", "t.source = ?"}, []any{team, cove.FromSandbox}
	if f.Origin != "" {
		where, args = append(where, "b.origin_id = ?"), append(args, f.Origin)
	}
	if f.Name != "" {
		where, args = append(where, "(t.alias = ? OR t.id = ?)"), append(args, f.Name, f.Name)
	}
	if f.Tag != "" {
		where, args = append(where, "g.tag = ?"), append(args, f.Tag)
	}
	if f.After != (cove.SnapshotPos{}) {
		where = append(where, "(g.created_at, t.id, g.tag) < (?, ?, ?)")
		args = append(args, micros(f.After.TaggedAt), f.After.Template, f.After.Tag)
	}
	rows, err := s.read.QueryContext(ctx, `SELECT g.tag, g.created_at, `+prefixed("t.", templateColumns)+`, `+prefixed("b.", buildColumns)+`
		FROM tags AS g JOIN templates AS t ON t.id = g.template_id JOIN builds AS b ON b.id = g.build_id
		WHERE `+strings.Join(where, " AND ")+` ORDER BY g.created_at DESC, t.id DESC, g.tag DESC LIMIT ?`, append(args, f.Limit+1)...)
	if err != nil {
		return page, convert(op, err)
	}
	if page.Snapshots, err = collect(op, rows, scanSnapshot); err != nil {
		return page, err
	}
	if len(page.Snapshots) > f.Limit { // one more was asked for, to know whether there is more
		page.Snapshots = page.Snapshots[:f.Limit]
		last := page.Snapshots[f.Limit-1]
		page.Next = cove.SnapshotPos{TaggedAt: last.TaggedAt, Template: last.Template.ID, Tag: last.Tag}
	}
	return page, nil
}

func scanSnapshot(row scanner) (cove.NamedSnapshot, error) {
	var n cove.NamedSnapshot
	var tagged int64
	template, setTemplate := templateFields(&n.Template)
	build, setBuild := buildFields(&n.Build)
	err := row.Scan(append(append([]any{&n.Tag, &tagged}, template...), build...)...)
	setTemplate()
	setBuild()
	n.TaggedAt = fromMicros(tagged)
	return n, err
}

// prefixed puts the name of a table before each column.
func prefixed(table, columns string) string {
	names := strings.Split(columns, ",")
	for i, name := range names {
		names[i] = table + strings.TrimSpace(name)
	}
	return strings.Join(names, ", ")
}

// DropSnapshot implements store.Snapshots.
func (s *Store) DropSnapshot(ctx context.Context, team cove.TeamID, template cove.TemplateID, tag string) ([]cove.Build, error) {
	const op = "sqlite.DropSnapshot"
	var dropped []cove.Build
	err := s.tx(ctx, op, func(tx *sql.Tx) error {
		err := someRow(tx.ExecContext(ctx, `DELETE FROM tags WHERE (tag = ?1 OR ?1 = '')
			AND template_id = (SELECT id FROM templates WHERE id = ?2 AND team_id = ?3 AND source = ?4)`, tag, template, team, cove.FromSandbox))
		if err != nil {
			return err
		}
		dropped, err = dropUntagged(ctx, tx, op, template)
		return err
	})
	return dropped, err
}

// KeptSnapshots implements store.Snapshots.
func (s *Store) KeptSnapshots(ctx context.Context) ([]cove.SnapshotID, error) {
	const op = "sqlite.KeptSnapshots"
	rows, err := s.read.QueryContext(ctx, `SELECT snapshot_id FROM builds WHERE snapshot_id <> ''
		UNION SELECT snapshot_id FROM layers ORDER BY snapshot_id`)
	if err != nil {
		return nil, convert(op, err)
	}
	return collect(op, rows, func(row scanner) (id cove.SnapshotID, err error) {
		err = row.Scan(&id)
		return id, err
	})
}

// Usage implements store.Snapshots.
func (s *Store) Usage(ctx context.Context, team cove.TeamID) (cove.Usage, error) {
	var u cove.Usage
	err := s.read.QueryRowContext(ctx, `SELECT
		(SELECT count(*) FROM sandboxes WHERE team_id = ?1 AND state IN (?2, ?3, ?4, ?5)),
		(SELECT coalesce(sum(snapshot_bytes), 0) FROM sandboxes WHERE team_id = ?1) +
		(SELECT coalesce(sum(bytes), 0) FROM (SELECT max(b.snapshot_bytes) AS bytes
			FROM builds AS b JOIN templates AS t ON t.id = b.template_id WHERE t.team_id = ?1 GROUP BY b.snapshot_id))`,
		team, cove.Starting, cove.Running, cove.Pausing, cove.Resuming).Scan(&u.Sandboxes, &u.SnapshotBytes)
	return u, convert("sqlite.Usage", err)
}
