package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// AddLogs implements store.Logs.
func (s *Store) AddLogs(ctx context.Context, lines []cove.LogLine, keep int) error {
	if len(lines) == 0 {
		return nil
	}
	return s.tx(ctx, "sqlite.AddLogs", func(tx *sql.Tx) error {
		touched := map[cove.SandboxID]bool{}
		for _, l := range lines {
			fields, err := object(l.Fields)
			if err != nil {
				return err
			}
			_, err = tx.ExecContext(ctx, `INSERT INTO logs (team_id, sandbox_id, at, level, logger, message, fields) VALUES (`+marks(7)+`)`,
				l.Team, l.Sandbox, micros(l.At), l.Level, l.Logger, l.Message, fields)
			if err != nil {
				return err
			}
			touched[l.Sandbox] = true
		}
		for id := range touched {
			_, err := tx.ExecContext(ctx, `DELETE FROM logs WHERE seq IN
				(SELECT seq FROM logs WHERE sandbox_id = ? ORDER BY at DESC, seq DESC LIMIT -1 OFFSET ?)`, id, keep)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Logs implements store.Logs.
func (s *Store) Logs(ctx context.Context, team cove.TeamID, id cove.SandboxID, f cove.LogFilter) ([]cove.LogLine, error) {
	const op = "sqlite.Logs"
	order := "ASC"
	if f.Backward {
		order = "DESC"
	}
	to := int64(math.MaxInt64)
	if !f.To.IsZero() {
		to = micros(f.To)
	}
	rows, err := s.read.QueryContext(ctx, `SELECT team_id, sandbox_id, at, level, logger, message, fields FROM logs
		WHERE sandbox_id = ? AND team_id = ? AND at >= ? AND at < ? AND level >= ?
		ORDER BY at `+order+`, seq `+order, id, team, micros(f.From), to, f.Level)
	if err != nil {
		return nil, convert(op, err)
	}
	defer rows.Close()
	// Compared here, because SQLite folds the case of ASCII only. A sandbox has
	// few enough lines.
	wanted := strings.ToLower(f.Search)
	var lines []cove.LogLine
	for len(lines) < f.Limit && rows.Next() {
		l, err := scanLine(rows)
		if err != nil {
			return nil, convert(op, err)
		}
		if strings.Contains(strings.ToLower(l.Message), wanted) {
			lines = append(lines, l)
		}
	}
	return lines, convert(op, rows.Err())
}

func scanLine(row scanner) (cove.LogLine, error) {
	var l cove.LogLine
	var at int64
	var fields string
	if err := row.Scan(&l.Team, &l.Sandbox, &at, &l.Level, &l.Logger, &l.Message, &fields); err != nil {
		return l, err
	}
	l.At = fromMicros(at)
	if err := json.Unmarshal([]byte(fields), &l.Fields); err != nil {
		return l, fmt.Errorf("fields of a line of %s: %w", l.Sandbox, err)
	}
	return l, nil
}

// DropLogs implements store.Logs.
func (s *Store) DropLogs(ctx context.Context, before time.Time) error {
	_, err := s.write.ExecContext(ctx, `DELETE FROM logs WHERE at < ?`, micros(before))
	return convert("sqlite.DropLogs", err)
}
