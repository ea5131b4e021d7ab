package builder

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// Uploads keeps, below a directory, the archives of files that clients send for
// steps that copy. It knows them by team and hash; the hash is the client's own
// name for what it read, not one of the archive. It is safe for concurrent use.
type Uploads struct {
	dir string
}

// NewUploads returns the Uploads in a directory, which need not be there.
func NewUploads(dir string) *Uploads { return &Uploads{dir: dir} }

// MaxUpload is the size that one archive may have, in bytes.
const MaxUpload = 16 << 30

var teamPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,63}$`)

// path returns where an archive is, or an error if there cannot be one.
func (u *Uploads) path(team cove.TeamID, hash string) (string, error) {
	if !teamPattern.MatchString(string(team)) || !cove.FilesHashValid(hash) {
		return "", cove.E(cove.Invalid, "builder.Uploads", nil, "Invalid files hash")
	}
	return filepath.Join(u.dir, string(team), hash), nil
}

// Has reports whether a team's files of a hash are there.
func (u *Uploads) Has(team cove.TeamID, hash string) bool {
	name, err := u.path(team, hash)
	if err != nil {
		return false
	}
	_, err = os.Stat(name)
	return err == nil
}

// Open implements Files. The archive counts as used.
func (u *Uploads) Open(_ context.Context, team cove.TeamID, hash string) (io.ReadCloser, int64, error) {
	const op = "builder.Uploads.Open"
	name, err := u.path(team, hash)
	if err != nil {
		return nil, 0, err
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, cove.E(cove.NotFound, op, err, "there are no such files")
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil {
		now := time.Now()
		err = os.Chtimes(name, now, now)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// Store keeps files. What is cut off, or too long, leaves nothing.
func (u *Uploads) Store(_ context.Context, team cove.TeamID, hash string, body io.Reader) (err error) {
	const op = "builder.Uploads.Store"
	name, err := u.path(team, hash)
	if err != nil {
		return err
	}
	defer func() {
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			err = cove.E(cove.NoSpace, op, err, "the server's disk is full: free space in its data directory")
		}
	}()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".*"+partialSuffix)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // in vain once it is renamed
	n, err := io.Copy(f, io.LimitReader(body, MaxUpload+1))
	if err != nil {
		// The client's connection or the disk: the message serves the first.
		err = cove.E(cove.Unavailable, op, err, "the upload was cut off: send it again")
	} else if n > MaxUpload {
		err = cove.E(cove.Exhausted, op, nil, "the files are too large: %d GiB are the most", MaxUpload>>30)
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// Sweep removes what was not used since a time, and what was never complete.
func (u *Uploads) Sweep(ctx context.Context, since time.Time) error {
	return filepath.WalkDir(u.dir, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		info, err := d.Info()
		if err != nil {
			return nil // it is gone
		}
		const slowest = 2 * time.Hour // an upload on its way is younger
		partial := strings.HasSuffix(name, partialSuffix)
		if partial && time.Since(info.ModTime()) > slowest || !partial && info.ModTime().Before(since) {
			return os.Remove(name)
		}
		return nil
	})
}
