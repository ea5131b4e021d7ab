package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"strings"

	cove "github.com/cove-sandbox/cove"
)

const templateColumns = `id, team_id, alias, source, public, created_at`

// templateFields returns where a template's columns are read into, and what
// must be called then.
func templateFields(t *cove.Template) (into []any, set func()) {
	var created int64
	return []any{&t.ID, &t.Team, &t.Alias, &t.Source, &t.Public, &created}, func() { t.CreatedAt = fromMicros(created) }
}

func scanTemplate(row scanner) (cove.Template, error) {
	var t cove.Template
	into, set := templateFields(&t)
	err := row.Scan(into...)
	set()
	return t, err
}

// execer is the database or a transaction.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func insertTemplate(ctx context.Context, db execer, t cove.Template) error {
	_, err := db.ExecContext(ctx, `INSERT INTO templates (`+templateColumns+`) VALUES (`+marks(6)+`)`,
		t.ID, t.Team, t.Alias, cmp.Or(t.Source, cove.FromRecipe), t.Public, micros(t.CreatedAt))
	return err
}

// CreateTemplate implements store.Templates.
func (s *Store) CreateTemplate(ctx context.Context, t cove.Template) error {
	return convert("sqlite.CreateTemplate", insertTemplate(ctx, s.write, t))
}

// TemplateByName implements store.Templates.
func (s *Store) TemplateByName(ctx context.Context, team cove.TeamID, name string) (cove.Template, error) {
	t, err := scanTemplate(s.read.QueryRowContext(ctx, `
		SELECT `+templateColumns+` FROM templates
		WHERE (alias = ?2 AND team_id IN (?1, '')) OR (id = ?2 AND (team_id IN (?1, '') OR public))
		ORDER BY team_id = ?1 DESC, team_id = '' DESC, alias = ?2 DESC LIMIT 1`, team, name))
	return t, convert("sqlite.TemplateByName", err)
}

const buildColumns = `id, template_id, status, reason, cpus, memory_mb, disk_mb, envd, user, workdir, created_at, ended_at,
	snapshot_id, files_only, snapshot_bytes, origin_id`

// buildFields returns where a build's columns are read into, and what must be
// called then.
func buildFields(b *cove.Build) (into []any, set func()) {
	var created, ended int64
	return []any{
		&b.ID, &b.Template, &b.Status, &b.Reason, &b.Resources.CPUs, &b.Resources.MemoryMB, &b.Resources.DiskMB,
		&b.Envd, &b.User, &b.Workdir, &created, &ended, &b.Snapshot, &b.FilesOnly, &b.SnapshotBytes, &b.Origin,
	}, func() { b.CreatedAt, b.EndedAt = fromMicros(created), fromMicros(ended) }
}

func scanBuild(row scanner) (cove.Build, error) {
	var b cove.Build
	into, set := buildFields(&b)
	err := row.Scan(into...)
	set()
	return b, err
}

func insertBuild(ctx context.Context, db execer, b cove.Build) error {
	_, err := db.ExecContext(ctx, `INSERT INTO builds (`+buildColumns+`) VALUES (`+marks(16)+`)`,
		b.ID, b.Template, b.Status, b.Reason, b.Resources.CPUs, b.Resources.MemoryMB, b.Resources.DiskMB,
		b.Envd, b.User, b.Workdir, micros(b.CreatedAt), micros(b.EndedAt), b.Snapshot, b.FilesOnly, b.SnapshotBytes, b.Origin)
	return err
}

// CreateBuild implements store.Templates.
func (s *Store) CreateBuild(ctx context.Context, b cove.Build) error {
	return convert("sqlite.CreateBuild", insertBuild(ctx, s.write, b))
}

// UpdateBuild implements store.Templates.
func (s *Store) UpdateBuild(ctx context.Context, b cove.Build) error {
	const op = "sqlite.UpdateBuild"
	return s.tx(ctx, op, func(tx *sql.Tx) error {
		var status cove.BuildStatus
		if err := tx.QueryRowContext(ctx, `SELECT status FROM builds WHERE id = ?`, b.ID).Scan(&status); err != nil {
			return err
		}
		if status == cove.BuildReady || status == cove.BuildError {
			return cove.E(cove.Conflict, op, nil, "the build has ended")
		}
		_, err := tx.ExecContext(ctx, `UPDATE builds SET status = ?, reason = ?, cpus = ?, memory_mb = ?, disk_mb = ?,
			envd = ?, user = ?, workdir = ?, ended_at = ? WHERE id = ?`,
			b.Status, b.Reason, b.Resources.CPUs, b.Resources.MemoryMB, b.Resources.DiskMB,
			b.Envd, b.User, b.Workdir, micros(b.EndedAt), b.ID)
		return err
	})
}

// Build implements store.Templates.
func (s *Store) Build(ctx context.Context, id cove.BuildID) (cove.Build, error) {
	b, err := scanBuild(s.read.QueryRowContext(ctx, `SELECT `+buildColumns+` FROM builds WHERE id = ?`, id))
	return b, convert("sqlite.Build", err)
}

// LatestBuild implements store.Templates.
func (s *Store) LatestBuild(ctx context.Context, template cove.TemplateID, statuses ...cove.BuildStatus) (cove.Build, error) {
	args := []any{template}
	for _, status := range statuses {
		args = append(args, status)
	}
	b, err := scanBuild(s.read.QueryRowContext(ctx, `SELECT `+buildColumns+` FROM builds WHERE template_id = ? AND status IN (`+
		marks(len(statuses))+`) ORDER BY created_at DESC, id DESC LIMIT 1`, args...))
	return b, convert("sqlite.LatestBuild", err)
}

// CurrentBuilds implements store.Templates.
func (s *Store) CurrentBuilds(ctx context.Context) ([]cove.BuildID, error) {
	const op = "sqlite.CurrentBuilds"
	rows, err := s.read.QueryContext(ctx, `SELECT id FROM builds AS b WHERE status IN (?2, ?3)
		OR (status = ?1 AND snapshot_id = '' AND NOT EXISTS (SELECT 1 FROM builds AS n WHERE n.template_id = b.template_id
			AND n.status = ?1 AND n.snapshot_id = '' AND (n.created_at, n.id) > (b.created_at, b.id))) ORDER BY created_at, id`,
		cove.BuildReady, cove.BuildWaiting, cove.BuildRunning)
	if err != nil {
		return nil, convert(op, err)
	}
	return collect(op, rows, func(row scanner) (id cove.BuildID, err error) {
		err = row.Scan(&id)
		return id, err
	})
}

// UnfinishedBuilds implements store.Templates.
func (s *Store) UnfinishedBuilds(ctx context.Context) ([]cove.Build, error) {
	const op = "sqlite.UnfinishedBuilds"
	rows, err := s.read.QueryContext(ctx, `SELECT `+buildColumns+` FROM builds WHERE status IN (?, ?) ORDER BY created_at, id`,
		cove.BuildWaiting, cove.BuildRunning)
	if err != nil {
		return nil, convert(op, err)
	}
	return collect(op, rows, scanBuild)
}

// marks returns n placeholders.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }
