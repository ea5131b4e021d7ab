package files

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/cove-sandbox/cove/internal/envd/account"
	"github.com/cove-sandbox/cove/internal/envd/reply"
)

const (
	maxComposeBody    = 1 << 20 // bytes of the request
	maxComposeSources = 10_000
)

// Compose answers POST: it joins files into one and removes them. The
// destination appears whole or not at all.
func (h *Handler) Compose(w http.ResponseWriter, r *http.Request) { h.serve(w, r, h.compose) }

func (h *Handler) compose(w http.ResponseWriter, r *http.Request) error {
	var req struct {
		SourcePaths []string `json:"source_paths"`
		Destination string   `json:"destination"`
		Username    string   `json:"username"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxComposeBody)).Decode(&req); err != nil {
		return reply.Errorf(http.StatusBadRequest, "the body is not the JSON of a composition")
	}
	switch {
	case len(req.SourcePaths) == 0:
		return reply.Errorf(http.StatusBadRequest, "source_paths is required")
	case len(req.SourcePaths) > maxComposeSources:
		return reply.Errorf(http.StatusBadRequest, "more than %d source_paths", maxComposeSources)
	case req.Destination == "":
		return reply.Errorf(http.StatusBadRequest, "destination is required")
	}
	u, err := h.user(req.Username)
	if err != nil {
		return err
	}
	destination, err := h.resolve(u, req.Destination)
	if err != nil {
		return err
	}
	if info, err := os.Stat(destination); err == nil && info.IsDir() {
		return reply.Errorf(http.StatusBadRequest, "path is a directory: %s", destination)
	}
	sources := make([]string, len(req.SourcePaths))
	for i, source := range req.SourcePaths {
		if sources[i], err = h.resolve(u, source); err != nil {
			return err
		}
	}
	if err := u.MakeDirs(filepath.Dir(destination)); err != nil {
		return writeError(err, 0)
	}
	if err := join(u, destination, sources); err != nil {
		return err
	}
	for _, source := range sources {
		// A source named twice is gone the second time.
		if filepath.Clean(source) == filepath.Clean(destination) {
			continue
		}
		if err := os.Remove(source); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove source: %w", err)
		}
	}
	reply.JSON(w, http.StatusOK, newEntry(destination, nil))
	return nil
}

// join writes the sources one after the other beside destination and puts the
// result in its place. If it fails, nothing has changed.
func join(u account.User, destination string, sources []string) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(destination), ".compose-*")
	if err != nil {
		return writeError(err, 0)
	}
	defer func() {
		if err != nil {
			tmp.Close() // a second time if closing is what failed
			os.Remove(tmp.Name())
		}
	}()
	var total int64
	for _, source := range sources {
		file, info, err := openRegular(source)
		if err != nil {
			return err
		}
		// Within one file system the kernel copies, without us seeing a byte.
		n, err := io.Copy(tmp, file)
		file.Close()
		total += n
		if err != nil {
			return writeError(err, total+info.Size()-n)
		}
	}
	if err := errors.Join(tmp.Chmod(0o644), tmp.Chown(int(u.UID), int(u.GID)), tmp.Close()); err != nil {
		return writeError(err, 0)
	}
	if err := os.Rename(tmp.Name(), destination); err != nil {
		return writeError(err, 0)
	}
	return nil
}
