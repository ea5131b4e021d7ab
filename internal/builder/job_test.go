package builder_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder"
	"github.com/cove-sandbox/cove/internal/id"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/node/nodetest"
	"github.com/cove-sandbox/cove/internal/store/sqlite"
)

const team = cove.TeamID("11111111-1111-4111-8111-111111111111")

// A site is where templates are built with sandboxes that are none: what runs in
// them is what the test says.
type site struct {
	*builder.Templates
	roots   *builder.Builder
	node    *nodetest.Fake
	records *sqlite.Store
	uploads *builder.Uploads

	mu       sync.Mutex
	commands []string                                         // what ran; guarded by mu
	answer   func(ctx context.Context, c builder.Command) int // exit code; guarded by mu, nil: 0
	log      []string                                         // guarded by mu
	held     map[cove.SnapshotID]bool                         // guarded by mu
}

func newSite(t *testing.T, change func(*builder.TemplatesConfig)) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{node: &nodetest.Fake{}, uploads: builder.NewUploads(filepath.Join(dir, "files")), held: map[cove.SnapshotID]bool{}}
	s.roots = builder.New(builder.Config{
		TemplatesDir: filepath.Join(dir, "templates"), CacheDir: filepath.Join(dir, "cache"), Host: filepath.Join(dir, "host"), Log: slog.New(slog.DiscardHandler),
	})
	var err error
	if s.records, err = sqlite.Open(t.Context(), filepath.Join(dir, "db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.records.Close() })
	image := filepath.Join(dir, "image.tar")
	if err := os.WriteFile(image, archive(t, "bin/sh", "etc/passwd"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.node.Layer = func(cove.SandboxID) []byte { return archive(t, "./written") }
	cfg := builder.TemplatesConfig{
		Roots: s.roots, Node: s.node, Records: s.records, Files: s.uploads, Daemon: "daemon 1", Log: slog.New(slog.DiscardHandler),
		Sources: builder.ImageSources{Local: map[string]string{"image:*": image}},
		Connect: func(string, func(context.Context) (net.Conn, error)) builder.Guest { return (*guest)(s) },
	}
	if change != nil {
		change(&cfg)
	}
	if s.Templates, err = builder.NewTemplates(cfg); err != nil {
		t.Fatal(err)
	}
	return s
}

// archive makes a tar of small files.
func archive(t *testing.T, names ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range names {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: 1, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// guest is the daemon in a site's sandboxes.
type guest site

func (g *guest) Run(ctx context.Context, c builder.Command, said func(bool, []byte)) (int, error) {
	text := c.Args[len(c.Args)-1]
	if c.Args[0] == "/bin/sh" { // one of ours
		text = "prepare"
		if len(c.Args) > 3 {
			text = "as root: " + strings.Join(c.Args[4:], " ")
		}
	}
	g.mu.Lock()
	g.commands = append(g.commands, text)
	answer := g.answer
	g.mu.Unlock()
	said(false, []byte("said by "+text+"\n"))
	if text == "whoami as nobody" {
		return 0, errors.New("unauthenticated: invalid username: 'root123'")
	}
	code := 0
	if answer != nil {
		code = answer(ctx, c)
	}
	return code, ctx.Err()
}

func (g *guest) Copy(_ context.Context, o builder.CopyOrder, archive io.Reader, size int64) error {
	content, err := io.ReadAll(archive)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.commands = append(g.commands, fmt.Sprintf("copy %s %s %s %s (%d of %d)", o.Source, o.Dest, o.User, o.Mode, len(content), size))
	return err
}

func (g *guest) Close() {}

func (s *site) ran() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ran := s.commands
	s.commands = nil
	return ran
}

// build builds, and records what is ready as control does.
func (s *site) build(t *testing.T, order cove.BuildOrder, parent *cove.Build) (cove.Build, error) {
	t.Helper()
	return s.buildIn(t, t.Context(), order, parent)
}

func (s *site) buildIn(t *testing.T, ctx context.Context, order cove.BuildOrder, parent *cove.Build) (cove.Build, error) {
	t.Helper()
	return s.buildJob(t, ctx, builder.Job{Order: order, Parent: parent})
}

// buildOn builds by a Dockerfile with a base template.
func (s *site) buildOn(t *testing.T, order cove.BuildOrder, base *cove.Build) (cove.Build, error) {
	t.Helper()
	return s.buildJob(t, t.Context(), builder.Job{Order: order, Base: base})
}

func (s *site) buildJob(t *testing.T, ctx context.Context, job builder.Job) (cove.Build, error) {
	t.Helper()
	s.log = nil
	template, err := s.records.RequestBuild(t.Context(), cove.Template{ID: id.Template(), Team: team, Alias: "web", CreatedAt: time.Now()},
		cove.Build{ID: cove.BuildID(id.UUID()), Tags: []string{"default"}, Resources: cove.Resources{CPUs: 1, MemoryMB: 128, DiskMB: 64}, CreatedAt: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.records.LatestBuild(t.Context(), template.ID, cove.BuildWaiting)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.records.BeginBuild(t.Context(), b.ID); err != nil {
		t.Fatal(err)
	}
	job.Team, job.Build = team, b
	job.Log = func(_ cove.LogLevel, step, message string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.log = append(s.log, step+": "+message)
	}
	job.Hold = func(id cove.SnapshotID) func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held[id] = true
		return func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.held, id)
		}
	}
	built, err := s.Build(ctx, job)
	b.Status, b.EndedAt = cove.BuildError, time.Now()
	if err == nil {
		b = built
		b.EndedAt = time.Now()
	}
	if uerr := s.records.UpdateBuild(t.Context(), b); uerr != nil {
		t.Fatal(uerr)
	}
	s.wantNothingHeld(t)
	return built, err
}

// wantNothingHeld sees that a build that has ended holds nothing.
func (s *site) wantNothingHeld(t *testing.T) {
	t.Helper()
	running, err := s.node.List(t.Context())
	if err != nil || len(running) > 0 || len(s.held) > 0 || len(s.InUse()) > 0 {
		t.Errorf("still there: %v, %v, %v, %v", running, s.held, s.InUse(), err)
	}
	for _, pattern := range []string{"cache/blobs-*", "cache/written-*", "templates/.*"} {
		left, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(s.roots.Dir("x"))), pattern))
		if len(left) > 0 {
			t.Errorf("left on the disk: %v", left)
		}
	}
}

func run(commands ...string) (steps []cove.BuildStep) {
	for _, c := range commands {
		steps = append(steps, cove.BuildStep{Type: cove.RunStep, Args: []string{c}})
	}
	return steps
}

func TestTemplateFromAnImage(t *testing.T) {
	s := newSite(t, nil)
	order := cove.BuildOrder{FromImage: "image:1", Steps: run("one", "two"), Start: "serve", Ready: "ready"}
	s.answer = func(ctx context.Context, c builder.Command) int {
		if c.GoesOn {
			<-ctx.Done() // it runs until nobody listens any more
		}
		return 0
	}
	b, err := s.build(t, order, nil)
	if err != nil {
		t.Fatal(err, s.log)
	}
	if got := s.ran(); !slices.Equal(slices.Sorted(slices.Values(got)), []string{"one", "prepare", "ready", "serve", "two"}) {
		t.Errorf("ran %v", got)
	}
	if b.Snapshot == "" || b.Root == "" || b.Key == "" || b.Start != "serve" || b.User != "user" || b.Status != cove.BuildReady {
		t.Errorf("%+v", b)
	}
	for _, want := range []string{"1: [builder 1/2] RUN one", "2: [builder 2/2] [stdout]: said by two", "finalize: Running start command: serve", "finalize: [start] [stdout]: said by serve"} {
		if !slices.Contains(s.log, want) {
			t.Errorf("the log has no %q: %q", want, s.log)
		}
	}
	if _, err := s.roots.Manifest(t.Context(), b.Root); err != nil {
		t.Error(err)
	}
	saved, err := s.node.Snapshots(t.Context())
	if err != nil || len(saved) != 4 || !slices.Contains(saved, b.Snapshot) { // three layers and the result
		t.Errorf("snapshots %v, %v", saved, err)
	}

	// The same again takes what is there.
	again, err := s.build(t, order, nil)
	if err != nil || again.Snapshot != b.Snapshot || again.Root != b.Root || len(s.ran()) > 0 || again.ID == b.ID {
		t.Errorf("%+v, %v", again, err)
	}
	// Another end begins where the two part.
	order.Steps = run("one", "three")
	if _, err = s.build(t, order, nil); err != nil {
		t.Fatal(err)
	}
	if got := s.ran(); slices.Contains(got, "one") || !slices.Contains(got, "three") {
		t.Errorf("ran %v", got)
	}
	// Another start command needs no step, and no other file system.
	order.Start = "serve more"
	other, err := s.build(t, order, nil)
	if err != nil || other.Snapshot == b.Snapshot {
		t.Fatal(err)
	}
	if got := s.ran(); len(got) != 2 {
		t.Errorf("ran %v", got)
	}
	// By force everything is done.
	order.Force = true
	if _, err = s.build(t, order, nil); err != nil {
		t.Fatal(err)
	}
	if got := s.ran(); len(got) != 5 {
		t.Errorf("ran %v", got)
	}
}

func TestTemplateFromATemplate(t *testing.T) {
	s := newSite(t, nil)
	parent, err := s.build(t, cove.BuildOrder{FromImage: "image:1", Steps: []cove.BuildStep{
		{Type: cove.EnvStep, Args: []string{"A", "1"}}, {Type: cove.WorkdirStep, Args: []string{"/app"}}, {Type: cove.UserStep, Args: []string{"root"}},
	}}, nil)
	if err != nil {
		t.Fatal(err, s.log)
	}
	if got := s.ran(); !slices.Equal(got, []string{"prepare", "as root: /app user", "as root: root"}) {
		t.Errorf("ran %v", got)
	}
	seen := builder.Command{}
	s.answer = func(_ context.Context, c builder.Command) int { seen = c; return 0 }
	child, err := s.build(t, cove.BuildOrder{FromTemplate: "web", Steps: run("work")}, &parent)
	if err != nil {
		t.Fatal(err, s.log)
	}
	if got := s.ran(); !slices.Equal(got, []string{"work"}) || seen.Dir != "/app" || seen.User != "root" || seen.Env["A"] != "1" {
		t.Errorf("ran %v with %+v", got, seen)
	}
	if child.Workdir != "/app" || !maps.Equal(child.BuildEnv, map[string]string{"A": "1"}) || child.Root == parent.Root {
		t.Errorf("%+v", child)
	}
	// Nothing on top: it is the parent's file system.
	if child, err = s.build(t, cove.BuildOrder{FromTemplate: "web"}, &parent); err != nil || child.Root != parent.Root || child.Snapshot == parent.Snapshot {
		t.Errorf("%+v, %v", child, err)
	}
}

func TestTemplateFromASnapshot(t *testing.T) {
	s := newSite(t, nil)
	parent, err := s.build(t, cove.BuildOrder{FromImage: "image:1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec := cove.Spec{ID: "i1", Execution: "x1", Build: parent.Root, EndAt: time.Now().Add(time.Hour)}
	if err := s.node.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if _, err := s.node.Pause(t.Context(), "i1", "x1", node.Save{Snapshot: "s1"}); err != nil {
		t.Fatal(err)
	}
	if err := s.node.Kill(t.Context(), "i1", "x1"); err != nil {
		t.Fatal(err)
	}
	kept := cove.Build{ID: cove.BuildID(id.UUID()), Snapshot: "s1", Origin: "i1", Root: parent.Root, Setup: cove.Setup{User: "user"}}
	s.ran()
	child, err := s.build(t, cove.BuildOrder{FromTemplate: "snap", Steps: run("work")}, &kept)
	if err != nil || !slices.Equal(s.ran(), []string{"work"}) || child.Root == parent.Root {
		t.Errorf("%+v, %v", child, err)
	}
	kept.Root = ""
	kept.Snapshot = "s2"
	if _, err = s.build(t, cove.BuildOrder{FromTemplate: "snap"}, &kept); !cove.Is(err, cove.Conflict) {
		t.Errorf("of an older server: %v", err)
	}
}

func TestFilesOfABuild(t *testing.T) {
	s := newSite(t, nil)
	hash := strings.Repeat("a", 64)
	order := cove.BuildOrder{FromImage: "image:1", Steps: []cove.BuildStep{
		{Type: cove.WorkdirStep, Args: []string{"/app"}}, {Type: cove.CopyStep, Args: []string{"src", "dest", "", "644"}, FilesHash: hash},
	}}
	_, err := s.build(t, order, nil)
	wantStep(t, err, "2", "were not uploaded")
	if err := s.uploads.Store(t.Context(), team, hash, strings.NewReader("archive")); err != nil {
		t.Fatal(err)
	}
	s.ran()
	if _, err := s.build(t, order, nil); err != nil {
		t.Fatal(err)
	}
	if got := s.ran(); !slices.Equal(got, []string{"copy src dest user 644 (7 of 7)"}) {
		t.Errorf("ran %v", got)
	}
}

// wantStep demands that a build failed at a step for a reason.
func wantStep(t *testing.T, err error, step string, words ...string) {
	t.Helper()
	s, ok := errors.AsType[*cove.StepError](err)
	if !ok || s.Step != step {
		t.Errorf("err = %v, want one of step %q", err, step)
		return
	}
	_, said := cove.Describe(err)
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("it says %q, and not %q", said, w)
		}
	}
}

func TestWhatFails(t *testing.T) {
	s := newSite(t, func(c *builder.TemplatesConfig) { c.ReadyLimit = 50 * time.Millisecond })
	from := func(order cove.BuildOrder) error {
		t.Helper()
		order.FromImage = "image:1"
		_, err := s.build(t, order, nil)
		return err
	}
	s.answer = func(_ context.Context, c builder.Command) int {
		if slices.Contains(c.Args, "bad") {
			return 7
		}
		return 0
	}
	wantStep(t, from(cove.BuildOrder{Steps: run("good", "bad")}), "2", "failed to run command 'bad': exit status 7", "said by bad")
	wantStep(t, from(cove.BuildOrder{Steps: run("whoami as nobody")}), "1", "command failed: unauthenticated: invalid username: 'root123'")
	wantStep(t, from(cove.BuildOrder{Start: "bad", Ready: "bad"}), cove.FinalStep, "start command ended before it was ready", "exit status 7")
	wantStep(t, from(cove.BuildOrder{Ready: "bad"}), cove.FinalStep, "not ready after 50ms", "'bad'")
	if _, err := s.build(t, cove.BuildOrder{FromImage: "nowhere:1/x"}, nil); err == nil {
		t.Error("no error")
	}
	s.node.FailPause = func(cove.SandboxID) error { return cove.E(cove.NoSpace, "test", nil, "the disk is full") }
	wantStep(t, from(cove.BuildOrder{Steps: run("other")}), "1", "disk is full")
	s.node.FailPause = nil
	// One that starts no more is never ready.
	s.node.Fail = func(spec cove.Spec) error {
		if spec.Snapshot != "" && !s.isLayer(t, spec.Snapshot) {
			return cove.E(cove.Internal, "test", nil, "it does not start")
		}
		return nil
	}
	before, err := s.node.Snapshots(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantStep(t, from(cove.BuildOrder{Start: "unseen"}), cove.FinalStep, "no sandbox of it starts")
	if after, err := s.node.Snapshots(t.Context()); err != nil || len(after) != len(before) {
		t.Errorf("snapshots: %d, then %d, %v", len(before), len(after), err)
	}
}

// isLayer reports whether a snapshot is on record, as layers are and the result
// of a build that has not ended is not.
func (s *site) isLayer(t *testing.T, id cove.SnapshotID) bool {
	kept, err := s.records.KeptSnapshots(t.Context())
	if err != nil {
		t.Error(err)
	}
	return slices.Contains(kept, id)
}

func TestBuildIsBrokenOff(t *testing.T) {
	s := newSite(t, func(c *builder.TemplatesConfig) { c.StepLimit = 50 * time.Millisecond })
	hang := func(ctx context.Context, c builder.Command) int {
		if slices.Contains(c.Args, "hang") {
			<-ctx.Done()
		}
		return 0
	}
	s.answer = hang
	_, err := s.build(t, cove.BuildOrder{FromImage: "image:1", Steps: run("hang")}, nil)
	wantStep(t, err, "1", "took too long", "step 1")
	ctx, cancel := context.WithCancel(t.Context())
	s.answer = func(ctx context.Context, c builder.Command) int {
		if slices.Contains(c.Args, "hang") {
			cancel()
		}
		return hang(ctx, c)
	}
	if _, err := s.buildIn(t, ctx, cove.BuildOrder{FromImage: "image:1", Steps: run("hang")}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}
