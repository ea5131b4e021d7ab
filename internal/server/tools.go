package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/cove-sandbox/cove/internal/envd/paths"
	"github.com/cove-sandbox/cove/internal/rootfs"
	"github.com/cove-sandbox/cove/internal/runtime"
)

func nowUTC() time.Time { return time.Now().UTC() }

// packTools returns the image with the daemon, which is mounted in every
// sandbox. It is named by its content: a new daemon makes a new image, and the
// sandboxes that run keep the one they have.
func packTools(ctx context.Context, envd, dir string) (runtime.Image, error) {
	digest, size, err := digestOf(envd)
	if err != nil {
		return runtime.Image{}, fmt.Errorf("reading cove-envd: %w", err)
	}
	image := runtime.Image{
		Source:      filepath.Join(dir, "tools-"+digest[:16]+".erofs"),
		Destination: path.Dir(paths.Binary),
	}
	if _, err := os.Stat(image.Source); !errors.Is(err, os.ErrNotExist) {
		return image, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return runtime.Image{}, fmt.Errorf("making the cache directory: %w", err)
	}
	_, err = rootfs.Pack(ctx, image.Source, []rootfs.File{{
		Path: "/" + path.Base(paths.Binary), Mode: 0o755, Size: size,
		Open: func() (io.ReadCloser, error) { return os.Open(envd) },
	}})
	if err != nil {
		return runtime.Image{}, fmt.Errorf("packing cove-envd: %w", err)
	}
	return image, nil
}

func digestOf(name string) (digest string, size int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), size, err
}
