package sqlite

import (
	"context"
	"database/sql"
	"time"

	cove "github.com/cove-sandbox/cove"
)

const layerColumns = `team_id, key, root_id, snapshot_id, bytes, used_at`

// Layer implements store.Builds.
func (s *Store) Layer(ctx context.Context, team cove.TeamID, key string) (cove.Layer, error) {
	var l cove.Layer
	var used int64
	err := s.read.QueryRowContext(ctx, `SELECT `+layerColumns+` FROM layers WHERE team_id = ? AND key = ?`, team, key).
		Scan(&l.Team, &l.Key, &l.Root, &l.Snapshot, &l.Bytes, &used)
	l.UsedAt = fromMicros(used)
	return l, convert("sqlite.Layer", err)
}

// KeepLayer implements store.Builds.
func (s *Store) KeepLayer(ctx context.Context, l cove.Layer) error {
	_, err := s.write.ExecContext(ctx, `INSERT OR REPLACE INTO layers (`+layerColumns+`) VALUES (`+marks(6)+`)`,
		l.Team, l.Key, l.Root, l.Snapshot, l.Bytes, micros(l.UsedAt))
	return convert("sqlite.KeepLayer", err)
}

// UseLayer implements store.Builds.
func (s *Store) UseLayer(ctx context.Context, team cove.TeamID, key string, at time.Time) error {
	_, err := s.write.ExecContext(ctx, `UPDATE layers SET used_at = max(used_at, ?) WHERE team_id = ? AND key = ?`, micros(at), team, key)
	return convert("sqlite.UseLayer", err)
}

// PruneLayers implements store.Builds.
func (s *Store) PruneLayers(ctx context.Context, since time.Time, bytes int64) error {
	return s.tx(ctx, "sqlite.PruneLayers", func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM layers WHERE used_at < ?`, micros(since)); err != nil {
			return err
		}
		// A layer whose snapshot one that was used later has as well takes nothing.
		_, err := tx.ExecContext(ctx, `DELETE FROM layers WHERE (team_id, key) IN (
			SELECT team_id, key FROM (
				SELECT team_id, key, sum(iif(nth = 1, bytes, 0)) OVER (ORDER BY used_at DESC, team_id, key) AS total FROM (
					SELECT *, row_number() OVER (PARTITION BY snapshot_id ORDER BY used_at DESC, team_id, key) AS nth FROM layers))
			WHERE total > ?)`, bytes)
		return err
	})
}
