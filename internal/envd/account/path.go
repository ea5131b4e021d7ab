package account

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// ErrOtherHome refuses "~name".
var ErrOtherHome = errors.New("cannot expand user-specific home dir")

// ErrBadPath refuses what can be no path.
var ErrBadPath = errors.New("a path cannot contain a zero byte")

// Resolve returns the absolute path that path means to u. Empty is workdir, and
// the home directory if that is empty too; relative is relative to the home
// directory, not to workdir. An absolute path is returned as it is.
func (u User) Resolve(path, workdir string) (string, error) {
	if path == "" {
		path = workdir
	}
	switch {
	case strings.ContainsRune(path, 0):
		return "", ErrBadPath
	case path == "" || path == "~":
		return u.Home, nil
	case strings.HasPrefix(path, "~/"):
		return filepath.Join(u.Home, path[2:]), nil
	case path[0] == '~':
		return "", ErrOtherHome
	case path[0] == '/':
		return path, nil
	}
	return filepath.Join(u.Home, path), nil
}

// NotDirError says that a path that must be a directory is something else.
type NotDirError string

// Error says so.
func (e NotDirError) Error() string { return fmt.Sprintf("path is a file: %s", string(e)) }

// MakeDirs makes the directory path and its parents. Those that were missing
// get mode 0755 and belong to u; the others stay as they are. It may return a
// NotDirError.
func (u User) MakeDirs(path string) error {
	var missing []string
	for dir := filepath.Clean(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil {
			if !info.IsDir() {
				return NotDirError(dir)
			}
			break
		}
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return err
		}
		if dir == filepath.Dir(dir) {
			return err
		}
		missing = append(missing, dir)
	}
	for _, dir := range slices.Backward(missing) {
		if err := os.Mkdir(dir, 0o755); errors.Is(err, os.ErrExist) {
			// Somebody else was faster, or it is a link to nowhere.
			if info, err := os.Stat(dir); err != nil {
				return err
			} else if !info.IsDir() {
				return NotDirError(dir)
			}
			continue
		} else if err != nil {
			return err
		}
		if err := os.Lchown(dir, int(u.UID), int(u.GID)); err != nil {
			return err
		}
	}
	return nil
}
