package sqlite

import (
	"context"
	"database/sql"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// outcomeColumns are the columns of a build that change until it has ended.
const outcomeColumns = `status, reason, reason_step, cpus, memory_mb, disk_mb, envd,
	user, workdir, env, build_env, start_cmd, ready_cmd, key, root_id, ended_at,
	snapshot_id, files_only, snapshot_bytes, origin_id`

const buildColumns = `id, template_id, tags, created_at, ` + outcomeColumns

// buildFields returns where a build's columns are read into, and what must be
// called then.
func buildFields(b *cove.Build) (into []any, set func()) {
	var created, ended int64
	return []any{
		&b.ID, &b.Template, asJSON{&b.Tags}, &created,
		&b.Status, &b.Reason, &b.ReasonStep, &b.Resources.CPUs, &b.Resources.MemoryMB, &b.Resources.DiskMB, &b.Envd,
		&b.User, &b.Workdir, asJSON{&b.Env}, asJSON{&b.BuildEnv}, &b.Start, &b.Ready, &b.Key, &b.Root, &ended,
		&b.Snapshot, &b.FilesOnly, &b.SnapshotBytes, &b.Origin,
	}, func() { b.CreatedAt, b.EndedAt = fromMicros(created), fromMicros(ended) }
}

// outcome returns the values of outcomeColumns.
func outcome(b cove.Build) []any {
	return []any{
		b.Status, b.Reason, b.ReasonStep, b.Resources.CPUs, b.Resources.MemoryMB, b.Resources.DiskMB, b.Envd,
		b.User, b.Workdir, asJSON{b.Env}, asJSON{b.BuildEnv}, b.Start, b.Ready, b.Key, b.Root, micros(b.EndedAt),
		b.Snapshot, b.FilesOnly, b.SnapshotBytes, b.Origin,
	}
}

func scanBuild(row scanner) (cove.Build, error) {
	var b cove.Build
	into, set := buildFields(&b)
	err := row.Scan(into...)
	set()
	return b, err
}

// insertBuild adds a build. One that is ready gets its tags at once.
func insertBuild(ctx context.Context, tx *sql.Tx, b cove.Build) error {
	values := append([]any{b.ID, b.Template, asJSON{b.Tags}, micros(b.CreatedAt)}, outcome(b)...)
	if _, err := tx.ExecContext(ctx, `INSERT INTO builds (`+buildColumns+`) VALUES (`+marks(len(values))+`)`, values...); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE templates SET build_count = build_count + 1 WHERE id = ?`, b.Template); err != nil {
		return err
	}
	return settleBuild(ctx, tx, b)
}

// settleBuild notes with its template that a build was requested or ended, and
// gives it its tags if it is ready.
func settleBuild(ctx context.Context, tx *sql.Tx, b cove.Build) error {
	_, err := tx.ExecContext(ctx, `UPDATE templates SET updated_at = max(updated_at, ?, ?) WHERE id = ?`,
		micros(b.CreatedAt), micros(b.EndedAt), b.Template)
	if err != nil || b.Status != cove.BuildReady {
		return err
	}
	return giveTags(ctx, tx, b.Template, b.ID, b.Tags, b.EndedAt)
}

// RequestBuild implements store.Builds.
func (s *Store) RequestBuild(ctx context.Context, t cove.Template, b cove.Build) (cove.Template, error) {
	const op = "sqlite.RequestBuild"
	t.Source = cove.FromRecipe
	err := s.tx(ctx, op, func(tx *sql.Tx) error {
		var err error
		if t, err = templateOf(ctx, tx, t); err != nil {
			return err
		}
		if t.Source != cove.FromRecipe {
			return cove.E(cove.Conflict, op, nil, "Alias '%s' is already used by a snapshot", t.Alias)
		}
		b.Template, b.Status = t.ID, cove.BuildWaiting
		return insertBuild(ctx, tx, b)
	})
	return t, err
}

// CreateBuild implements store.Builds.
func (s *Store) CreateBuild(ctx context.Context, b cove.Build) error {
	return s.tx(ctx, "sqlite.CreateBuild", func(tx *sql.Tx) error { return insertBuild(ctx, tx, b) })
}

// BeginBuild implements store.Builds.
func (s *Store) BeginBuild(ctx context.Context, id cove.BuildID) error {
	const op = "sqlite.BeginBuild"
	return s.tx(ctx, op, func(tx *sql.Tx) error {
		var status cove.BuildStatus
		if err := tx.QueryRowContext(ctx, `SELECT status FROM builds WHERE id = ?`, id).Scan(&status); err != nil {
			return err
		}
		if status != cove.BuildWaiting {
			return cove.E(cove.Conflict, op, nil, "build is not in waiting state")
		}
		_, err := tx.ExecContext(ctx, `UPDATE builds SET status = ? WHERE id = ?`, cove.BuildRunning, id)
		return err
	})
}

// UpdateBuild implements store.Builds.
func (s *Store) UpdateBuild(ctx context.Context, b cove.Build) error {
	const op = "sqlite.UpdateBuild"
	return s.tx(ctx, op, func(tx *sql.Tx) error {
		was, err := scanBuild(tx.QueryRowContext(ctx, `SELECT `+buildColumns+` FROM builds WHERE id = ?`, b.ID))
		if err != nil {
			return err
		}
		if was.Status == cove.BuildReady || was.Status == cove.BuildError {
			return cove.E(cove.Conflict, op, nil, "the build has ended")
		}
		b.Template, b.Tags, b.CreatedAt = was.Template, was.Tags, was.CreatedAt
		values := outcome(b)
		_, err = tx.ExecContext(ctx, `UPDATE builds SET (`+outcomeColumns+`) = (`+marks(len(values))+`) WHERE id = ?`, append(values, b.ID)...)
		if err != nil {
			return err
		}
		return settleBuild(ctx, tx, b)
	})
}

// Build implements store.Builds.
func (s *Store) Build(ctx context.Context, id cove.BuildID) (cove.Build, error) {
	b, err := scanBuild(s.read.QueryRowContext(ctx, `SELECT `+buildColumns+` FROM builds WHERE id = ?`, id))
	return b, convert("sqlite.Build", err)
}

// LatestBuild implements store.Builds.
func (s *Store) LatestBuild(ctx context.Context, template cove.TemplateID, statuses ...cove.BuildStatus) (cove.Build, error) {
	args := []any{template}
	for _, status := range statuses {
		args = append(args, status)
	}
	b, err := scanBuild(s.read.QueryRowContext(ctx, `SELECT `+buildColumns+` FROM builds WHERE template_id = ? AND status IN (`+
		marks(len(statuses))+`) ORDER BY created_at DESC, id DESC LIMIT 1`, args...))
	return b, convert("sqlite.LatestBuild", err)
}

// ListBuilds implements store.Builds.
func (s *Store) ListBuilds(ctx context.Context, template cove.TemplateID, after cove.BuildPos, limit int) ([]cove.Build, error) {
	const op = "sqlite.ListBuilds"
	where, args := `template_id = ?`, []any{template}
	if after != (cove.BuildPos{}) {
		where += ` AND (created_at, id) < (?, ?)`
		args = append(args, micros(after.CreatedAt), after.ID)
	}
	rows, err := s.read.QueryContext(ctx, `SELECT `+buildColumns+` FROM builds WHERE `+where+` ORDER BY created_at DESC, id DESC LIMIT ?`,
		append(args, limit)...)
	if err != nil {
		return nil, convert(op, err)
	}
	return collect(op, rows, scanBuild)
}

// BuildByKey implements store.Builds.
func (s *Store) BuildByKey(ctx context.Context, team cove.TeamID, key string) (cove.Build, error) {
	b, err := scanBuild(s.read.QueryRowContext(ctx, `SELECT `+prefixed("b.", buildColumns)+`
		FROM builds AS b JOIN templates AS t ON t.id = b.template_id
		WHERE b.key = ? AND b.key <> '' AND b.status = ? AND t.team_id = ? ORDER BY b.created_at DESC, b.id DESC LIMIT 1`,
		key, cove.BuildReady, team))
	return b, convert("sqlite.BuildByKey", err)
}

// CurrentBuilds implements store.Builds.
func (s *Store) CurrentBuilds(ctx context.Context) ([]cove.BuildID, error) {
	const op = "sqlite.CurrentBuilds"
	rows, err := s.read.QueryContext(ctx, `WITH current AS (
			SELECT id, root_id FROM builds AS b WHERE status IN (?2, ?3) OR (status = ?1 AND snapshot_id = ''
				AND (id IN (SELECT build_id FROM tags) OR NOT EXISTS (SELECT 1 FROM builds AS n WHERE n.template_id = b.template_id
					AND n.status = ?1 AND n.snapshot_id = '' AND (n.created_at, n.id) > (b.created_at, b.id)))))
		SELECT id FROM current UNION SELECT root_id FROM current WHERE root_id <> '' ORDER BY 1`,
		cove.BuildReady, cove.BuildWaiting, cove.BuildRunning)
	if err != nil {
		return nil, convert(op, err)
	}
	return collect(op, rows, func(row scanner) (id cove.BuildID, err error) {
		err = row.Scan(&id)
		return id, err
	})
}

// UnfinishedBuilds implements store.Builds.
func (s *Store) UnfinishedBuilds(ctx context.Context) ([]cove.Build, error) {
	const op = "sqlite.UnfinishedBuilds"
	rows, err := s.read.QueryContext(ctx, `SELECT `+buildColumns+` FROM builds WHERE status IN (?, ?) ORDER BY created_at, id`,
		cove.BuildWaiting, cove.BuildRunning)
	if err != nil {
		return nil, convert(op, err)
	}
	return collect(op, rows, scanBuild)
}

// PruneBuilds implements store.Builds.
func (s *Store) PruneBuilds(ctx context.Context, before time.Time) error {
	const newer = `SELECT 1 FROM builds AS n WHERE n.template_id = b.template_id AND (n.created_at, n.id) > (b.created_at, b.id)`
	_, err := s.write.ExecContext(ctx, `DELETE FROM builds WHERE id IN (
		SELECT b.id FROM builds AS b JOIN templates AS t ON t.id = b.template_id
		WHERE b.status IN (?1, ?2) AND b.ended_at < ?3 AND t.team_id <> '' AND t.source = ?4
			AND b.id NOT IN (SELECT build_id FROM tags) AND b.id NOT IN (SELECT build_id FROM sandboxes)
			AND EXISTS (`+newer+`) AND (b.status <> ?1 OR EXISTS (`+newer+` AND n.status = ?1)))`,
		cove.BuildReady, cove.BuildError, micros(before), cove.FromRecipe)
	return convert("sqlite.PruneBuilds", err)
}
