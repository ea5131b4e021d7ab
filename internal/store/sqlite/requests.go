package sqlite

import (
	"context"
	"database/sql"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// ClaimRequest implements store.Requests.
func (s *Store) ClaimRequest(ctx context.Context, r cove.KeyedRequest) (earlier cove.KeyedRequest, claimed bool, err error) {
	const op = "sqlite.ClaimRequest"
	err = s.tx(ctx, op, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `INSERT INTO requests (team_id, key, digest, sandbox_id, claimed_at)
			VALUES (?, ?, ?, ?, ?) ON CONFLICT (team_id, key) DO NOTHING`, r.Team, r.Key, r.Digest, r.Sandbox, micros(r.ClaimedAt))
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if claimed = n == 1; claimed || err != nil {
			return err
		}
		var at int64
		err = tx.QueryRowContext(ctx, `SELECT team_id, key, digest, sandbox_id, claimed_at FROM requests WHERE team_id = ? AND key = ?`,
			r.Team, r.Key).Scan(&earlier.Team, &earlier.Key, &earlier.Digest, &earlier.Sandbox, &at)
		earlier.ClaimedAt = fromMicros(at)
		return err
	})
	return earlier, claimed, err
}

// ForgetRequest implements store.Requests.
func (s *Store) ForgetRequest(ctx context.Context, sandbox cove.SandboxID) error {
	_, err := s.write.ExecContext(ctx, `DELETE FROM requests WHERE sandbox_id = ?`, sandbox)
	return convert("sqlite.ForgetRequest", err)
}

// FinishRequest implements store.Requests.
func (s *Store) FinishRequest(ctx context.Context, sandbox cove.SandboxID) error {
	_, err := s.write.ExecContext(ctx, `UPDATE requests SET finished = 1 WHERE sandbox_id = ?`, sandbox)
	return convert("sqlite.FinishRequest", err)
}

// ForgetUnfinished implements store.Requests.
func (s *Store) ForgetUnfinished(ctx context.Context) error {
	_, err := s.write.ExecContext(ctx, `DELETE FROM requests WHERE finished = 0
		AND sandbox_id NOT IN (SELECT id FROM sandboxes WHERE state <> ?)`, cove.Starting)
	return convert("sqlite.ForgetUnfinished", err)
}

// ForgetRequests implements store.Requests.
func (s *Store) ForgetRequests(ctx context.Context, before time.Time) error {
	_, err := s.write.ExecContext(ctx, `DELETE FROM requests WHERE claimed_at < ?`, micros(before))
	return convert("sqlite.ForgetRequests", err)
}
