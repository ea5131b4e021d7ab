// Package copying carries out what a Dockerfile says with COPY: it takes an
// archive of files of a build context and puts those that are meant where they
// belong.
//
// It is not for single files, which travel through package files, and it
// resolves no links of the context: what is not in the archive is not copied.
// Contents are streamed; of an archive only the names of its links and
// directories are kept in memory. All work is done as root. Only the daemon
// imports it; it starts no goroutines.
package copying

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/cove-sandbox/cove/internal/envd/account"
	"github.com/cove-sandbox/cove/internal/envd/reply"
)

// Config is what a Handler is made of.
type Config struct {
	Users *account.Directory // required
	Log   *slog.Logger       // required
}

// Handler copies archives.
type Handler struct{ cfg Config }

// New returns a Handler.
func New(cfg Config) *Handler { return &Handler{cfg} }

// copied is the answer.
type copied struct {
	Files int64 `json:"files"` // directories do not count
	Bytes int64 `json:"bytes"` // of their contents
}

// ServeHTTP answers POST. An error that is not for the client is logged here
// and nowhere else. What was copied before an error stays.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	done, err := h.copy(r)
	if err == nil {
		reply.JSON(w, http.StatusOK, done)
		return
	}
	if r.Context().Err() != nil {
		return // nobody is left to hear of it
	}
	if told, ok := errors.AsType[*reply.Error](err); ok {
		told.Write(w)
		return
	}
	h.cfg.Log.ErrorContext(r.Context(), "copying failed", "err", err)
	reply.Errorf(http.StatusInternalServerError, "the files could not be copied").Write(w)
}

func (h *Handler) copy(r *http.Request) (copied, error) {
	query := r.URL.Query()
	who, err := h.owner(query.Get("user"))
	if err != nil {
		return copied{}, err
	}
	if who.kept, err = parseKept(query.Get("owners")); err != nil {
		return copied{}, err
	}
	if who.mode, err = parseMode(query.Get("mode")); err != nil {
		return copied{}, err
	}
	plan, err := parsePlan(query)
	if err != nil {
		return copied{}, err
	}
	archive, err := opened(r.Body)
	if err != nil {
		return copied{}, err
	}
	u := &unpacking{plan: plan, ownership: who, links: map[string]struct{}{}, buf: make([]byte, chunk)}
	if err := u.all(r.Context(), archive); err != nil {
		return copied{}, err
	}
	if !u.found {
		return copied{}, reply.Errorf(http.StatusBadRequest, "no file of the build context matches source '%s'", query.Get("source"))
	}
	return u.copied, nil
}

// ownership is what everything that is copied is given.
type ownership struct {
	uid, gid int
	kept     bool    // uid and gid are for what the archive does not have
	mode     *uint32 // nil: each as in the archive
}

// of returns whom what h describes will belong to.
func (o ownership) of(h *tar.Header) (uid, gid int) {
	if o.kept {
		return h.Uid, h.Gid
	}
	return o.uid, o.gid
}

// parseKept reads whether what is copied keeps its owners.
func parseKept(text string) (bool, error) {
	switch text {
	case "":
		return false, nil
	case "kept":
		return true, nil
	}
	return false, reply.Errorf(http.StatusBadRequest, "owners must be 'kept', or not given, and not '%s'", text)
}

// owner returns whom what is copied will belong to.
func (h *Handler) owner(spec string) (ownership, error) {
	if spec == "" {
		return ownership{}, nil
	}
	uid, gid, err := h.cfg.Users.Owner(spec)
	name, group, _ := strings.Cut(spec, ":")
	if _, unknown := errors.AsType[account.UnknownError](err); unknown {
		return ownership{}, reply.Errorf(http.StatusUnauthorized, "invalid username: '%s'", name)
	}
	if _, unknown := errors.AsType[account.UnknownGroupError](err); unknown {
		return ownership{}, reply.Errorf(http.StatusUnauthorized, "invalid group: '%s'", group)
	}
	return ownership{uid: int(uid), gid: int(gid)}, err
}

// parseMode parses permissions in octal; none is nil.
func parseMode(text string) (*uint32, error) {
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(text, 8, 32)
	if err != nil || n > permissions {
		return nil, reply.Errorf(http.StatusBadRequest, "mode must be octal permissions like 0755, not '%s'", text)
	}
	mode := uint32(n)
	return &mode, nil
}

// parsePlan reads source and dest, and looks whether dest is a directory.
func parsePlan(query url.Values) (plan, error) {
	s, err := parseSource(query.Get("source"))
	if err != nil {
		return plan{}, err
	}
	dest, workdir := query.Get("dest"), query.Get("workdir")
	switch {
	case dest == "":
		return plan{}, reply.Errorf(http.StatusBadRequest, "dest is required")
	case strings.ContainsRune(dest+workdir, 0):
		return plan{}, reply.Errorf(http.StatusBadRequest, "dest cannot contain a zero byte")
	}
	p := plan{source: s, dest: dest, into: s.glob || strings.HasSuffix(dest, "/")}
	if !filepath.IsAbs(dest) {
		p.dest = filepath.Join("/", workdir, dest)
	}
	p.dest = filepath.Clean(p.dest)
	if info, err := os.Stat(p.dest); err == nil && info.IsDir() {
		p.into = true
	}
	return p, nil
}

// opened returns the archive that body is, uncompressed.
func opened(body io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(body, chunk)
	magic, err := buffered.Peek(2)
	if err != nil {
		return nil, damaged()
	}
	if magic[0] != 0x1f || magic[1] != 0x8b {
		return buffered, nil
	}
	z, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, damaged()
	}
	return z, nil
}

// damaged is what the client hears of an archive that cannot be read.
func damaged() error {
	return reply.Errorf(http.StatusBadRequest, "the archive of the files is damaged, or was cut")
}

// failure gives a failure to write target its status.
func failure(err error, target string) error {
	if _, ok := errors.AsType[*reply.Error](err); ok {
		return err
	}
	if notDir, ok := errors.AsType[account.NotDirError](err); ok {
		return overFile(string(notDir))
	}
	errno, _ := errors.AsType[syscall.Errno](err)
	switch errno {
	case syscall.ENOSPC, syscall.EDQUOT:
		return reply.Errorf(http.StatusInsufficientStorage, "not enough disk space available to copy %s", target)
	case syscall.ENOENT, syscall.ENOTDIR, syscall.EEXIST, syscall.ENAMETOOLONG, syscall.ELOOP, syscall.EINVAL, syscall.EXDEV, syscall.EMLINK:
		return reply.Errorf(http.StatusBadRequest, "%s cannot be written: %s", target, errno)
	}
	if errors.Is(err, fs.ErrPermission) || errno == syscall.EROFS || errno == syscall.EBUSY {
		return reply.Errorf(http.StatusForbidden, "%s cannot be written: %s", target, errno)
	}
	return fmt.Errorf("copy: %w", err)
}

// overFile refuses a directory where there is something else.
func overFile(path string) error {
	return reply.Errorf(http.StatusBadRequest, "cannot copy a directory over a file: %s", path)
}
