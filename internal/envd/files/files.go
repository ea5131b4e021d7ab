// Package files is the daemon's way for the contents of files: download, upload
// and composition over plain HTTP, open to those who hold the access token or a
// signature made with it.
//
// Contents are streamed, so memory does not depend on their size. All work is
// done as root; the user decides what relative paths mean and who owns what is
// written. Only the daemon imports it; it starts no goroutines.
package files

import (
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/cove-sandbox/cove/internal/envd/account"
	"github.com/cove-sandbox/cove/internal/envd/reply"
	"github.com/cove-sandbox/cove/internal/envd/settings"
)

// Config is what a Handler is made of.
type Config struct {
	Users    *account.Directory // required
	Settings *settings.Store    // required
	Log      *slog.Logger       // required

	Now func() time.Time // for the expiry of signatures; nil: time.Now
}

// copySize is how much is read before it is written. A body up to this size is
// written at once, so that a watcher sees one write.
const copySize = 256 << 10

// Handler serves the contents of files.
type Handler struct {
	cfg Config

	// Touching fresh memory is what costs most in a small request.
	buffers sync.Pool // of *[]byte, copySize long
	zips    sync.Pool // of *gzip.Writer
}

func (h *Handler) buffer() *[]byte {
	if buf, ok := h.buffers.Get().(*[]byte); ok {
		return buf
	}
	buf := make([]byte, copySize)
	return &buf
}

// New returns a Handler.
func New(cfg Config) *Handler {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Handler{cfg: cfg}
}

// entry is how the protocol describes a file that was written. It has these
// keys and no others: clients compare.
type entry struct {
	Path     string            `json:"path"`
	Name     string            `json:"name"`
	Type     string            `json:"type"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

func newEntry(path string, metadata map[string]string) entry {
	return entry{Path: path, Name: filepath.Base(path), Type: "file", Metadata: metadata}
}

// serve answers with what do returns. An error that is not for the client is
// logged here and nowhere else.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, do func(http.ResponseWriter, *http.Request) error) {
	err := do(w, r)
	if err == nil || r.Context().Err() != nil {
		return // done, or nobody is left to hear of it
	}
	if told, ok := errors.AsType[*reply.Error](err); ok {
		told.Write(w)
		return
	}
	h.cfg.Log.ErrorContext(r.Context(), "file request failed", "method", r.Method, "err", err)
	reply.Errorf(http.StatusInternalServerError, "the file could not be read or written").Write(w)
}

// user returns whom a request names in its query, or the default user.
func (h *Handler) user(name string) (account.User, error) {
	if name == "" {
		name = h.cfg.Settings.Get().User
	}
	if name == "" {
		return account.User{}, reply.Errorf(http.StatusBadRequest, "username is required: there is no default user")
	}
	u, err := h.cfg.Users.Lookup(name)
	if unknown, ok := errors.AsType[account.UnknownError](err); ok {
		return u, reply.Errorf(http.StatusUnauthorized, "error looking up user '%s': %s", name, unknown)
	}
	return u, err
}

// resolve returns what path means to u.
func (h *Handler) resolve(u account.User, path string) (string, error) {
	abs, err := u.Resolve(path, h.cfg.Settings.Get().Workdir)
	if err != nil {
		return "", reply.Errorf(http.StatusBadRequest, "%s", err)
	}
	return abs, nil
}

// noSpace reports whether err says that the disk, or a share of it, is full.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
