package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cove-sandbox/cove/internal/envd/account"
	"github.com/cove-sandbox/cove/internal/envd/metadata"
	"github.com/cove-sandbox/cove/internal/envd/reply"
)

// Upload answers POST: it writes the files of the body.
func (h *Handler) Upload(w http.ResponseWriter, r *http.Request) { h.serve(w, r, h.upload) }

// An uploading is one request that writes files.
type uploading struct {
	h        *Handler
	user     account.User
	metadata map[string]string
	buf      []byte

	written []entry
	seen    map[string]struct{} // their paths
}

func (h *Handler) upload(w http.ResponseWriter, r *http.Request) error {
	if err := h.authorize(r, Write); err != nil {
		return err
	}
	query := r.URL.Query()
	u, err := h.user(query.Get("username"))
	if err != nil {
		return err
	}
	set, err := metadata.FromHeader(r.Header)
	if err != nil {
		return reply.Errorf(http.StatusBadRequest, "%s", err)
	}
	buf := h.buffer()
	defer h.buffers.Put(buf)
	up := &uploading{
		h: h, user: u, metadata: set,
		buf:     *buf,
		written: []entry{},
		seen:    map[string]struct{}{},
	}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		kind = r.Header.Get("Content-Type")
	}
	switch kind {
	case "multipart/form-data":
		err = up.multipart(r, params["boundary"], query.Get("path"))
	case "application/octet-stream":
		if query.Get("path") == "" {
			return reply.Errorf(http.StatusBadRequest, "path is required for an application/octet-stream upload")
		}
		var body io.Reader
		if body, err = decoded(r); err == nil {
			err = up.file(query.Get("path"), body)
		}
	default:
		err = reply.Errorf(http.StatusBadRequest, "unsupported content type: %s", kind)
	}
	if err != nil {
		return err
	}
	reply.JSON(w, http.StatusOK, up.written)
	return nil
}

// multipart writes the parts named "file"; the others are not for us. A path in
// the query is where the one file goes; otherwise each part says it.
func (up *uploading) multipart(r *http.Request, boundary, path string) error {
	if boundary == "" {
		return reply.Errorf(http.StatusBadRequest, "the multipart body has no boundary")
	}
	body, err := decoded(r)
	if err != nil {
		return err
	}
	parts := multipart.NewReader(body, boundary)
	for {
		part, err := parts.NextPart()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return badBody(err)
		}
		if part.FormName() != "file" {
			continue
		}
		target := path
		if target == "" {
			target = fullName(part)
		}
		if target == "" {
			return reply.Errorf(http.StatusBadRequest, "a file has no path: give it in the query or as the part's file name")
		}
		if err := up.file(target, part); err != nil {
			return err
		}
	}
}

// fullName returns a part's file name with its directories, which the method of
// package multipart would take away.
func fullName(part *multipart.Part) string {
	_, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
	if err != nil {
		return ""
	}
	return params["filename"]
}

// badBody is what the client hears of a body that cannot be read.
func badBody(err error) error {
	if _, ok := errors.AsType[*reply.Error](err); ok {
		return err
	}
	return reply.Errorf(http.StatusBadRequest, "the body could not be read to its end")
}

// file writes one file.
func (up *uploading) file(asked string, content io.Reader) error {
	path, err := up.h.resolve(up.user, asked)
	if err != nil {
		return err
	}
	clean := filepath.Clean(path)
	if _, twice := up.seen[clean]; twice {
		return reply.Errorf(http.StatusBadRequest, "you cannot upload multiple files to the same path '%s' in one upload request, only the first one was uploaded", path)
	}
	up.seen[clean] = struct{}{}
	if err := up.user.MakeDirs(filepath.Dir(path)); err != nil {
		return writeError(err, 0)
	}
	file, created, err := up.open(path)
	if err != nil {
		return err
	}
	err = up.fill(file, created, content)
	if err = errors.Join(err, file.Close()); err != nil {
		if created {
			err = errors.Join(err, os.Remove(path))
		}
		return err
	}
	up.written = append(up.written, newEntry(path, up.metadata))
	return nil
}

// open opens path for writing and reports whether it is new. A file that exists
// changes its owner before it loses its contents.
func (up *uploading) open(path string) (*os.File, bool, error) {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil, false, reply.Errorf(http.StatusBadRequest, "path is a directory: %s", path)
	case err == nil && !info.Mode().IsRegular():
		return nil, false, reply.Errorf(http.StatusBadRequest, "path is not a regular file: %s", path)
	case err == nil:
		if err := os.Chown(path, int(up.user.UID), int(up.user.GID)); err != nil {
			return nil, false, writeError(err, 0)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, false, writeError(err, 0)
	}
	created := err != nil
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NONBLOCK, 0o666)
	if err != nil {
		return nil, false, writeError(err, 0)
	}
	return file, created, nil
}

// fill gives the file its owner, its metadata and its contents, in the order in
// which watchers are promised to see a new file come about.
func (up *uploading) fill(file *os.File, created bool, content io.Reader) error {
	if created {
		if err := file.Chown(int(up.user.UID), int(up.user.GID)); err != nil {
			return writeError(err, 0)
		}
	}
	if err := metadata.Replace(file, up.metadata); err != nil {
		return writeError(err, 0)
	}
	var written int64
	for {
		n, readErr := readFull(content, up.buf)
		if n > 0 {
			if _, err := file.Write(up.buf[:n]); err != nil {
				return writeError(err, written+int64(n))
			}
			written += int64(n)
		}
		if readErr == io.EOF {
			return nil
		}
		if readErr != nil {
			return badBody(readErr)
		}
	}
}

// readFull reads until buf is full or reading fails. Unlike io.ReadFull it
// returns the error as it is, so that an end is not taken for a broken body.
func readFull(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// writeError gives a failure to write its status. attempted is how many bytes
// were to be in the file.
func writeError(err error, attempted int64) error {
	if notDir, ok := errors.AsType[account.NotDirError](err); ok {
		return reply.Errorf(http.StatusBadRequest, "%s", notDir)
	}
	switch {
	case noSpace(err) && attempted > 0:
		return reply.Errorf(http.StatusInsufficientStorage, "attempted to write %d bytes: not enough disk space available", attempted)
	case noSpace(err):
		return reply.Errorf(http.StatusInsufficientStorage, "not enough disk space available")
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.EINVAL):
		return reply.Errorf(http.StatusBadRequest, "the path cannot be written: %s", reason(err))
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return reply.Errorf(http.StatusForbidden, "the path cannot be written: %s", reason(err))
	}
	return fmt.Errorf("write file: %w", err)
}

// reason returns the kernel's word for err.
func reason(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	return "unknown reason"
}
