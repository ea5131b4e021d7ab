package control_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/control"
	"github.com/cove-sandbox/cove/internal/node/nodetest"
	"github.com/cove-sandbox/cove/internal/store"
	"github.com/cove-sandbox/cove/internal/store/sqlite"
)

const team, rival = cove.TeamID("team-1"), cove.TeamID("team-2")

// tokens derives recognisable secrets.
type tokens struct{}

func (tokens) Envd(id cove.SandboxID) string { return "token-" + string(id) }

func (tokens) Equal(a, b string) bool { return a == b }

func (tokens) Upload(team cove.TeamID, hash string, _ time.Time) string {
	return string(team) + " " + hash
}

func (tokens) Uploader(token string, _ time.Time) (cove.TeamID, string, bool) {
	team, hash, ok := strings.Cut(token, " ")
	return cove.TeamID(team), hash, ok
}

// builder is a base builder whose build takes as long as the test wants.
type builder struct {
	mu     sync.Mutex
	found  *cove.Build // what Find returns
	fail   error
	hold   chan struct{} // nil: builds at once
	builds int
}

func (b *builder) Find(context.Context) (cove.Build, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.found == nil {
		return cove.Build{}, false, nil
	}
	return *b.found, true, nil
}

func (b *builder) Build(ctx context.Context, id cove.BuildID) (cove.Build, error) {
	b.mu.Lock()
	b.builds++
	hold, fail := b.hold, b.fail
	b.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return cove.Build{}, ctx.Err()
		}
	}
	return cove.Build{ID: id, Envd: "1.2.3", Setup: cove.Setup{User: "user"}}, fail
}

// bench is a control with its parts.
type bench struct {
	*control.Control
	store     store.Store
	node      *nodetest.Fake
	base      *builder
	templates *templates
	uploads   *uploads
	stop      func()
}

// open starts a control over parts that may have served another before.
func open(t *testing.T, s store.Store, n *nodetest.Fake, b *builder, change func(*control.Config)) *bench {
	t.Helper()
	templates, uploads := &templates{}, &uploads{}
	cfg := control.Config{
		Store: s, Node: n, Base: b, Templates: templates, Uploads: uploads, Tokens: tokens{}, EnvdVersion: "1.2.3", Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	c, err := control.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	select {
	case <-c.Ready():
	case err := <-done:
		t.Fatal("run ended early:", err)
	}
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return &bench{Control: c, store: s, node: n, base: b, templates: templates, uploads: uploads, stop: stop}
}

func records(t *testing.T) store.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func fresh(t *testing.T) *bench { return open(t, records(t), &nodetest.Fake{}, &builder{}, nil) }

func request() cove.NewSandbox {
	return cove.NewSandbox{Template: "base", Timeout: 5 * time.Minute, Secure: true,
		Metadata: map[string]string{"a": "b"}, Env: map[string]string{"K": "v"}}
}

func create(t *testing.T, b *bench) cove.Sandbox {
	t.Helper()
	sb, err := b.CreateSandbox(t.Context(), team, request())
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	return sb
}

func recorded(t *testing.T, b *bench) []cove.Sandbox {
	t.Helper()
	all, err := b.store.NodeSandboxes(t.Context(), cove.LocalNode)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func wantKind(t *testing.T, what string, err error, kind cove.Kind) {
	t.Helper()
	if !cove.Is(err, kind) {
		t.Errorf("%s: %v, want %v", what, err, kind)
	}
}

func TestCreateTellsTheNodeEverything(t *testing.T) {
	b := fresh(t)
	before := time.Now()
	sb := create(t, b)
	spec, ok := b.node.Spec(sb.ID)
	if !ok {
		t.Fatal("the node runs nothing")
	}
	if spec.Token != "token-"+string(sb.ID) || spec.Env["K"] != "v" || spec.User != "user" || !spec.Internet ||
		spec.Build != sb.Build || spec.Resources != sb.Resources || spec.Resources.CPUs == 0 {
		t.Errorf("spec = %+v", spec)
	}
	if life := sb.EndAt.Sub(sb.StartedAt); life != 5*time.Minute || sb.StartedAt.Before(before.Truncate(time.Microsecond)) || !spec.EndAt.Equal(sb.EndAt) {
		t.Errorf("life = %v, ends %v, on the node %v", life, sb.EndAt, spec.EndAt)
	}
	if sb.State != cove.Running || sb.Alias != "base" || sb.Envd != "1.2.3" || sb.Metadata["a"] != "b" {
		t.Errorf("sandbox = %+v", sb)
	}
	got, err := b.Sandbox(t.Context(), team, sb.ID)
	if err != nil || got.ID != sb.ID {
		t.Errorf("asked again: %+v, %v", got, err)
	}
}

func TestCreateWithoutInternetOrToken(t *testing.T) {
	b := fresh(t)
	no := false
	req := request()
	req.Internet, req.Secure = &no, false
	sb, err := b.CreateSandbox(t.Context(), team, req)
	if err != nil {
		t.Fatal(err)
	}
	if spec, _ := b.node.Spec(sb.ID); spec.Internet || spec.Token != "" {
		t.Errorf("spec = %+v", spec)
	}
}

func TestFailedCreateLeavesNoRecord(t *testing.T) {
	b := fresh(t)
	cause := cove.E(cove.Exhausted, "test", nil, "the host is full")
	b.node.Fail = func(cove.Spec) error { return cause }
	_, err := b.CreateSandbox(t.Context(), team, request())
	if !errors.Is(err, cause) || !cove.Is(err, cove.Exhausted) {
		t.Errorf("err = %v", err)
	}
	if left := recorded(t, b); len(left) != 0 {
		t.Errorf("records left: %v", left)
	}
}

func TestTemplateReferences(t *testing.T) {
	b := fresh(t)
	sb := create(t, b)
	for name, kind := range map[string]cove.Kind{
		"nosuch": cove.NotFound, "base:v2": cove.NotFound, "other/base": cove.NotFound, "not a name": cove.Invalid, "": cove.Invalid,
	} {
		req := request()
		req.Template = name
		_, err := b.CreateSandbox(t.Context(), team, req)
		wantKind(t, name, err, kind)
	}
	for _, name := range []string{"base", "BASE", "base:default", string(sb.Template)} {
		req := request()
		req.Template = name
		if _, err := b.CreateSandbox(t.Context(), team, req); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestOthersCannotTouchASandbox(t *testing.T) {
	b := fresh(t)
	sb := create(t, b)
	_, err := b.Sandbox(t.Context(), rival, sb.ID)
	wantKind(t, "get", err, cove.NotFound)
	if _, msg := cove.Describe(err); msg != `Sandbox "`+string(sb.ID)+`" doesn't exist or you don't have access to it` {
		t.Errorf("message = %q", msg)
	}
	wantKind(t, "kill", b.KillSandbox(t.Context(), rival, sb.ID), cove.NotFound)
	wantKind(t, "timeout", b.SetTimeout(t.Context(), rival, sb.ID, 0), cove.NotFound)
	_, err = b.ExtendSandbox(t.Context(), rival, sb.ID, time.Hour)
	wantKind(t, "extend", err, cove.NotFound)
	if _, ok := b.node.Spec(sb.ID); !ok {
		t.Error("it was ended")
	}
}

func TestKill(t *testing.T) {
	b := fresh(t)
	sb := create(t, b)
	if err := b.KillSandbox(t.Context(), team, sb.ID); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.node.Spec(sb.ID); ok || len(recorded(t, b)) != 0 {
		t.Error("something is left")
	}
	wantKind(t, "the second kill", b.KillSandbox(t.Context(), team, sb.ID), cove.NotFound)
}

func TestTimeouts(t *testing.T) {
	b := fresh(t)
	sb := create(t, b)
	if got, err := b.ExtendSandbox(t.Context(), team, sb.ID, time.Minute); err != nil || !got.EndAt.Equal(sb.EndAt) {
		t.Errorf("extending to less moved the end: %v, %v", got.EndAt, err)
	}
	if got, err := b.ExtendSandbox(t.Context(), team, sb.ID, time.Hour); err != nil || !got.EndAt.After(sb.EndAt) {
		t.Errorf("extending did not move the end: %v, %v", got.EndAt, err)
	}
	if err := b.SetTimeout(t.Context(), team, sb.ID, time.Minute); err != nil {
		t.Fatal(err)
	}
	got, err := b.Sandbox(t.Context(), team, sb.ID)
	spec, _ := b.node.Spec(sb.ID)
	if err != nil || !got.EndAt.Before(sb.EndAt) || !spec.EndAt.Equal(got.EndAt) {
		t.Errorf("ends %v, on the node %v (%v)", got.EndAt, spec.EndAt, err)
	}
}

func TestLongestLife(t *testing.T) {
	b := open(t, records(t), &nodetest.Fake{}, &builder{}, func(c *control.Config) { c.MaxTimeout = time.Hour })
	req := request()
	req.Timeout = time.Hour + time.Second
	_, err := b.CreateSandbox(t.Context(), team, req)
	wantKind(t, "create", err, cove.Invalid)
	if _, msg := cove.Describe(err); !strings.Contains(msg, "1h0m0s") {
		t.Errorf("the limit is not named: %q", msg)
	}
	sb := create(t, b)
	wantKind(t, "timeout", b.SetTimeout(t.Context(), team, sb.ID, 2*time.Hour), cove.Invalid)
}

func TestEndedSandboxLosesItsRecord(t *testing.T) {
	b := fresh(t)
	crashed, expired := create(t, b), create(t, b)
	b.node.Crash(crashed.ID) // the fake tells before it returns
	if err := b.node.SetEnd(t.Context(), expired.ID, expired.Execution, time.Now()); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(10 * time.Second)
	for len(recorded(t, b)) > 0 {
		select {
		case <-deadline:
			t.Fatalf("records left: %v", recorded(t, b))
		default:
		}
	}
}

func TestRestartReconciles(t *testing.T) {
	b := fresh(t)
	kept, lost, half, orphan := create(t, b), create(t, b), create(t, b), create(t, b)
	b.stop()
	ctx := t.Context()
	// While no server watched: one crashed, one was being killed, one lost its
	// record, and one had its end moved on record only.
	b.node.Crash(lost.ID)
	if _, err := b.store.Transition(ctx, half.ID, half.Execution, store.Change{To: cove.Killing}); err != nil {
		t.Fatal(err)
	}
	if err := b.store.DeleteSandbox(ctx, orphan.ID, orphan.Execution); err != nil {
		t.Fatal(err)
	}
	end := kept.EndAt.Add(time.Hour)
	if _, err := b.store.MoveEnd(ctx, team, kept.ID, end, false); err != nil {
		t.Fatal(err)
	}
	again := open(t, b.store, b.node, b.base, nil)
	if all := recorded(t, again); len(all) != 1 || all[0].ID != kept.ID {
		t.Errorf("records = %v", all)
	}
	for _, gone := range []cove.SandboxID{half.ID, orphan.ID} {
		if _, ok := b.node.Spec(gone); ok {
			t.Errorf("%s still runs", gone)
		}
	}
	if spec, ok := b.node.Spec(kept.ID); !ok || !spec.EndAt.Equal(end) {
		t.Errorf("kept: %v, ends %v, want %v", ok, spec.EndAt, end)
	}
}

func TestCreateWaitsForTheBaseTemplate(t *testing.T) {
	hold := make(chan struct{})
	b := open(t, records(t), &nodetest.Fake{}, &builder{hold: hold}, nil)
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := b.CreateSandbox(short, team, request())
	wantKind(t, "while it is built", err, cove.Unavailable)
	result := make(chan error, 1)
	go func() {
		_, err := b.CreateSandbox(t.Context(), team, request())
		result <- err
	}()
	close(hold)
	if err := <-result; err != nil {
		t.Errorf("once it is built: %v", err)
	}
}

func TestFailedBaseBuildIsTold(t *testing.T) {
	base := &builder{fail: cove.E(cove.Unavailable, "test", nil, "mmdebstrap is missing: apt-get install mmdebstrap")}
	b := open(t, records(t), &nodetest.Fake{}, base, nil)
	_, err := b.CreateSandbox(t.Context(), team, request())
	if _, msg := cove.Describe(err); !strings.Contains(msg, "apt-get install mmdebstrap") {
		t.Errorf("message = %q", msg)
	}
	b.stop()
	base.fail = nil // the operator installed it and restarted
	create(t, open(t, b.store, b.node, base, nil))
}

func TestBaseOnDiskIsUsedAgain(t *testing.T) {
	b := fresh(t)
	first := create(t, b)
	b.stop()
	b.base.found = &cove.Build{ID: first.Build, Envd: "1.2.3", Setup: cove.Setup{User: "user"}}
	again := open(t, b.store, b.node, b.base, nil)
	if sb := create(t, again); sb.Build != first.Build || b.base.builds != 1 {
		t.Errorf("build = %s after %d builds, want %s after 1", sb.Build, b.base.builds, first.Build)
	}
	again.stop()
	// The records are new, the files are not: the build on disk is recorded.
	if sb := create(t, open(t, records(t), &nodetest.Fake{}, b.base, nil)); sb.Build != first.Build || b.base.builds != 1 {
		t.Errorf("build = %s after %d builds", sb.Build, b.base.builds)
	}
}

func TestBuildThatWasFinishedButNotRecorded(t *testing.T) {
	s := records(t)
	ctx := t.Context()
	if err := s.CreateTemplate(ctx, cove.Template{ID: "t1", Alias: cove.BaseTemplate, Public: true, CreatedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := s.CreateBuild(ctx, cove.Build{ID: "b1", Template: "t1", Status: cove.BuildRunning, CreatedAt: time.Now(),
		Resources: cove.Resources{CPUs: 1, MemoryMB: 128, DiskMB: 128}}); err != nil {
		t.Fatal(err)
	}
	base := &builder{found: &cove.Build{ID: "b1", Envd: "1.2.3", Setup: cove.Setup{User: "user"}}}
	if sb := create(t, open(t, s, &nodetest.Fake{}, base, nil)); sb.Build != "b1" || base.builds != 0 {
		t.Errorf("build = %s after %d builds, want the one on disk", sb.Build, base.builds)
	}
}
