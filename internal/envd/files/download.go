package files

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cove-sandbox/cove/internal/envd/reply"
)

// Download answers GET and HEAD with the contents of a file.
func (h *Handler) Download(w http.ResponseWriter, r *http.Request) { h.serve(w, r, h.download) }

func (h *Handler) download(w http.ResponseWriter, r *http.Request) error {
	if err := h.authorize(r, Read); err != nil {
		return err
	}
	query := r.URL.Query()
	u, err := h.user(query.Get("username"))
	if err != nil {
		return err
	}
	path, err := h.resolve(u, query.Get("path"))
	if err != nil {
		return err
	}
	file, info, err := openRegular(path)
	if err != nil {
		return err
	}
	defer file.Close()

	taken := accept(r.Header)
	if !taken.gzip && !taken.identity {
		return reply.Errorf(http.StatusNotAcceptable, "no acceptable encoding found, supported: gzip, identity")
	}
	name := filepath.Base(path)
	header := w.Header()
	header.Add("Vary", "Accept-Encoding")
	header.Set("Content-Disposition", mime.FormatMediaType("inline", map[string]string{"filename": name}))
	// Parts and conditions are about the file's own bytes.
	partial := hasAny(r.Header, "Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")
	if info.Size() == 0 {
		return h.sendUnsized(w, r, file, name, taken.gzip)
	}
	if !taken.gzip || partial && taken.identity {
		http.ServeContent(w, r, name, info.ModTime(), file)
		return nil
	}
	header.Set("Content-Type", contentType(name))
	return h.sendGzip(w, r, file)
}

func hasAny(h http.Header, names ...string) bool {
	for _, name := range names {
		if h.Get(name) != "" {
			return true
		}
	}
	return false
}

// openRegular opens a regular file. It never waits, as opening a pipe would.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, nil, reply.Errorf(http.StatusNotFound, "path '%s' does not exist", path)
	case errors.Is(err, syscall.ENXIO): // a socket
		return nil, nil, reply.Errorf(http.StatusBadRequest, "path '%s' is not a regular file", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, nil, reply.Errorf(http.StatusForbidden, "path '%s' cannot be read: permission denied", path)
	case err != nil:
		return nil, nil, fmt.Errorf("open: %w", err)
	}
	info, err := file.Stat()
	switch {
	case err != nil:
		err = fmt.Errorf("stat: %w", err)
	case info.IsDir():
		err = reply.Errorf(http.StatusBadRequest, "path '%s' is a directory", path)
	case !info.Mode().IsRegular():
		err = reply.Errorf(http.StatusBadRequest, "path '%s' is not a regular file", path)
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, info, nil
}

func contentType(name string) string {
	if t := mime.TypeByExtension(filepath.Ext(name)); t != "" {
		return t
	}
	return "application/octet-stream"
}

// sendUnsized sends a file that says it is empty. Either it is, and clients
// want to read that from the length; or the kernel makes its contents as they
// are read, and only reading tells where they end.
func (h *Handler) sendUnsized(w http.ResponseWriter, r *http.Request, file *os.File, name string, zip bool) error {
	first := make([]byte, 4096)
	n, err := io.ReadFull(file, first)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return fmt.Errorf("read: %w", err)
	}
	w.Header().Set("Content-Type", contentType(name))
	if n == 0 {
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	content := io.MultiReader(bytes.NewReader(first[:n]), file)
	if zip {
		return h.sendGzip(w, r, content)
	}
	if r.Method != http.MethodHead {
		h.send(w, r, content)
	}
	return nil
}

// sendGzip sends content compressed, fast rather than small: it travels within
// a machine more often than not.
func (h *Handler) sendGzip(w http.ResponseWriter, r *http.Request, content io.Reader) error {
	w.Header().Set("Content-Encoding", "gzip")
	if r.Method == http.MethodHead {
		return nil
	}
	z, ok := h.zips.Get().(*gzip.Writer)
	if !ok {
		var err error
		if z, err = gzip.NewWriterLevel(w, gzip.BestSpeed); err != nil {
			return err
		}
	}
	z.Reset(w)
	defer h.zips.Put(z)
	if !h.send(z, r, content) {
		return nil // without its end, the client can tell that the stream was cut
	}
	return z.Close()
}

// send copies content into an answer that has begun, so that a failure can only
// cut it short. It reports whether all of it was sent.
func (h *Handler) send(w io.Writer, r *http.Request, content io.Reader) bool {
	buf := h.buffer()
	defer h.buffers.Put(buf)
	_, err := io.CopyBuffer(onlyWriter{w}, onlyReader{content}, *buf)
	if err != nil && r.Context().Err() == nil {
		h.cfg.Log.WarnContext(r.Context(), "download cut short", "err", err)
	}
	return err == nil
}

// onlyWriter and onlyReader hide the methods that would make io.CopyBuffer
// choose a buffer of its own.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)
