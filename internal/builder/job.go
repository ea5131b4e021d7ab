package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder/plan"
	"github.com/cove-sandbox/cove/internal/id"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/undo"
)

// A job is a build on its way, or a stage of its Dockerfile that another copies
// from. Its phases fill it in order.
type job struct {
	t *Templates
	Job
	undo   *undo.Stack // what the build holds until it has ended, well or not
	stages *stages     // of its Dockerfile; nil: it has none

	base   base
	origin *origin // the image of base; it need not be loaded if what was done with it is there
	plan   *plan.Plan
	done   int          // steps whose result an earlier build left
	layer  *cove.Layer  // that result; nil: none
	root   cove.BuildID // the root file system of the result
	sb     *sandbox     // where the steps run, then the start command; nil: none is there
	result cove.Build
}

// base is what a build begins with.
type base struct {
	root  cove.BuildID
	layer *cove.Layer // what is on top of root; nil: nothing
	start plan.Start
}

// phases are a build, in order. One that finds that the rest is not needed sets
// result.Snapshot.
var phases = []struct {
	name string // what was waited for, if it ends for lack of time
	step string // what its failures are told as; empty: the phase says it itself
	do   func(*job, context.Context) error
}{
	{"the image", cove.BaseStep, (*job).begin},
	{"the plan", "", (*job).makePlan},
	{"an earlier result", "", (*job).reuse},
	{"what is copied from", "", (*job).collect},
	{"the steps", "", (*job).steps},
	{"the file system", cove.FinalStep, (*job).files},
	{"the start command", cove.FinalStep, (*job).start},
	{"the snapshot", cove.FinalStep, (*job).snapshot},
	{"the trial", cove.FinalStep, (*job).probe},
}

// cleanLimit is how long giving back what a build held may take.
const cleanLimit = time.Minute

// Build does one build and returns it as it is when it is ready. A snapshot that
// it names is the caller's then. On an error nothing is left of it but layers.
func (t *Templates) Build(ctx context.Context, order Job) (_ cove.Build, err error) {
	j := &job{t: t, Job: order, undo: &undo.Stack{}, result: order.Build}
	begun := t.cfg.Now()
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanLimit)
		defer cancel()
		if cerr := j.undo.Unwind(clean); cerr != nil {
			t.cfg.Log.Error("a build left something behind", "build", order.Build.ID, "err", cerr)
		}
	}()
	for _, phase := range phases {
		if err := phase.do(j, ctx); err != nil {
			if _, told := errors.AsType[*cove.StepError](err); !told && phase.step != "" {
				err = atStep(phase.step, err)
			}
			return cove.Build{}, inTime(ctx, phase.name, err)
		}
		if j.result.Snapshot != "" && phase.name == "an earlier result" {
			break
		}
	}
	j.info("", "Template is ready after %s", t.cfg.Now().Sub(begun).Round(100*time.Millisecond))
	j.result.Status = cove.BuildReady
	return j.result, nil
}

// inTime gives an error that ended a build for lack of time its words.
func inTime(ctx context.Context, what string, err error) error {
	if !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return err
	}
	late := cove.E(cove.DeadlineExceeded, "builder.Build", err, "the build took too long: it was still waiting for %s", what)
	if s, ok := errors.AsType[*cove.StepError](err); ok {
		return atStep(s.Step, late)
	}
	return late
}

func (j *job) info(step, format string, args ...any) {
	j.Log(cove.LogInfo, step, fmt.Sprintf(format, args...))
}

func (j *job) warn(step, format string, args ...any) {
	j.Log(cove.LogWarn, step, fmt.Sprintf(format, args...))
}

// hold keeps a root file system for the time of the build.
func (j *job) hold(root cove.BuildID) {
	release := j.t.cfg.Roots.use(root)
	j.undo.Add("root", func(context.Context) error { release(); return nil })
}

// keyed returns what a build begins with under a key that has all of it: what
// the first step is run with decides its result too.
func keyed(start plan.Start) (plan.Start, error) {
	setup, err := json.Marshal(start.Setup)
	start.Key = plan.Key(start.Key, string(setup))
	return start, err
}

func (j *job) makePlan(context.Context) error {
	if j.plan == nil { // else its Dockerfile had to be planned to know what it begins with
		begin, err := keyed(j.base.start)
		if err != nil {
			return err
		}
		if j.plan, err = plan.Make(begin, j.Order); err != nil {
			return err
		}
	}
	setup, err := json.Marshal(j.base.start.Setup)
	if err != nil {
		return err
	}
	j.result.Setup, j.result.Envd = j.plan.Setup, j.Build.Envd
	j.result.User = login(j.result.User)
	r := j.Build.Resources
	j.result.Key = plan.Key(j.plan.Files, j.plan.Setup.Start, j.plan.Setup.Ready, string(setup), j.t.cfg.Daemon,
		fmt.Sprint(r.CPUs, r.MemoryMB, r.DiskMB))
	return nil
}

// reuse looks for what earlier builds left: the same result, or that of as many
// of the first steps as possible.
func (j *job) reuse(ctx context.Context) error {
	forced := j.Order.Force
	for _, s := range j.plan.Steps {
		forced = forced || s.Forced
	}
	if !forced {
		found, err := j.t.cfg.Records.BuildByKey(ctx, j.Team, j.result.Key)
		if err == nil && j.stands(ctx, found) {
			j.cached(len(j.plan.Steps))
			j.result.Snapshot, j.result.SnapshotBytes, j.result.Root, j.result.Envd = found.Snapshot, found.SnapshotBytes, found.Root, found.Envd
			return nil
		}
		if err != nil && !cove.Is(err, cove.NotFound) {
			return err
		}
	}
	return j.reuseLayer(ctx)
}

// reuseLayer looks for what earlier builds left of the first steps, of as many as
// possible.
func (j *job) reuseLayer(ctx context.Context) error {
	j.layer = j.base.layer
	for n := len(j.plan.Steps); n > 0; n-- {
		s := j.plan.Steps[n-1]
		if s.Forced && !j.stages.did(s.Key) || !s.Works() {
			continue
		}
		layer, err := j.t.cfg.Records.Layer(ctx, j.Team, s.Key)
		if cove.Is(err, cove.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		j.done, j.layer = n, &layer
		// What it begins with may take long to come about; the layer stays.
		j.hold(layer.Root)
		release := j.Job.Hold(layer.Snapshot)
		j.undo.Add("hold", func(context.Context) error { release(); return nil })
		return j.t.cfg.Records.UseLayer(ctx, j.Team, s.Key, j.t.cfg.Now())
	}
	return nil
}

// stands reports whether a result is still on this host.
func (j *job) stands(ctx context.Context, b cove.Build) bool {
	if b.Snapshot == "" {
		return false
	}
	release := j.Job.Hold(b.Snapshot)
	j.undo.Add("hold", func(context.Context) error { release(); return nil })
	saved, err := j.t.cfg.Node.Snapshots(ctx)
	if err != nil {
		return false
	}
	for _, s := range saved {
		if s == b.Snapshot {
			return true
		}
	}
	return false
}

// cached tells which steps need not be done.
func (j *job) cached(n int) {
	for _, s := range j.plan.Steps[:n] {
		j.info(strconv.Itoa(s.Number), "CACHED %s %s", s.Label, s.Text())
	}
}

// snapshot saves the sandbox with the start command in it, and ends it.
func (j *job) snapshot(ctx context.Context) error {
	snapshot := id.Snapshot()
	release := j.Job.Hold(snapshot)
	j.undo.Add("hold", func(context.Context) error { release(); return nil })
	saved, err := j.sb.pause(ctx, node.Save{Snapshot: snapshot, Strict: true})
	if err != nil {
		return err
	}
	j.undo.Add("snapshot", func(ctx context.Context) error {
		if j.result.Status == cove.BuildReady {
			return nil
		}
		return j.t.cfg.Node.DeleteSnapshot(ctx, snapshot)
	})
	j.result.Snapshot, j.result.SnapshotBytes, j.result.Root = snapshot, saved.Bytes, j.root
	j.info(cove.FinalStep, "Saved the running template (%d MiB)", saved.Bytes>>20)
	return j.end(ctx)
}

// probe starts a sandbox of the result, as its users will.
func (j *job) probe(ctx context.Context) error {
	trial, err := j.t.launch(ctx, j.spec(j.root, j.result.Snapshot), j.Log)
	if err != nil {
		return cove.E(cove.KindOf(err), "builder.probe", err, "the template was saved, but no sandbox of it starts: %s", said(err))
	}
	return trial.kill(ctx)
}

// said returns an error's words for the caller.
func said(err error) string {
	_, words := cove.Describe(err)
	return words
}
