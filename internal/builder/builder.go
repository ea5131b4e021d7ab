// Package builder builds templates: it turns a recipe into a directory with a
// root file system and a manifest, which a node starts sandboxes from.
//
// It keeps no records and speaks no protocol; whoever asks for a build names
// it and stores what became of it. It may use the packages that make root file
// systems; only the server and its tests import it. Its methods work in the
// calling goroutine.
package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// Config is what a Builder is made of.
type Config struct {
	TemplatesDir string       // required; one directory per finished build
	CacheDir     string       // required; may be emptied while nothing is built
	Log          *slog.Logger // required
	Environ      []string     // the process's environment; only its proxies are used
	Host         string       // root directory of the machine whose mirrors and certificates are used; empty: "/"
}

// Builder builds templates on this machine. It is safe for concurrent use.
type Builder struct {
	cfg  Config
	base sync.Mutex // held while base is built: two would do the same work

	mu   sync.Mutex
	used map[cove.BuildID]int // by how many each finished build is used; guarded by mu
}

// use keeps a finished build from being removed, until release is called. It may
// be gone already: look for it afterwards.
func (b *Builder) use(build cove.BuildID) (release func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used[build]++
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.used[build]--; b.used[build] == 0 {
			delete(b.used, build)
		}
	})
}

// inUse returns what is used now.
func (b *Builder) inUse() []cove.BuildID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Keys(b.used))
}

// New returns a Builder; it touches no disk.
func New(cfg Config) *Builder { return &Builder{cfg: cfg, used: map[cove.BuildID]int{}} }

// Progress is a step of a build, reported when it begins and as it goes on.
type Progress struct {
	Step       string        // "installing essential packages"
	N, Of      int           // the step's number, from 1, and how many there are
	Detail     string        // its latest line; may be empty
	Bytes      int64         // downloaded, read or written so far
	TotalBytes int64         // 0: not known
	Elapsed    time.Duration // since the build began
	Warning    bool          // Detail is something the operator should know
}

// Files of a build's directory.
const (
	RootfsFile   = "rootfs.erofs"
	ManifestFile = "manifest.json"
)

// manifestFormat is raised when a Manifest's fields change their meaning.
const manifestFormat = 1

// Manifest describes a finished build. It lies beside the root file system.
type Manifest struct {
	Format   int          `json:"format"`
	Build    cove.BuildID `json:"build"`
	Alias    string       `json:"alias"`  // the template's
	Recipe   string       `json:"recipe"` // key of everything that went in
	Created  time.Time    `json:"created"`
	User     string       `json:"user"`    // default of processes and files
	Workdir  string       `json:"workdir"` // default of processes
	Rootfs   Rootfs       `json:"rootfs"`
	Warnings []string     `json:"warnings,omitempty"` // for the operator
}

// Rootfs describes the image.
type Rootfs struct {
	Digest  string `json:"digest"`  // "sha256:..." of the file
	Bytes   int64  `json:"bytes"`   // of the file
	Content int64  `json:"content"` // of the regular files in it
	Entries int    `json:"entries"`
}

// Dir returns the directory of a finished build.
func (b *Builder) Dir(build cove.BuildID) string {
	return filepath.Join(b.cfg.TemplatesDir, string(build))
}

var buildPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,63}$`)

// partial returns where a build that is not finished lives.
func (b *Builder) partial(build cove.BuildID) string {
	return filepath.Join(b.cfg.TemplatesDir, "."+string(build)+partialSuffix)
}

const partialSuffix = ".partial"

// Clean removes what builds of a process that is gone have left behind. Call
// it before anything is built.
func (b *Builder) Clean(ctx context.Context) error {
	var found []string
	for _, pattern := range []string{
		filepath.Join(b.cfg.TemplatesDir, ".*"+partialSuffix),
		filepath.Join(b.cfg.CacheDir, blobsPrefix+"*"), filepath.Join(b.cfg.CacheDir, writtenPrefix+"*"),
	} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		found = append(found, names...)
	}
	for _, dir := range found {
		b.cfg.Log.InfoContext(ctx, "removing an unfinished build", "dir", filepath.Base(dir))
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("builder.Clean: %w", err)
		}
	}
	return nil
}

// Remove deletes a build. One that does not exist is no error. Conflict: another
// build stands on it.
func (b *Builder) Remove(_ context.Context, build cove.BuildID) error {
	const op = "builder.Remove"
	if !buildPattern.MatchString(string(build)) {
		return cove.E(cove.Invalid, op, nil, "invalid build %q", build)
	}
	// Renaming first means that a crash leaves something Clean recognises.
	gone := b.partial(build)
	if err := b.rename(build, gone); err != nil {
		return err
	}
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// rename takes a build that nobody uses out of sight. Whoever begins to use it
// finds it whole or not at all.
func (b *Builder) rename(build cove.BuildID, to string) error {
	const op = "builder.Remove"
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used[build] > 0 {
		return cove.E(cove.Conflict, op, nil, "build %q is in use", build)
	}
	if err := os.Rename(b.Dir(build), to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// List returns the manifests of the finished builds. One that cannot be read is
// left out.
func (b *Builder) List(ctx context.Context) ([]Manifest, error) {
	entries, err := os.ReadDir(b.cfg.TemplatesDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("builder.List: %w", err)
	}
	var all []Manifest
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		m, err := b.Manifest(ctx, cove.BuildID(e.Name()))
		if err != nil {
			if !cove.Is(err, cove.NotFound) {
				b.cfg.Log.WarnContext(ctx, "passing over a build", "build", e.Name(), "err", err)
			}
			continue
		}
		all = append(all, m)
	}
	return all, nil
}

// Manifest reads the manifest of a build. NotFound means that there is no
// such finished build.
func (b *Builder) Manifest(_ context.Context, build cove.BuildID) (Manifest, error) {
	const op = "builder.Manifest"
	if !buildPattern.MatchString(string(build)) {
		return Manifest{}, cove.E(cove.Invalid, op, nil, "invalid build %q", build)
	}
	data, err := os.ReadFile(filepath.Join(b.Dir(build), ManifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, cove.E(cove.NotFound, op, err, "build %q not found", build)
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", op, err)
	}
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return Manifest{}, fmt.Errorf("%s: %s: %w", op, build, err)
	}
	if m.Format != manifestFormat || m.Build != build {
		return Manifest{}, fmt.Errorf("%s: the manifest of %s has format %d and names build %q", op, build, m.Format, m.Build)
	}
	return m, nil
}

// FindBase returns the newest finished build of the base template that was
// made by the recipe this program and this machine would use now. NotFound
// means that it has to be built.
func (b *Builder) FindBase(ctx context.Context) (Manifest, error) {
	const op = "builder.FindBase"
	r, err := b.baseRecipe(ctx)
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", op, err)
	}
	key := r.key()
	builds, err := b.List(ctx)
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", op, err)
	}
	var found Manifest
	for _, m := range builds {
		if m.Alias == cove.BaseTemplate && m.Recipe == key && m.Created.After(found.Created) {
			found = m
		}
	}
	if found.Build == "" {
		return Manifest{}, cove.E(cove.NotFound, op, nil, "the template %q has not been built yet", cove.BaseTemplate)
	}
	return found, nil
}
