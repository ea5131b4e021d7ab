package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/store"
)

const sandboxColumns = `id, execution_id, team_id, template_id, alias, build_id, node_id, state,
	cpus, memory_mb, disk_mb, started_at, end_at, metadata, env, secure, internet, envd,
	on_timeout, auto_resume, timeout, snapshot_id, pause_files_only, files_only,
	unresponsive, snapshot_bytes, user, workdir, idle_after`

func scanSandbox(row scanner) (cove.Sandbox, error) {
	var sb cove.Sandbox
	var started, end, timeout, idle int64
	var metadata, env string
	var internet sql.NullBool
	err := row.Scan(&sb.ID, &sb.Execution, &sb.Team, &sb.Template, &sb.Alias, &sb.Build, &sb.Node, &sb.State,
		&sb.Resources.CPUs, &sb.Resources.MemoryMB, &sb.Resources.DiskMB, &started, &end, &metadata, &env,
		&sb.Secure, &internet, &sb.Envd, &sb.Lifecycle.OnTimeout, &sb.Lifecycle.AutoResume, &timeout, &sb.Snapshot,
		&sb.Lifecycle.FilesOnly, &sb.FilesOnly, &sb.Unresponsive, &sb.SnapshotBytes, &sb.User, &sb.Workdir, &idle)
	if err != nil {
		return cove.Sandbox{}, err
	}
	sb.StartedAt, sb.EndAt = fromMicros(started), fromMicros(end)
	sb.Lifecycle.Timeout, sb.Lifecycle.IdleAfter = time.Duration(timeout)*time.Microsecond, time.Duration(idle)*time.Microsecond
	if internet.Valid {
		sb.Internet = &internet.Bool
	}
	if err := json.Unmarshal([]byte(metadata), &sb.Metadata); err != nil {
		return cove.Sandbox{}, fmt.Errorf("metadata of %s: %w", sb.ID, err)
	}
	if err := json.Unmarshal([]byte(env), &sb.Env); err != nil {
		return cove.Sandbox{}, fmt.Errorf("environment of %s: %w", sb.ID, err)
	}
	return sb, nil
}

// object encodes a map as a JSON object, never null.
func object(m map[string]string) (string, error) {
	if m == nil {
		return "{}", nil
	}
	b, err := json.Marshal(m)
	return string(b), err
}

// CreateSandbox implements store.Sandboxes.
func (s *Store) CreateSandbox(ctx context.Context, sb cove.Sandbox) error {
	const op = "sqlite.CreateSandbox"
	metadata, err := object(sb.Metadata)
	if err != nil {
		return convert(op, err)
	}
	env, err := object(sb.Env)
	if err != nil {
		return convert(op, err)
	}
	return s.tx(ctx, op, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO sandboxes (`+sandboxColumns+`) VALUES (`+marks(29)+`)`,
			sb.ID, sb.Execution, sb.Team, sb.Template, sb.Alias, sb.Build, sb.Node, sb.State,
			sb.Resources.CPUs, sb.Resources.MemoryMB, sb.Resources.DiskMB, micros(sb.StartedAt), micros(sb.EndAt),
			metadata, env, sb.Secure, sb.Internet, sb.Envd,
			cmp.Or(sb.Lifecycle.OnTimeout, cove.KillOnTimeout), sb.Lifecycle.AutoResume, sb.Lifecycle.Timeout.Microseconds(), sb.Snapshot,
			sb.Lifecycle.FilesOnly, sb.FilesOnly, sb.Unresponsive, sb.SnapshotBytes, sb.User, sb.Workdir, sb.Lifecycle.IdleAfter.Microseconds())
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE templates SET spawn_count = spawn_count + 1, last_spawned_at = max(last_spawned_at, ?) WHERE id = ?`,
			micros(sb.StartedAt), sb.Template)
		return err
	})
}

// Sandbox implements store.Sandboxes.
func (s *Store) Sandbox(ctx context.Context, team cove.TeamID, id cove.SandboxID) (cove.Sandbox, error) {
	sb, err := scanSandbox(s.read.QueryRowContext(ctx, `SELECT `+sandboxColumns+` FROM sandboxes WHERE id = ? AND team_id = ?`, id, team))
	return sb, convert("sqlite.Sandbox", err)
}

// SandboxByID implements store.Sandboxes.
func (s *Store) SandboxByID(ctx context.Context, id cove.SandboxID) (cove.Sandbox, error) {
	sb, err := scanSandbox(s.read.QueryRowContext(ctx, `SELECT `+sandboxColumns+` FROM sandboxes WHERE id = ?`, id))
	return sb, convert("sqlite.SandboxByID", err)
}

// NodeSandboxes implements store.Sandboxes.
func (s *Store) NodeSandboxes(ctx context.Context, node cove.NodeID) ([]cove.Sandbox, error) {
	const op = "sqlite.NodeSandboxes"
	rows, err := s.read.QueryContext(ctx, `SELECT `+sandboxColumns+` FROM sandboxes WHERE node_id = ? ORDER BY started_at, id`, node)
	if err != nil {
		return nil, convert(op, err)
	}
	return collect(op, rows, scanSandbox)
}

// ListSandboxes implements store.Sandboxes.
func (s *Store) ListSandboxes(ctx context.Context, team cove.TeamID, f cove.SandboxFilter) (cove.SandboxPage, error) {
	const op = "sqlite.ListSandboxes"
	var page cove.SandboxPage
	query, args := listQuery(team, f)
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return page, convert(op, err)
	}
	if page.Sandboxes, err = collect(op, rows, scanSandbox); err != nil {
		return page, err
	}
	if len(page.Sandboxes) > f.Limit { // one more was asked for, to know whether there is more
		page.Sandboxes = page.Sandboxes[:f.Limit]
		last := page.Sandboxes[f.Limit-1]
		page.Next = cove.Cursor{StartedAt: last.StartedAt, ID: last.ID}
	}
	err = s.read.QueryRowContext(ctx, `SELECT count(*) FROM sandboxes WHERE team_id = ? AND state = ?`, team, cove.Running).Scan(&page.Running)
	return page, convert(op, err)
}

// listQuery builds the query of a page. Keys of metadata are bound as values,
// so nothing a caller wrote becomes part of the text.
func listQuery(team cove.TeamID, f cove.SandboxFilter) (string, []any) {
	states := f.States
	if len(states) == 0 {
		states = []cove.State{cove.Running}
	}
	where := []string{"team_id = ?", "state IN (" + marks(len(states)) + ")"}
	args := []any{team}
	for _, state := range states {
		args = append(args, state)
	}
	for key, value := range f.Metadata {
		where = append(where, "EXISTS (SELECT 1 FROM json_each(metadata) AS m WHERE m.key = ? AND m.value = ?)")
		args = append(args, key, value)
	}
	if f.Template != "" {
		where = append(where, "(template_id = ? OR alias = ?)")
		args = append(args, f.Template, f.Template)
	}
	if !f.StartedAfter.IsZero() {
		where = append(where, "started_at >= ?")
		args = append(args, micros(f.StartedAfter))
	}
	direction, beyond := "DESC", "<"
	if f.Order == cove.Ascending {
		direction, beyond = "ASC", ">"
	}
	if f.After != (cove.Cursor{}) {
		where = append(where, "(started_at, id) "+beyond+" (?, ?)")
		args = append(args, micros(f.After.StartedAt), f.After.ID)
	}
	args = append(args, f.Limit+1)
	return `SELECT ` + sandboxColumns + ` FROM sandboxes WHERE ` + strings.Join(where, " AND ") +
		` ORDER BY started_at ` + direction + `, id ` + direction + ` LIMIT ?`, args
}

// Transition implements store.Sandboxes.
func (s *Store) Transition(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID, change store.Change) (cove.Sandbox, error) {
	const op = "sqlite.Transition"
	var sb cove.Sandbox
	err := s.tx(ctx, op, func(tx *sql.Tx) error {
		var err error
		sb, err = scanSandbox(tx.QueryRowContext(ctx, `SELECT `+sandboxColumns+` FROM sandboxes WHERE id = ? AND execution_id = ?`, id, execution))
		if err != nil {
			return err
		}
		if !sb.State.CanBecome(change.To) {
			return cove.E(cove.Conflict, op, nil, "the sandbox is %s", sb.State)
		}
		sb.State = change.To
		if !change.StartedAt.IsZero() {
			sb.StartedAt = fromMicros(micros(change.StartedAt))
		}
		if !change.EndAt.IsZero() {
			sb.EndAt = fromMicros(micros(change.EndAt))
		}
		if change.Execution != "" {
			sb.Execution = change.Execution
		}
		if c := change.Snapshot; c != nil {
			sb.Snapshot, sb.FilesOnly, sb.Unresponsive, sb.SnapshotBytes = c.ID, c.FilesOnly, c.Unresponsive, c.Bytes
		}
		if change.OnTimeout != "" {
			sb.Lifecycle.OnTimeout = change.OnTimeout
		}
		_, err = tx.ExecContext(ctx, `UPDATE sandboxes SET state = ?, started_at = ?, end_at = ?, execution_id = ?,
			snapshot_id = ?, files_only = ?, unresponsive = ?, snapshot_bytes = ?, on_timeout = ? WHERE id = ?`,
			sb.State, micros(sb.StartedAt), micros(sb.EndAt), sb.Execution,
			sb.Snapshot, sb.FilesOnly, sb.Unresponsive, sb.SnapshotBytes, sb.Lifecycle.OnTimeout, id)
		return err
	})
	return sb, err
}

// MoveEnd implements store.Sandboxes.
func (s *Store) MoveEnd(ctx context.Context, team cove.TeamID, id cove.SandboxID, end time.Time, extend bool) (cove.Sandbox, error) {
	const op = "sqlite.MoveEnd"
	var sb cove.Sandbox
	err := s.tx(ctx, op, func(tx *sql.Tx) error {
		var err error
		sb, err = scanSandbox(tx.QueryRowContext(ctx, `SELECT `+sandboxColumns+` FROM sandboxes WHERE id = ? AND team_id = ?`, id, team))
		if err != nil {
			return err
		}
		if sb.State != cove.Running {
			return cove.E(cove.Conflict, op, nil, "the sandbox is %s", sb.State)
		}
		end = fromMicros(micros(end))
		if extend && !end.After(sb.EndAt) {
			return nil
		}
		sb.EndAt = end
		_, err = tx.ExecContext(ctx, `UPDATE sandboxes SET end_at = ? WHERE id = ?`, micros(end), id)
		return err
	})
	return sb, err
}

// DeleteSandbox implements store.Sandboxes.
func (s *Store) DeleteSandbox(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID) error {
	_, err := s.write.ExecContext(ctx, `DELETE FROM sandboxes WHERE id = ? AND execution_id = ?`, id, execution)
	return convert("sqlite.DeleteSandbox", err)
}
