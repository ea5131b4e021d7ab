package builder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder/plan"
	"github.com/cove-sandbox/cove/internal/id"
	"github.com/cove-sandbox/cove/internal/image"
	"github.com/cove-sandbox/cove/internal/rootfs"
	"github.com/cove-sandbox/cove/internal/rootfs/debian"
)

// rootFormat is raised when the same image or layer would give another root file
// system, as after a change of what is prepared in it.
const rootFormat = "1"

// What builds put into the cache directory for their own time only.
const (
	blobsPrefix   = "blobs-"
	writtenPrefix = "written-"
)

// begin finds what the build begins with, and makes of it what steps can run on.
func (j *job) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, j.t.cfg.ImageLimit, context.DeadlineExceeded)
	defer cancel()
	var err error
	switch {
	case j.Order.Dockerfile != nil:
		err = j.fromDockerfile(ctx)
	case j.Parent != nil && j.Parent.Origin != "":
		j.info(cove.BaseStep, "[base] FROM snapshot %s", cmp.Or(j.Order.FromTemplate, j.Order.FromImage))
		err = j.fromSnapshot(ctx)
	case j.Parent != nil:
		j.info(cove.BaseStep, "[base] FROM template %s", cmp.Or(j.Order.FromTemplate, j.Order.FromImage))
		err = j.fromTemplate(ctx)
	default:
		j.info(cove.BaseStep, "[base] FROM %s", j.Order.FromImage)
		err = j.fromImage(ctx)
	}
	return inTime(ctx, "the image or template it begins with", err)
}

// fromTemplate begins where another template's steps ended.
func (j *job) fromTemplate(ctx context.Context) error {
	root := cmp.Or(j.Parent.Root, j.Parent.ID)
	j.hold(root)
	m, err := j.t.cfg.Roots.Manifest(ctx, root)
	if err != nil {
		return err
	}
	j.base = base{root: root, start: plan.Start{Key: m.Recipe, Setup: j.Parent.Setup}}
	return nil
}

// fromSnapshot begins with the files of a sandbox that was saved.
func (j *job) fromSnapshot(ctx context.Context) error {
	key := plan.Key("snapshot", rootFormat, string(j.Parent.Snapshot))
	root, err := j.findRoot(ctx, key)
	if cove.Is(err, cove.NotFound) {
		below := j.Parent.Root
		if below == "" {
			return cove.E(cove.Conflict, "builder.fromSnapshot", nil, "the snapshot is of an older version of the server, which did not note what it lies on: make a new one")
		}
		j.hold(below)
		spec := j.spec(below, j.Parent.Snapshot)
		spec.Unused, spec.Internet, spec.Resources = true, false, j.Parent.Resources
		root, err = j.flatten(ctx, spec, key, "")
	}
	j.base = base{root: root, start: plan.Start{Key: key, Setup: j.Parent.Setup}}
	return err
}

// An origin is an image that a build begins with, or copies from.
type origin struct {
	img   *image.Image // nil: there is nothing to be loaded
	files []file       // what lies on top of it
	key   string       // of its root file system
	root  cove.BuildID // of what needs no image; empty: it is to be looked for
	// start is what a build begins with, once it is prepared.
	start plan.Start
	bare  bool // nothing is in it, and nothing to be prepared
}

// fromImage begins with an image, which is loaded and prepared the first time.
func (j *job) fromImage(ctx context.Context) (err error) {
	if j.origin, err = j.findImage(ctx, j.Order.FromImage, j.Order.Login); err != nil {
		return err
	}
	return j.load(ctx)
}

// findImage finds an image. It is not loaded yet.
func (j *job) findImage(ctx context.Context, ref string, login cove.RegistryLogin) (*origin, error) {
	r := j.t.cfg.Roots
	blobs := filepath.Join(r.cfg.CacheDir, blobsPrefix+string(j.Build.ID))
	j.undo.Add("blobs", func(context.Context) error { return os.RemoveAll(blobs) })
	img, source, err := j.t.cfg.Sources.Find(ctx, ref, login, blobs)
	if err != nil {
		return nil, err
	}
	host, err := debian.ReadHost(ctx, cmp.Or(r.cfg.Host, "/"), r.cfg.Environ)
	if err != nil {
		return nil, err
	}
	env := imageEnv(img.Config.Env)
	o := &origin{img: img, files: imageFiles(host, env["PATH"])}
	o.key = plan.Key("image", rootFormat, source, digest(o.files))
	o.start = plan.Start{Key: plan.Key(o.key, prepareScript), Setup: cove.Setup{User: baseUser, Workdir: img.Config.Workdir, Env: env}}
	if o.start.Setup.Workdir == "/" {
		o.start.Setup.Workdir = ""
	}
	return o, nil
}

// load makes of the image that the build begins with what steps can run on.
func (j *job) load(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, j.t.cfg.ImageLimit, context.DeadlineExceeded)
	defer cancel()
	defer func() { err = inTime(ctx, "the image it begins with", err) }()
	j.base.start = j.origin.start
	if j.base.root, err = j.rootOf(ctx, j.origin); err != nil || j.origin.img == nil {
		return err
	}
	return j.prepare(ctx, j.origin.start.Key)
}

// rootOf returns the root file system of an image as it is, and makes it the
// first time.
func (j *job) rootOf(ctx context.Context, o *origin) (cove.BuildID, error) {
	if o.root != "" {
		j.hold(o.root)
		return o.root, nil
	}
	root, err := j.findRoot(ctx, o.key)
	if err == nil && o.img != nil {
		j.info(cove.BaseStep, "CACHED [base] the image")
	}
	if !cove.Is(err, cove.NotFound) {
		return root, err
	}
	top, err := layer(o.files)
	if err != nil {
		return "", err
	}
	var layers []rootfs.Layer
	if o.img != nil {
		j.info(cove.BaseStep, "[base] Loading the image")
		layers = append(layers, o.img.Layers...)
	}
	return j.newRoot(ctx, o.key, rootfs.Options{Layers: append(layers, opener(top))})
}

// imageEnv returns an image's variables. Those that are a user's own matter are
// left out.
func imageEnv(pairs []string) map[string]string {
	env := map[string]string{}
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if ok && name != "" && name != "HOME" && name != "USER" && name != "HOSTNAME" {
			env[name] = value
		}
	}
	return env
}

// prepare makes the user and installs what sandboxes are expected to have. The
// result is a layer, and belongs to the team, as all that ran something does.
func (j *job) prepare(ctx context.Context, key string) error {
	found, err := j.t.cfg.Records.Layer(ctx, j.Team, key)
	if err == nil && (!j.Order.Force || j.stages.did(key)) {
		j.info(cove.BaseStep, "CACHED [base] preparing the image")
		j.base.layer = &found
		return j.t.cfg.Records.UseLayer(ctx, j.Team, key, j.t.cfg.Now())
	}
	if err != nil && !cove.Is(err, cove.NotFound) {
		return err
	}
	j.info(cove.BaseStep, "[base] Preparing the image")
	if err := j.work(ctx, j.base.root, nil); err != nil {
		return err
	}
	if err := j.sb.stay(ctx, j.t.cfg.ImageLimit); err != nil {
		return err
	}
	c := Command{Args: []string{"/bin/sh", "-c", prepareScript}, Env: j.base.start.Setup.Env, User: "root", Dir: "/"}
	if err := j.sb.run(ctx, "prepare", c, cove.BaseStep, "[base] "); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return needs("a shell, /bin/sh, and the common tools must work in it", err)
	}
	if err := j.keep(ctx, key); err != nil {
		return err
	}
	j.stages.keep(key)
	j.base.layer = j.layer
	return j.end(ctx)
}

// files makes the root file system of the result: what the steps began with, and
// what they have written.
func (j *job) files(ctx context.Context) (err error) {
	if j.layer == nil { // nothing was written
		j.root = j.base.root
		return nil
	}
	// Steps that were done again by force have the key of those before.
	key := plan.Key("result", rootFormat, string(j.Team), j.plan.Files, string(j.layer.Snapshot))
	j.root, err = j.findRoot(ctx, key)
	if !cove.Is(err, cove.NotFound) {
		return err
	}
	j.hold(j.layer.Root)
	j.root, err = j.flatten(ctx, j.spec(j.layer.Root, j.layer.Snapshot), key, cove.FinalStep)
	return err
}

// flatten writes the file system of a sandbox as one image: of that in which the
// steps ran, or of one that is started for it. It is ended then.
func (j *job) flatten(ctx context.Context, spec cove.Spec, key, step string) (root cove.BuildID, err error) {
	sb := j.sb // the steps' own, if there were any
	if sb == nil {
		if sb, err = j.t.launch(ctx, spec, j.Log); err != nil {
			return "", err
		}
		j.undo.Add("flatten", sb.kill)
	}
	j.sb = nil
	r := j.t.cfg.Roots
	f, err := r.tempFile()
	if err != nil {
		return "", err
	}
	j.undo.Add("layer", func(context.Context) error { return errors.Join(f.Close(), os.Remove(f.Name())) })
	begun := j.t.cfg.Now()
	if err := j.t.cfg.Node.Export(ctx, sb.spec.ID, sb.spec.Execution, f); err != nil {
		return "", err
	}
	if err := sb.kill(ctx); err != nil {
		return "", err
	}
	below := filepath.Join(r.Dir(sb.spec.Build), RootfsFile)
	written := func(context.Context) (io.ReadCloser, error) { return os.Open(f.Name()) }
	if root, err = j.newRoot(ctx, key, rootfs.Options{Base: below, Layers: []rootfs.Layer{written}}); err != nil {
		return "", err
	}
	m, err := r.Manifest(ctx, root)
	if step != "" && err == nil {
		j.info(step, "Wrote the file system: %d files, %d MiB, in %s", m.Rootfs.Entries, m.Rootfs.Bytes>>20,
			j.t.cfg.Now().Sub(begun).Round(10*time.Millisecond))
	}
	return root, err
}

// tempFile makes a file for what sandboxes write or are sent. Whoever asks
// removes it; what a dead server has left is swept.
func (b *Builder) tempFile() (*os.File, error) {
	if err := os.MkdirAll(b.cfg.CacheDir, 0o755); err != nil {
		return nil, err
	}
	return os.CreateTemp(b.cfg.CacheDir, writtenPrefix+"*.tar")
}

// findRoot returns the root file system of a key, and keeps it for the time of
// the build. NotFound: it has to be made.
func (j *job) findRoot(ctx context.Context, key string) (cove.BuildID, error) {
	all, err := j.t.cfg.Roots.List(ctx)
	if err != nil {
		return "", err
	}
	for _, m := range all {
		if m.Recipe == key && m.Alias == "" {
			j.hold(m.Build)
			// It may have been swept between the look and the hold.
			_, err := j.t.cfg.Roots.Manifest(ctx, m.Build)
			return m.Build, err
		}
	}
	return "", cove.E(cove.NotFound, "builder.findRoot", nil, "there is no such file system yet")
}

// newRoot writes a root file system and gives it a place of its own. What is
// there of it after an error is removed.
func (j *job) newRoot(ctx context.Context, key string, of rootfs.Options) (_ cove.BuildID, err error) {
	r := j.t.cfg.Roots
	root := cove.BuildID(id.UUID())
	j.hold(root)
	dir := r.partial(root)
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	last := j.t.cfg.Now()
	of.Out = filepath.Join(dir, RootfsFile)
	of.Progress = func(done, total int64) {
		if now := j.t.cfg.Now(); now.Sub(last) >= progressEvery {
			last = now
			j.info("", "%s", progressLine(done, total))
		}
	}
	info, err := rootfs.Build(ctx, of)
	if err != nil {
		return "", err
	}
	m := Manifest{
		Format: manifestFormat, Build: root, Recipe: key, User: baseUser, Created: j.t.cfg.Now().UTC().Truncate(time.Microsecond),
		Rootfs: Rootfs{Digest: info.Digest, Bytes: info.Bytes, Content: info.Content, Entries: info.Entries},
	}
	return root, r.place(m, dir)
}

// progressEvery is how often a build's log tells how far a long piece of work
// is.
const progressEvery = 2 * time.Second

func progressLine(done, total int64) string {
	if total == 0 {
		return fmt.Sprintf("read %d MiB", done>>20)
	}
	return fmt.Sprintf("wrote %d of %d MiB", done>>20, total>>20)
}
