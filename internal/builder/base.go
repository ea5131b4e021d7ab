package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/rootfs"
	"github.com/cove-sandbox/cove/internal/rootfs/debian"
)

// BuildBase builds the base template under the given name and returns its
// manifest; a finished build of that name is returned as it is. progress may
// be nil; it is called from one goroutine at a time.
//
// A build that failed or was interrupted leaves nothing under TemplatesDir, and
// in CacheDir what the next one can go on with: the packages it downloaded, and
// the installed tree if it got that far. The error's message is for callers,
// the whole of it has the failing command's last lines.
func (b *Builder) BuildBase(ctx context.Context, build cove.BuildID, progress func(Progress)) (Manifest, error) {
	const op = "builder.BuildBase"
	b.base.Lock()
	defer b.base.Unlock()

	switch m, err := b.Manifest(ctx, build); {
	case err == nil || !cove.Is(err, cove.NotFound):
		return m, err
	}
	r, err := b.baseRecipe(ctx)
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", op, err)
	}
	j := newBuilding(b, build, r, progress)
	if err := j.run(ctx); err != nil {
		return Manifest{}, err
	}
	return j.manifest, nil
}

// A building is one build on its way.
type building struct {
	b        *Builder
	recipe   recipe
	dir      string // partial
	tree     string // the tar archive with the installed packages
	progress *reporter
	manifest Manifest
}

func newBuilding(b *Builder, build cove.BuildID, r recipe, progress func(Progress)) *building {
	return &building{
		b: b, recipe: r,
		dir:      b.partial(build),
		tree:     filepath.Join(b.cfg.CacheDir, "tree-"+r.treeKey()+".tar"),
		progress: newReporter(progress, debianSteps+len(r.Commands)+imageSteps),
		manifest: Manifest{
			Format: manifestFormat, Build: build, Alias: r.Alias, Recipe: r.key(),
			User: r.User, Workdir: r.Workdir,
		},
	}
}

// buildSteps is how a build comes to be, in order.
var buildSteps = [...]struct {
	name string
	do   func(*building, context.Context) error
}{
	{"prepare", (*building).prepare},
	{"packages", (*building).packages},
	{"image", (*building).image},
	{"finish", (*building).finish},
}

func (j *building) run(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(j.dir))
		}
	}()
	for _, step := range buildSteps {
		start := time.Now()
		if err := step.do(j, ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		j.b.cfg.Log.InfoContext(ctx, "build step done",
			"build", j.manifest.Build, "step", step.name, "took", time.Since(start).Round(time.Millisecond))
	}
	return nil
}

// prepare makes the directories and drops what other recipes have left.
func (j *building) prepare(context.Context) error {
	err := errors.Join(os.RemoveAll(j.dir), os.MkdirAll(j.b.cfg.CacheDir, 0o755), os.MkdirAll(j.dir, 0o755))
	if err != nil {
		return err
	}
	trees, err := filepath.Glob(filepath.Join(j.b.cfg.CacheDir, "tree-*.tar"))
	for _, t := range trees {
		if t != j.tree {
			err = errors.Join(err, os.Remove(t))
		}
	}
	return err
}

// packages installs Debian, unless an earlier attempt has.
func (j *building) packages(ctx context.Context) error {
	switch _, err := os.Stat(j.tree); {
	case err == nil:
		j.progress.skip(debianSteps+len(j.recipe.Commands), "using the packages an earlier attempt has installed")
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return debian.Bootstrap(ctx, debian.Options{
		Suite: j.recipe.Suite, Packages: j.recipe.Packages, DpkgOpts: j.recipe.DpkgOpts,
		Files: j.recipe.Host.Certificates, Commands: j.recipe.Commands, Host: j.recipe.Host,
		CacheDir: filepath.Join(j.b.cfg.CacheDir, "debian"), Out: j.tree,
		Progress: func(e debian.Event) {
			if e.Warning {
				j.manifest.Warnings = append(j.manifest.Warnings, e.Detail)
				j.progress.warn(e.Detail)
				return
			}
			j.progress.report(e.Step, e.Detail, e.Bytes, e.Total)
		},
	})
}

func (j *building) image(ctx context.Context) error {
	top, err := layer(j.recipe.Files)
	if err != nil {
		return err
	}
	tree := func(context.Context) (io.ReadCloser, error) { return os.Open(j.tree) }
	info, err := rootfs.Build(ctx, rootfs.Options{
		Out:    filepath.Join(j.dir, RootfsFile),
		Layers: []rootfs.Layer{tree, opener(top)},
		Progress: func(done, total int64) {
			if total == 0 {
				j.progress.report("merging layers", "", done, 0)
			} else {
				j.progress.report("writing the image", "", done, total)
			}
		},
	})
	if cove.Is(err, cove.Invalid) {
		// Whatever damaged the installed tree, the next attempt needs a new one.
		err = errors.Join(err, os.Remove(j.tree))
	}
	j.manifest.Rootfs = Rootfs{Digest: info.Digest, Bytes: info.Bytes, Content: info.Content, Entries: info.Entries}
	return err
}

// finish makes the build appear, and then drops what only an unfinished one
// needs.
func (j *building) finish(ctx context.Context) error {
	j.manifest.Created = time.Now().UTC().Truncate(time.Microsecond)
	if err := j.b.place(j.manifest, j.dir); err != nil {
		return err
	}
	j.progress.report("finished", "", j.manifest.Rootfs.Bytes, j.manifest.Rootfs.Bytes)
	if err := errors.Join(os.Remove(j.tree), os.RemoveAll(filepath.Join(j.b.cfg.CacheDir, "debian"))); err != nil {
		j.b.cfg.Log.WarnContext(ctx, "cannot empty the build cache", "err", err)
	}
	return nil
}

// place makes the build that m describes appear: what is in dir, with m beside
// it.
func (b *Builder) place(m Manifest, dir string) error {
	data, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	if err := writeDurably(filepath.Join(dir, ManifestFile), append(data, '\n')); err != nil {
		return err
	}
	return errors.Join(syncDir(dir), os.Rename(dir, b.Dir(m.Build)), syncDir(b.cfg.TemplatesDir))
}

func writeDurably(name string, data []byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
