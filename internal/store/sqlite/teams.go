package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// micros and fromMicros are how times are stored. The zero time is 0.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// Secret implements store.Store.
func (s *Store) Secret(ctx context.Context, name string) ([]byte, error) {
	const op = "sqlite.Secret"
	var value []byte
	err := s.tx(ctx, op, func(tx *sql.Tx) error {
		fresh := make([]byte, 32)
		rand.Read(fresh) // never fails
		if _, err := tx.ExecContext(ctx, `INSERT INTO secrets (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING`, name, fresh); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT value FROM secrets WHERE name = ?`, name).Scan(&value)
	})
	return value, err
}

// CreateTeam implements store.Teams.
func (s *Store) CreateTeam(ctx context.Context, team cove.Team) error {
	_, err := s.write.ExecContext(ctx, `INSERT INTO teams (id, name, created_at) VALUES (?, ?, ?)`,
		team.ID, team.Name, micros(team.CreatedAt))
	return convert("sqlite.CreateTeam", err)
}

// Team implements store.Teams.
func (s *Store) Team(ctx context.Context, id cove.TeamID) (cove.Team, error) {
	t, err := scanTeam(s.read.QueryRowContext(ctx, `SELECT id, name, created_at FROM teams WHERE id = ?`, id))
	return t, convert("sqlite.Team", err)
}

func scanTeam(row scanner) (cove.Team, error) {
	var t cove.Team
	var created int64
	err := row.Scan(&t.ID, &t.Name, &created)
	t.CreatedAt = fromMicros(created)
	return t, err
}

// Teams implements store.Teams.
func (s *Store) Teams(ctx context.Context) ([]cove.Team, error) {
	const op = "sqlite.Teams"
	rows, err := s.read.QueryContext(ctx, `SELECT id, name, created_at FROM teams ORDER BY created_at, id`)
	if err != nil {
		return nil, convert(op, err)
	}
	return collect(op, rows, scanTeam)
}

// CreateKey implements store.Teams.
func (s *Store) CreateKey(ctx context.Context, key cove.Key) error {
	_, err := s.write.ExecContext(ctx, `INSERT INTO keys (id, team_id, name, hash, mask, created_at) VALUES (?, ?, ?, ?, ?, ?)`,
		key.ID, key.Team, key.Name, key.Hash, key.Mask, micros(key.CreatedAt))
	return convert("sqlite.CreateKey", err)
}

// KeyByHash implements store.Teams.
func (s *Store) KeyByHash(ctx context.Context, hash string) (cove.Key, error) {
	var k cove.Key
	var created int64
	err := s.read.QueryRowContext(ctx, `SELECT id, team_id, name, hash, mask, created_at FROM keys WHERE hash = ?`, hash).
		Scan(&k.ID, &k.Team, &k.Name, &k.Hash, &k.Mask, &created)
	k.CreatedAt = fromMicros(created)
	return k, convert("sqlite.KeyByHash", err)
}

// scanner is a row of a query's answer.
type scanner interface{ Scan(dest ...any) error }

// collect reads all rows and closes them.
func collect[T any](op string, rows *sql.Rows, scan func(scanner) (T, error)) ([]T, error) {
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, convert(op, err)
		}
		all = append(all, v)
	}
	return all, convert(op, rows.Err())
}
