package builder

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder/dockerfile"
	"github.com/cove-sandbox/cove/internal/builder/plan"
	"github.com/cove-sandbox/cove/internal/rootfs"
)

// stages are what a build by a Dockerfile is made of. All are planned before the
// first begins, so that the keys of what is there already are known; a stage is
// built only if a step that has to be done copies from it. A nil *stages is that
// of a build without a Dockerfile.
type stages struct {
	file    *dockerfile.Plan
	jobs    []*job             // as in file; the last is the build itself
	images  map[string]*origin // by their references
	context cove.BuildID       // the root file system with the build context; empty: there is none
	opened  *rootfs.Image      // that file system; nil: there is none
	digests map[string]string  // of what sources name in the context
	done    map[string]bool    // keys of what this build has done, which by force is not done twice
}

func (s *stages) keep(key string) {
	if s != nil {
		s.done[key] = true
	}
}

func (s *stages) did(key string) bool { return s != nil && s.done[key] }

// placed says in which line of the Dockerfile something went wrong; 0: there is
// none.
func placed(line int, err error) error {
	if line == 0 || err == nil {
		return err
	}
	return cove.E(cove.KindOf(err), "builder.Build", err, "Dockerfile line %d: %s", line, said(err))
}

// maxStageSteps bounds what stages that begin with each other come to: each has
// the steps of all those before.
const maxStageSteps = 5000

// parse reads a Dockerfile.
func parse(d *cove.Dockerfile) (*dockerfile.Plan, error) {
	return dockerfile.Parse([]byte(d.Text), dockerfile.Options{Args: d.Args, Target: d.Target})
}

// checkDockerfile is Check for a Dockerfile.
func checkDockerfile(d *cove.Dockerfile) (images []string, err error) {
	const op = "builder.Check"
	file, err := parse(d)
	if err != nil {
		return nil, err
	}
	all := 0
	for i, stage := range file.Stages {
		steps := plan.StepsOf(file, i)
		if all += len(steps); all > maxStageSteps {
			return nil, cove.E(cove.Invalid, op, nil, "Dockerfile line %d: stages that begin with each other come to more than %d steps", stage.Line, maxStageSteps)
		}
		if _, err := plan.MakeStage(plan.Start{Setup: cove.Setup{User: baseUser}}, steps, "", "", false); err != nil {
			return nil, err
		}
		for _, s := range steps {
			switch {
			case s.Source != nil && s.Source.Context() && d.Context == "":
				return nil, cove.E(cove.Invalid, op, nil, "Dockerfile line %d: it copies from the build context, and none was uploaded", s.Line)
			case s.Source != nil && s.Source.Image == dockerfile.Scratch:
				return nil, cove.E(cove.Invalid, op, nil, "Dockerfile line %d: there is nothing to be copied in %s", s.Line, dockerfile.Scratch)
			}
		}
	}
	for _, of := range imagesOf(file) {
		if of.ref != dockerfile.Scratch {
			images = append(images, of.ref)
		}
	}
	return images, nil
}

// A named is an image with the line that names it first.
type named struct {
	ref  string
	line int
}

// imagesOf returns the images that a Dockerfile names, each once.
func imagesOf(file *dockerfile.Plan) (all []named) {
	add := func(ref string, line int) {
		if !slices.ContainsFunc(all, func(n named) bool { return n.ref == ref }) {
			all = append(all, named{ref, line})
		}
	}
	for _, stage := range file.Stages {
		if stage.FromStage < 0 {
			add(stage.From, stage.Line)
		}
		for _, s := range stage.Steps {
			if s.From != "" && s.FromStage < 0 && s.Content == nil {
				add(s.From, s.Line)
			}
		}
	}
	return all
}

// fromDockerfile finds what the stages begin with and plans them.
func (j *job) fromDockerfile(ctx context.Context) error {
	file, err := parse(j.Order.Dockerfile)
	if err != nil {
		return err
	}
	for _, w := range file.Warnings {
		if w.Line > 0 {
			w.Text = fmt.Sprintf("Dockerfile line %d: %s", w.Line, w.Text)
		}
		j.warn("", "%s", w.Text)
	}
	j.stages = &stages{file: file, images: map[string]*origin{}, digests: map[string]string{}, done: map[string]bool{}}
	images := imagesOf(file)
	for _, image := range images {
		j.info(cove.BaseStep, "[base] FROM %s", image.ref)
		if j.stages.images[image.ref], err = j.originOf(ctx, image.ref, loginFor(image.ref, images, j.Order.Login)); err != nil {
			return placed(image.line, err)
		}
	}
	if j.stages.context, err = j.buildContext(ctx); err != nil {
		return err
	}
	if j.stages.context != "" {
		if j.stages.opened, err = rootfs.Open(ctx, j.image(j.stages.context)); err != nil {
			return err
		}
		defer j.stages.opened.Close()
	}
	for i := range file.Stages {
		s := j
		if i < len(file.Stages)-1 {
			s = &job{t: j.t, Job: j.Job, undo: j.undo, stages: j.stages}
		}
		j.stages.jobs = append(j.stages.jobs, s)
		if err := s.planStage(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// originOf finds an image of a Dockerfile.
func (j *job) originOf(ctx context.Context, ref string, login cove.RegistryLogin) (*origin, error) {
	switch {
	case ref == dockerfile.Scratch:
		key := plan.Key("scratch", rootFormat)
		return &origin{files: commonFiles(), key: key, start: plan.Start{Key: key, Setup: cove.Setup{User: baseUser}}, bare: true}, nil
	case cove.IsBaseImage(ref) && j.Base != nil:
		root := cmp.Or(j.Base.Root, j.Base.ID)
		j.hold(root)
		m, err := j.t.cfg.Roots.Manifest(ctx, root)
		return &origin{key: m.Recipe, root: root, start: plan.Start{Key: m.Recipe, Setup: j.Base.Setup}}, err
	}
	return j.findImage(ctx, ref, login)
}

// loginFor returns what a registry is told that an image comes from. A login is
// for one registry: no other must learn of it.
func loginFor(ref string, images []named, login cove.RegistryLogin) cove.RegistryLogin {
	meant := ""
	for _, image := range images {
		if meant = registryOf(image.ref); meant != "" {
			break
		}
	}
	if registryOf(ref) != meant {
		return cove.RegistryLogin{}
	}
	return login
}

// registryOf returns the registry that a reference names; empty: Docker Hub.
func registryOf(ref string) string {
	host, _, ok := strings.Cut(ref, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" || strings.HasSuffix(host, "docker.io") {
		return ""
	}
	return host
}

// planStage plans the stage that the job is for.
func (j *job) planStage(ctx context.Context, stage int) error {
	file := j.stages.file
	j.origin = j.stages.images[file.Stages[plan.Root(file, stage)].From]
	j.base.start = j.origin.start
	steps := plan.StepsOf(file, stage)
	for _, s := range steps {
		if s.Source == nil {
			continue
		}
		key, err := j.sourceKey(ctx, s)
		if err != nil {
			return placed(s.Line, err)
		}
		s.Source.Key = key
	}
	begin, err := keyed(j.base.start)
	if err != nil {
		return err
	}
	var image struct{ user, workdir string }
	var entrypoint []string
	if img := j.origin.img; img != nil {
		image.user, image.workdir, entrypoint = img.Config.User, img.Config.Workdir, img.Config.Entrypoint
	}
	if j.plan, err = plan.MakeStage(begin, steps, image.user, image.workdir, j.Order.Force); err != nil {
		return err
	}
	// A CMD is for the image's ENTRYPOINT, as in a container. An image's own CMD
	// is not run: most are a shell, or an interpreter that waits for a user.
	s := file.Stages[stage]
	if s.Entrypoint == nil && s.Cmd != nil {
		s.Start = dockerfile.StartCommand(entrypoint, s.Cmd)
	}
	setup := &j.plan.Setup
	if start := cmp.Or(j.Order.Start, s.Start); start != "" {
		setup.Start, setup.Ready = start, ""
	}
	setup.Ready = cmp.Or(j.Order.Ready, s.Ready, setup.Ready)
	return nil
}

// collect sees to it that all is there that the steps begin with and copy from.
func (j *job) collect(ctx context.Context) error {
	if j.stages == nil {
		return nil
	}
	made := false
	for _, s := range j.plan.Steps[j.done:] {
		if s.Source == nil || s.Source.Context() {
			continue
		}
		if s.Source.Stage >= 0 {
			if err := j.stages.jobs[s.Source.Stage].make(ctx); err != nil {
				return err
			}
			made = true
			continue
		}
		if err := j.loadSource(ctx, j.stages.images[s.Source.Image]); err != nil {
			return atStep(cove.BaseStep, placed(s.Line, err))
		}
	}
	if made { // what they have in common with this one is there now
		if err := j.reuseLayer(ctx); err != nil {
			return err
		}
	}
	if j.layer != nil {
		return nil
	}
	if err := j.load(ctx); err != nil {
		return atStep(cove.BaseStep, err)
	}
	j.layer = j.base.layer
	return nil
}

// loadSource loads an image that is copied from, as it is.
func (j *job) loadSource(ctx context.Context, o *origin) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, j.t.cfg.ImageLimit, context.DeadlineExceeded)
	defer cancel()
	o.root, err = j.rootOf(ctx, o)
	return inTime(ctx, "the image", err)
}

// make makes the files of a stage, for others to copy from.
func (j *job) make(ctx context.Context) error {
	if j.root != "" {
		return nil
	}
	for _, do := range []func(*job, context.Context) error{(*job).reuseLayer, (*job).collect, (*job).steps} {
		if err := do(j, ctx); err != nil {
			return err
		}
	}
	if err := j.files(ctx); err != nil {
		return atStep(cove.FinalStep, err)
	}
	if j.sb != nil { // an earlier result has its files
		return j.end(ctx)
	}
	return nil
}
