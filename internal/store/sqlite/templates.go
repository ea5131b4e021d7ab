package sqlite

import (
	"context"
	"database/sql"
	"strings"

	cove "github.com/cove-sandbox/cove"
)

// CreateTemplate implements store.Templates.
func (s *Store) CreateTemplate(ctx context.Context, t cove.Template) error {
	_, err := s.write.ExecContext(ctx, `INSERT INTO templates (id, team_id, alias, public, created_at) VALUES (?, ?, ?, ?, ?)`,
		t.ID, t.Team, t.Alias, t.Public, micros(t.CreatedAt))
	return convert("sqlite.CreateTemplate", err)
}

// TemplateByName implements store.Templates.
func (s *Store) TemplateByName(ctx context.Context, team cove.TeamID, name string) (cove.Template, error) {
	var t cove.Template
	var created int64
	err := s.read.QueryRowContext(ctx, `
		SELECT id, team_id, alias, public, created_at FROM templates
		WHERE (alias = ?2 AND team_id IN (?1, '')) OR (id = ?2 AND (team_id IN (?1, '') OR public))
		ORDER BY team_id = ?1 DESC, team_id = '' DESC, alias = ?2 DESC LIMIT 1`, team, name).
		Scan(&t.ID, &t.Team, &t.Alias, &t.Public, &created)
	t.CreatedAt = fromMicros(created)
	return t, convert("sqlite.TemplateByName", err)
}

const buildColumns = `id, template_id, status, reason, cpus, memory_mb, disk_mb, envd, user, workdir, created_at, ended_at`

func scanBuild(row scanner) (cove.Build, error) {
	var b cove.Build
	var created, ended int64
	err := row.Scan(&b.ID, &b.Template, &b.Status, &b.Reason, &b.Resources.CPUs, &b.Resources.MemoryMB, &b.Resources.DiskMB,
		&b.Envd, &b.User, &b.Workdir, &created, &ended)
	b.CreatedAt, b.EndedAt = fromMicros(created), fromMicros(ended)
	return b, err
}

// CreateBuild implements store.Templates.
func (s *Store) CreateBuild(ctx context.Context, b cove.Build) error {
	_, err := s.write.ExecContext(ctx, `INSERT INTO builds (`+buildColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		b.ID, b.Template, b.Status, b.Reason, b.Resources.CPUs, b.Resources.MemoryMB, b.Resources.DiskMB,
		b.Envd, b.User, b.Workdir, micros(b.CreatedAt), micros(b.EndedAt))
	return convert("sqlite.CreateBuild", err)
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
