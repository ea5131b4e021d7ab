package sqlite

import (
	"context"
	"database/sql"

	cove "github.com/cove-sandbox/cove"
)

// AddBuildLines implements store.Builds.
func (s *Store) AddBuildLines(ctx context.Context, build cove.BuildID, lines []cove.BuildLine, keep int) error {
	return s.tx(ctx, "sqlite.AddBuildLines", func(tx *sql.Tx) error {
		var next int
		err := tx.QueryRowContext(ctx, `SELECT (SELECT coalesce(max(seq) + 1, 0) FROM build_lines WHERE build_id = b.id)
			FROM builds AS b WHERE id = ?`, build).Scan(&next)
		if err != nil {
			return err
		}
		for _, l := range lines[:min(len(lines), max(0, keep-next))] {
			_, err := tx.ExecContext(ctx, `INSERT INTO build_lines (build_id, seq, at, level, message, step) VALUES (`+marks(6)+`)`,
				build, next, micros(l.At), l.Level, l.Message, l.Step)
			if err != nil {
				return err
			}
			next++
		}
		return nil
	})
}

// BuildLines implements store.Builds.
func (s *Store) BuildLines(ctx context.Context, build cove.BuildID, f cove.BuildLineFilter) ([]cove.BuildLine, error) {
	const op = "sqlite.BuildLines"
	order := "ASC"
	if f.Newest {
		order = "DESC"
	}
	rows, err := s.read.QueryContext(ctx, `SELECT at, level, message, step FROM build_lines WHERE build_id = ? AND level >= ?
		ORDER BY seq `+order+` LIMIT ? OFFSET ?`, build, f.Level, f.Limit, f.Offset)
	if err != nil {
		return nil, convert(op, err)
	}
	return collect(op, rows, func(row scanner) (cove.BuildLine, error) {
		var l cove.BuildLine
		var at int64
		err := row.Scan(&at, &l.Level, &l.Message, &l.Step)
		l.At = fromMicros(at)
		return l, err
	})
}
