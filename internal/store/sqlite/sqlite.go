// Package sqlite keeps an installation's records in one SQLite file, for a
// server that is all of Cove in one process.
//
// Writes go through one connection, reads through others, in write-ahead mode:
// a reader never waits for a writer. Every commit is on disk before it is
// acknowledged. Only package server and tests import it. It starts no
// goroutines.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store is a store.Store in a file.
type Store struct {
	read  *sql.DB
	write *sql.DB // one connection
}

var _ store.Store = (*Store)(nil)

// Open opens the database at path, makes it if it is not there, and brings its
// tables up to date. A file of a newer version is an error.
func Open(ctx context.Context, path string) (*Store, error) {
	const op = "sqlite.Open"
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, convert(op, err)
	}
	// The file holds hashes of keys and users' environments: nobody else's.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, convert(op, err)
	}
	if err := f.Close(); err != nil {
		return nil, convert(op, err)
	}
	s := &Store{}
	if s.write, err = sql.Open("sqlite", source(path)); err != nil {
		return nil, convert(op, err)
	}
	s.write.SetMaxOpenConns(1)
	if s.read, err = sql.Open("sqlite", source(path)); err != nil {
		return nil, errors.Join(convert(op, err), s.write.Close())
	}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(cove.E(cove.Internal, op, err,
			"the database could not be brought up to date; if it belongs to a newer version of cove, use that version"), s.Close())
	}
	return s, nil
}

func source(path string) string {
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(10000)", "journal_mode(wal)", "synchronous(full)", "foreign_keys(1)",
	}}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

func (s *Store) migrate(ctx context.Context) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, s.write, dir)
	if err != nil {
		return err
	}
	current, target, err := provider.GetVersions(ctx)
	if err != nil {
		return err
	}
	if current > target {
		return fmt.Errorf("the database has version %d, this program knows %d", current, target)
	}
	_, err = provider.Up(ctx)
	return err
}

// Close implements store.Store.
func (s *Store) Close() error { return errors.Join(s.read.Close(), s.write.Close()) }

// convert turns a driver's error into a *cove.Error, by code and never by text.
func convert(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		return cove.E(cove.NotFound, op, err, "not found")
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return cove.E(cove.Unavailable, op, err, "the request was given up while it waited for the database")
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() {
		case sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE:
			return cove.E(cove.Conflict, op, err, "already exists")
		case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
			return cove.E(cove.NotFound, op, err, "not found")
		case sqlite3.SQLITE_FULL:
			return cove.E(cove.NoSpace, op, err, "the server's disk is full: free space in its data directory")
		case sqlite3.SQLITE_BUSY:
			return cove.E(cove.Unavailable, op, err, "the database is busy; try again")
		}
	}
	return cove.E(cove.Internal, op, err, "the database failed; the server's log says why")
}

// tx runs do in a write transaction.
func (s *Store) tx(ctx context.Context, op string, do func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return convert(op, err)
	}
	if err := do(tx); err != nil {
		_ = tx.Rollback() // the first error is the one that counts
		if _, ok := errors.AsType[*cove.Error](err); ok {
			return err
		}
		return convert(op, err)
	}
	return convert(op, tx.Commit())
}

// view runs do in a transaction that only reads.
func (s *Store) view(ctx context.Context, op string, do func(*sql.Tx) error) error {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return convert(op, err)
	}
	err = do(tx)
	_ = tx.Rollback() // it changed nothing
	if _, ok := errors.AsType[*cove.Error](err); ok {
		return err
	}
	return convert(op, err)
}
