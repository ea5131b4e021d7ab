package control_test

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/control"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/node/nodetest"
)

// templates is a builder of templates whose builds do what the test wants.
type templates struct {
	mu   sync.Mutex
	do   func(ctx context.Context, job control.BuildJob) error // guarded by mu; nil: at once
	jobs []control.BuildJob                                    // guarded by mu
}

func (t *templates) Check(order cove.BuildOrder) ([]string, error) {
	if len(order.Steps) > 0 && order.Steps[0].Type == "BAD" {
		return nil, cove.E(cove.Invalid, "test", nil, "step 1 is bad")
	}
	if order.Dockerfile != nil {
		return strings.Fields(order.Dockerfile.Text), nil
	}
	return []string{order.FromImage}, nil
}

func (t *templates) Build(ctx context.Context, job control.BuildJob) (cove.Build, error) {
	t.mu.Lock()
	t.jobs = append(t.jobs, job)
	do := t.do
	t.mu.Unlock()
	if do != nil {
		if err := do(ctx, job); err != nil {
			return cove.Build{}, err
		}
	}
	b := job.Build
	b.Setup = cove.Setup{
		User: "user", Env: map[string]string{"FROM": "template", "K": "template"}, BuildEnv: map[string]string{"K": "build"}, Start: "serve", Ready: "true",
	}
	b.Snapshot, b.SnapshotBytes, b.Root, b.Key = snapshotOf(b.ID), 5, "root", "key"
	return b, nil
}

func (t *templates) InUse() []cove.BuildID { return nil }

func (t *templates) does(do func(ctx context.Context, job control.BuildJob) error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.do = do
}

// uploads keeps files in memory.
type uploads struct {
	mu    sync.Mutex
	files map[string]string // guarded by mu
}

func (u *uploads) Has(team cove.TeamID, hash string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, ok := u.files[string(team)+hash]
	return ok
}

func (u *uploads) Store(_ context.Context, team cove.TeamID, hash string, body io.Reader) error {
	content, err := io.ReadAll(body)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.files == nil {
		u.files = map[string]string{}
	}
	u.files[string(team)+hash] = string(content)
	return err
}

func (u *uploads) Sweep(context.Context, time.Time) error { return nil }

// buildBench is a bench whose snapshots the node knows, so that sandboxes of
// built templates start.
func buildBench(t *testing.T, change func(*control.Config)) *bench {
	t.Helper()
	return named(t, change)
}

var order = cove.BuildOrder{FromImage: "debian:stable", Steps: []cove.BuildStep{{Type: cove.RunStep, Args: []string{"true"}}}}

func requestBuild(t *testing.T, b *bench, name string, tags ...string) (cove.Template, cove.Build) {
	t.Helper()
	template, build, err := b.RequestBuild(t.Context(), team, cove.NewBuild{Name: name, Tags: tags})
	if err != nil {
		t.Fatalf("request %q: %v", name, err)
	}
	return template, build
}

// ended waits until a build has ended, and returns it with its log.
func ended(t *testing.T, b *bench, template cove.TemplateID, id cove.BuildID) (cove.Build, string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		build, lines, err := b.BuildStatus(t.Context(), team, string(template), id, cove.BuildLineFilter{Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		if build.Status == cove.BuildReady || build.Status == cove.BuildError {
			var log strings.Builder
			for _, l := range lines {
				log.WriteString(l.Step + ":" + l.Message + "\n")
			}
			return build, log.String()
		}
		if time.Now().After(deadline) {
			t.Fatalf("the build is still %s", build.Status)
		}
	}
}

// built makes a template.
func built(t *testing.T, b *bench, name string, tags ...string) (cove.Template, cove.Build) {
	t.Helper()
	template, build := requestBuild(t, b, name, tags...)
	if err := b.BeginBuild(t.Context(), team, string(template.ID), build.ID, order); err != nil {
		t.Fatalf("begin: %v", err)
	}
	build, log := ended(t, b, template.ID, build.ID)
	if build.Status != cove.BuildReady {
		t.Fatalf("%s: %s\n%s", build.Status, build.Reason, log)
	}
	return template, build
}

func TestBuildFromRequestToSandbox(t *testing.T) {
	b := buildBench(t, nil)
	b.templates.does(func(ctx context.Context, job control.BuildJob) error {
		job.Log(cove.LogInfo, "1", "working")
		return saveInNode(ctx, b, job)
	})
	template, build := requestBuild(t, b, "Web:v1", "stable")
	if build.Status != cove.BuildWaiting || build.Resources.CPUs != 2 || template.Alias != "web" {
		t.Fatalf("%+v of %+v", build, template)
	}
	req := request()
	req.Template = "web"
	_, err := b.CreateSandbox(t.Context(), team, req)
	wantKind(t, "a sandbox of a template that is not built", err, cove.NotFound)
	if err := b.BeginBuild(t.Context(), team, string(template.ID), build.ID, order); err != nil {
		t.Fatal(err)
	}
	build, log := ended(t, b, template.ID, build.ID)
	if build.Status != cove.BuildReady || !strings.Contains(log, "1:working\n") || build.EndedAt.IsZero() {
		t.Errorf("%+v\n%s", build, log)
	}
	wantKind(t, "beginning it again", b.BeginBuild(t.Context(), team, string(template.ID), build.ID, order), cove.Invalid)
	for _, name := range []string{"web:v1", "web:stable", "acme/web:v1", "web:" + string(build.ID), string(template.ID) + ":v1"} {
		req.Template = name
		sb, err := b.CreateSandbox(t.Context(), team, req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if spec, _ := b.node.Spec(sb.ID); spec.Snapshot != build.Snapshot || spec.Env["FROM"] != "template" || spec.Env["K"] != "v" || sb.Build != build.ID {
			t.Errorf("%s: %+v", name, spec)
		}
	}
	req.Template = "web" // it was given tags, and default is none of them
	_, err = b.CreateSandbox(t.Context(), team, req)
	wantKind(t, "the default tag", err, cove.NotFound)
	wantKind(t, "deleting it while it has sandboxes", b.DeleteTemplate(t.Context(), team, "web"), cove.Invalid)
}

// saveInNode makes the snapshot that a build of templates names.
func saveInNode(ctx context.Context, b *bench, job control.BuildJob) error {
	spec := cove.Spec{ID: "ibuild", Execution: "x1", Build: "root", EndAt: time.Now().Add(time.Hour)}
	if err := b.node.Create(ctx, spec); err != nil {
		return err
	}
	snapshot := snapshotOf(job.Build.ID)
	if _, err := b.node.Pause(ctx, spec.ID, spec.Execution, node.Save{Snapshot: snapshot}); err != nil {
		return err
	}
	return b.node.Kill(ctx, spec.ID, spec.Execution)
}

func TestSameNameSameTemplate(t *testing.T) {
	b := buildBench(t, nil)
	first, one := built(t, b, "web")
	second, two := built(t, b, "acme/web")
	if first.ID != second.ID || one.ID == two.ID {
		t.Errorf("%+v, %+v", first, second)
	}
	tags, err := b.TemplateTags(t.Context(), team, "web")
	if err != nil || len(tags) != 1 || tags[0].Build != two.ID {
		t.Errorf("tags = %+v, %v", tags, err)
	}
	if _, err := b.AssignTags(t.Context(), team, "web:"+string(one.ID), []string{"old"}); err != nil {
		t.Fatal(err)
	}
	if id, err := b.AssignTags(t.Context(), team, "web:old", []string{"older", "oldest"}); err != nil || id != one.ID {
		t.Errorf("%s, %v", id, err)
	}
	wantKind(t, "a tag with a colon", second2(b.AssignTags(t.Context(), team, "web", []string{"a:b"})), cove.Invalid)
	wantKind(t, "a tag that is a build", second2(b.AssignTags(t.Context(), team, "web", []string{string(one.ID)})), cove.Invalid)
	wantKind(t, "no such tag", second2(b.AssignTags(t.Context(), team, "web:none", []string{"x"})), cove.NotFound)
	wantKind(t, "another team", second2(b.AssignTags(t.Context(), rival, "web", []string{"x"})), cove.NotFound)
	wantKind(t, "the default tag", b.RemoveTags(t.Context(), team, "web", []string{"default"}), cove.Invalid)
	wantKind(t, "a tag that is not there", b.RemoveTags(t.Context(), team, "web", []string{"old", "none"}), cove.NotFound)
	if err := b.RemoveTags(t.Context(), team, "web", []string{"old", "older"}); err != nil {
		t.Error(err)
	}
	if tags, err = b.TemplateTags(t.Context(), team, "web"); err != nil || len(tags) != 2 {
		t.Errorf("tags = %+v, %v", tags, err)
	}
	if err := b.DeleteTemplate(t.Context(), team, "web"); err != nil {
		t.Error(err)
	}
	wantKind(t, "the second time", b.DeleteTemplate(t.Context(), team, "web"), cove.NotFound)
}

func second2[T any](_ T, err error) error { return err }

func TestBuildsThatCannotBeRequested(t *testing.T) {
	b := buildBench(t, nil)
	sb := create(t, b)
	keep(t, b, sb.ID, "snap")
	for what, tt := range map[string]struct {
		req  cove.NewBuild
		kind cove.Kind
	}{
		"no name":               {cove.NewBuild{}, cove.Invalid},
		"a bad name":            {cove.NewBuild{Name: "a b"}, cove.Invalid},
		"a bad tag":             {cove.NewBuild{Name: "a", Tags: []string{":x"}}, cove.Invalid},
		"another's namespace":   {cove.NewBuild{Name: "other/a"}, cove.Forbidden},
		"the base template":     {cove.NewBuild{Name: "base"}, cove.Conflict},
		"a snapshot's name":     {cove.NewBuild{Name: "snap"}, cove.Conflict},
		"too many processors":   {cove.NewBuild{Name: "a", CPUs: 1000}, cove.Invalid},
		"too little memory":     {cove.NewBuild{Name: "a", MemoryMB: 64}, cove.Invalid},
		"more disk than exists": {cove.NewBuild{Name: "a", FreeDiskMB: 1 << 30}, cove.Invalid},
	} {
		_, _, err := b.RequestBuild(t.Context(), team, tt.req)
		wantKind(t, what, err, tt.kind)
	}
}

func TestBuildsThatCannotBegin(t *testing.T) {
	b := buildBench(t, nil)
	template, build := requestBuild(t, b, "web")
	files := cove.BuildStep{Type: cove.CopyStep, Args: []string{"a", "b"}, FilesHash: strings.Repeat("a", 64)}
	for what, tt := range map[string]struct {
		order cove.BuildOrder
		kind  cove.Kind
	}{
		"from nothing":        {cove.BuildOrder{}, cove.Invalid},
		"from three things":   {cove.BuildOrder{FromImage: "a", Dockerfile: &cove.Dockerfile{Text: "x"}}, cove.Invalid},
		"without its context": {cove.BuildOrder{Dockerfile: &cove.Dockerfile{Text: "x", Context: strings.Repeat("b", 64)}}, cove.Invalid},
		"from two things":     {cove.BuildOrder{FromImage: "a", FromTemplate: "base"}, cove.Invalid},
		"a bad step":          {cove.BuildOrder{FromImage: "a", Steps: []cove.BuildStep{{Type: "BAD"}}}, cove.Invalid},
		"no files":            {cove.BuildOrder{FromImage: "a", Steps: []cove.BuildStep{files}}, cove.Invalid},
		"from no template":    {cove.BuildOrder{FromTemplate: "none"}, cove.NotFound},
		"from an unready one": {cove.BuildOrder{FromTemplate: "web"}, cove.NotFound},
	} {
		wantKind(t, what, b.BeginBuild(t.Context(), team, "web", build.ID, tt.order), tt.kind)
	}
	wantKind(t, "another's", b.BeginBuild(t.Context(), rival, string(template.ID), build.ID, order), cove.NotFound)
	wantKind(t, "no such build", b.BeginBuild(t.Context(), team, "web", "00000000-0000-4000-8000-000000000000", order), cove.NotFound)
	// With the files there, it begins.
	present, token, err := b.FilesUpload(t.Context(), team, "web", files.FilesHash)
	if err != nil || present {
		t.Fatalf("present %v, %v", present, err)
	}
	wantKind(t, "a bad hash", second3(b.FilesUpload(t.Context(), team, "web", "xyz")), cove.Invalid)
	wantKind(t, "a bad token", b.StoreFiles(t.Context(), "nonsense", strings.NewReader("x")), cove.Forbidden)
	if err := b.StoreFiles(t.Context(), token, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if present, _, err := b.FilesUpload(t.Context(), team, "web", files.FilesHash); err != nil || !present {
		t.Errorf("present %v, %v", present, err)
	}
	if err := b.BeginBuild(t.Context(), team, "web", build.ID, cove.BuildOrder{FromImage: "a", Steps: []cove.BuildStep{files}}); err != nil {
		t.Error(err)
	}
}

func second3[T, U any](_ T, _ U, err error) error { return err }

func TestWhatBuildsBeginWith(t *testing.T) {
	b := buildBench(t, nil)
	_, parent := built(t, b, "parent")
	for what, tt := range map[string]struct {
		order cove.BuildOrder
		check func(control.BuildJob) bool
	}{
		"an image":               {cove.BuildOrder{FromImage: "debian"}, func(j control.BuildJob) bool { return j.Parent == nil && j.Base == nil }},
		"a template":             {cove.BuildOrder{FromTemplate: "parent"}, func(j control.BuildJob) bool { return j.Parent != nil && j.Parent.ID == parent.ID }},
		"base":                   {cove.BuildOrder{FromTemplate: "base"}, func(j control.BuildJob) bool { return j.Parent != nil && j.Parent.Snapshot == "" }},
		"base's image":           {cove.BuildOrder{FromImage: "e2bdev/base:latest"}, func(j control.BuildJob) bool { return j.Parent != nil && j.Parent.Snapshot == "" }},
		"a Dockerfile":           {cove.BuildOrder{Dockerfile: &cove.Dockerfile{Text: "debian alpine"}}, func(j control.BuildJob) bool { return j.Parent == nil && j.Base == nil }},
		"a Dockerfile with base": {cove.BuildOrder{Dockerfile: &cove.Dockerfile{Text: "debian e2bdev/base"}}, func(j control.BuildJob) bool { return j.Parent == nil && j.Base != nil && j.Base.Snapshot == "" }},
	} {
		t.Run(what, func(t *testing.T) {
			template, build := requestBuild(t, b, "web")
			if err := b.BeginBuild(t.Context(), team, "web", build.ID, tt.order); err != nil {
				t.Fatal(err)
			}
			ended(t, b, template.ID, build.ID)
			b.templates.mu.Lock()
			defer b.templates.mu.Unlock()
			if job := b.templates.jobs[len(b.templates.jobs)-1]; !tt.check(job) {
				t.Errorf("parent = %+v, base = %+v", job.Parent, job.Base)
			}
		})
	}
}

func TestFailedBuild(t *testing.T) {
	b := buildBench(t, nil)
	b.templates.does(func(context.Context, control.BuildJob) error {
		return &cove.StepError{Step: "3", Err: cove.E(cove.Invalid, "test", nil, "exit status 7")}
	})
	template, build := requestBuild(t, b, "web")
	if err := b.BeginBuild(t.Context(), team, "web", build.ID, order); err != nil {
		t.Fatal(err)
	}
	build, log := ended(t, b, template.ID, build.ID)
	if build.Status != cove.BuildError || build.Reason != "exit status 7" || build.ReasonStep != "3" || !strings.Contains(log, "3:exit status 7") {
		t.Errorf("%+v\n%s", build, log)
	}
	// What was ready before stays.
	b.templates.does(nil)
	built(t, b, "web")
	b.templates.does(func(context.Context, control.BuildJob) error { return io.ErrUnexpectedEOF })
	template, build = requestBuild(t, b, "web")
	if err := b.BeginBuild(t.Context(), team, "web", build.ID, order); err != nil {
		t.Fatal(err)
	}
	if build, _ = ended(t, b, template.ID, build.ID); build.Status != cove.BuildError || strings.Contains(build.Reason, "EOF") || build.Reason == "" {
		t.Errorf("%+v", build)
	}
	if tags, err := b.TemplateTags(t.Context(), team, "web"); err != nil || len(tags) != 1 || tags[0].Build == build.ID {
		t.Errorf("tags = %+v, %v", tags, err)
	}
}

func TestBuildsWaitForTheirTurn(t *testing.T) {
	b := buildBench(t, func(c *control.Config) { c.Builds, c.TeamBuilds = 1, 2 })
	release := make(chan struct{})
	b.templates.does(func(ctx context.Context, _ control.BuildJob) error {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	template, first := requestBuild(t, b, "web", "a")
	_, second := requestBuild(t, b, "web", "b")
	for _, build := range []cove.Build{first, second} {
		if err := b.BeginBuild(t.Context(), team, "web", build.ID, order); err != nil {
			t.Fatal(err)
		}
		if got, _, err := b.BuildStatus(t.Context(), team, "web", build.ID, cove.BuildLineFilter{Limit: 1}); err != nil || got.Status != cove.BuildRunning {
			t.Errorf("%+v, %v", got, err)
		}
	}
	_, _, err := b.RequestBuild(t.Context(), team, cove.NewBuild{Name: "third"})
	wantKind(t, "a third", err, cove.Exhausted)
	if !strings.Contains(err.Error(), "maximum number of concurrent template builds (2)") {
		t.Error(err)
	}
	close(release)
	logs := ""
	for _, build := range []cove.Build{first, second} {
		got, log := ended(t, b, template.ID, build.ID)
		if got.Status != cove.BuildReady {
			t.Errorf("%+v", got)
		}
		logs += log
	}
	if strings.Count(logs, "Waiting for one of 1 builds to end") != 1 {
		t.Errorf("logs: %s", logs)
	}
}

func TestDeletedWhileItIsBuilt(t *testing.T) {
	b := buildBench(t, nil)
	began, over := make(chan struct{}), make(chan struct{})
	b.templates.does(func(ctx context.Context, _ control.BuildJob) error {
		close(began)
		<-ctx.Done()
		close(over)
		return ctx.Err()
	})
	_, build := requestBuild(t, b, "web")
	if err := b.BeginBuild(t.Context(), team, "web", build.ID, order); err != nil {
		t.Fatal(err)
	}
	<-began
	if err := b.DeleteTemplate(t.Context(), team, "web"); err != nil {
		t.Fatal(err)
	}
	<-over
	_, _, err := b.BuildStatus(t.Context(), team, "web", build.ID, cove.BuildLineFilter{Limit: 1})
	wantKind(t, "its status", err, cove.NotFound)
}

func TestRestartDuringABuild(t *testing.T) {
	s, n := records(t), &nodetest.Fake{}
	b := open(t, s, n, &builder{}, nil)
	if err := s.CreateTeam(t.Context(), cove.Team{ID: team, Name: "Acme", CreatedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	_, waiting := requestBuild(t, b, "later")
	template, running := requestBuild(t, b, "web")
	_, killed := requestBuild(t, b, "killed")
	if err := s.BeginBuild(t.Context(), killed.ID); err != nil { // as one of a server that was killed
		t.Fatal(err)
	}
	b.templates.does(func(ctx context.Context, _ control.BuildJob) error {
		<-ctx.Done()
		return ctx.Err()
	})
	if err := b.BeginBuild(t.Context(), team, "web", running.ID, order); err != nil {
		t.Fatal(err)
	}
	b.stop()
	again := open(t, s, n, &builder{}, nil)
	for template, id := range map[cove.TemplateID]cove.BuildID{template.ID: running.ID, killed.Template: killed.ID} {
		if build, _ := ended(t, again, template, id); build.Status != cove.BuildError || !strings.Contains(build.Reason, "server was stopped") {
			t.Errorf("%+v", build)
		}
	}
	if err := again.BeginBuild(t.Context(), team, "later", waiting.ID, order); err != nil {
		t.Errorf("one that waited: %v", err)
	}
}

func TestBuildThatNobodyBegins(t *testing.T) {
	b := buildBench(t, func(c *control.Config) {
		c.WaitLimit, c.SampleEvery = time.Nanosecond, time.Millisecond
		c.Now = fast()
	})
	template, build := requestBuild(t, b, "web")
	if build, _ := ended(t, b, template.ID, build.ID); build.Status != cove.BuildError || !strings.Contains(build.Reason, "nobody began") {
		t.Errorf("%+v", build)
	}
}

// fast returns a clock on which each look is a minute after the one before.
func fast() func() time.Time {
	var mu sync.Mutex
	now := time.Now()
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Minute)
		return now
	}
}

func TestBuildThatTalksTooMuch(t *testing.T) {
	b := buildBench(t, nil)
	b.templates.does(func(_ context.Context, job control.BuildJob) error {
		for range 100 {
			job.Log(cove.LogInfo, "1", strings.Repeat("x", 1<<20))
		}
		return &cove.StepError{Step: "1", Err: cove.E(cove.Invalid, "test", nil, "it failed")}
	})
	template, build := requestBuild(t, b, "web")
	if err := b.BeginBuild(t.Context(), team, "web", build.ID, order); err != nil {
		t.Fatal(err)
	}
	if _, log := ended(t, b, template.ID, build.ID); len(log) > 9<<20 || !strings.Contains(log, "1:The log is full") || !strings.HasSuffix(log, "1:it failed\n") {
		t.Errorf("a log of %d bytes that ends %q", len(log), log[max(0, len(log)-100):])
	}
}

// snapshotOf is the snapshot that a build of templates names.
func snapshotOf(id cove.BuildID) cove.SnapshotID {
	return cove.SnapshotID("s" + strings.ReplaceAll(string(id), "-", ""))
}
