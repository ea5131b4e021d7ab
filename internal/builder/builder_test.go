package builder_test

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder"
	"github.com/erofs/go-erofs"
	"github.com/google/go-cmp/cmp"
)

const buildID = cove.BuildID("11111111-2222-4333-8444-555555555555")

// A bench is a Builder on a made-up machine whose mmdebstrap copies an archive.
type bench struct {
	*builder.Builder
	templates, cache, host string

	runs     string // gets a line each time the tool runs
	progress []builder.Progress
}

func newBench(t *testing.T) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{
		templates: filepath.Join(dir, "templates"), cache: filepath.Join(dir, "cache"),
		host: filepath.Join(dir, "host"), runs: filepath.Join(dir, "runs"),
	}
	b.write(t, "usr/share/keyrings/debian-archive-keyring.gpg", "")
	b.Builder = builder.New(builder.Config{
		TemplatesDir: b.templates, CacheDir: b.cache, Host: b.host, Log: slog.New(slog.DiscardHandler),
	})
	tree := filepath.Join(dir, "debian.tar")
	writeTree(t, tree)
	b.tool(t, `echo 'I: extracting archives...'
for a; do case "$a" in */out.tar) cp '`+tree+`' "$a";; esac; done`)
	return b
}

func (b *bench) write(t *testing.T, name, data string) {
	t.Helper()
	name = filepath.Join(b.host, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tool replaces mmdebstrap by a script.
func (b *bench) tool(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	text := "#!/bin/sh\necho run >> '" + b.runs + "'\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(dir, "mmdebstrap"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "apt-config"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
}

func (b *bench) ran() int {
	data, _ := os.ReadFile(b.runs) // not there: no run yet
	return strings.Count(string(data), "run\n")
}

func (b *bench) build(ctx context.Context) (builder.Manifest, error) {
	b.progress = nil
	return b.BuildBase(ctx, buildID, func(p builder.Progress) { b.progress = append(b.progress, p) })
}

// writeTree writes what stands for an installed system. It is big enough for
// progress to be reported.
func writeTree(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	for _, e := range []struct {
		name, data string
		uid        int
	}{
		{"./usr/lib/big", strings.Repeat("x", 9<<20), 0},
		{"./etc/profile", "debian's", 0},
		{"./etc/skel/.bash_logout", "clear_console", 0},
		{"./home/user/.bash_logout", "clear_console", 1000},
		{"./home/user/.bashrc", "#", 1000},
		{"./etc/resolv.conf", "nameserver of the host", 0},
	} {
		h := &tar.Header{Name: e.name, Size: int64(len(e.data)), Mode: 0o644, Uid: e.uid, Gid: e.uid}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) image(t *testing.T) fs.FS {
	t.Helper()
	f, err := os.Open(filepath.Join(b.Dir(buildID), builder.RootfsFile))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	fsys, err := erofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	return fsys
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestBuildBase(t *testing.T) {
	b := newBench(t)
	if _, err := b.FindBase(t.Context()); !cove.Is(err, cove.NotFound) {
		t.Errorf("found before it was built: %v", err)
	}
	m, err := b.build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m.Build != buildID || m.Alias != "base" || m.User != "user" || m.Workdir != "/home/user" || m.Created.IsZero() {
		t.Errorf("manifest %+v", m)
	}
	st, err := os.Stat(filepath.Join(b.Dir(buildID), builder.RootfsFile))
	if err != nil || st.Size() != m.Rootfs.Bytes {
		t.Errorf("the manifest says %d bytes; %v, %v", m.Rootfs.Bytes, st, err)
	}
	for _, find := range []func() (builder.Manifest, error){
		func() (builder.Manifest, error) { return b.FindBase(t.Context()) },
		func() (builder.Manifest, error) { return b.Manifest(t.Context(), buildID) },
		func() (builder.Manifest, error) { return b.build(t.Context()) },
	} {
		got, err := find()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("found another manifest (-built +found):\n%s", diff)
		}
	}
	if b.ran() != 1 {
		t.Errorf("the tool ran %d times", b.ran())
	}
	if left := list(t, b.cache); len(left) > 0 {
		t.Errorf("left in the cache: %v", left)
	}
}

func TestBuildBaseFiles(t *testing.T) {
	b := newBench(t)
	if _, err := b.build(t.Context()); err != nil {
		t.Fatal(err)
	}
	fsys := b.image(t)
	for name, want := range map[string]string{
		"etc/profile": "export PATH=", "etc/sudoers.d/user": "NOPASSWD", "etc/pip.conf": "break-system-packages",
		"home/user/.profile": ".bashrc", "home/user/.bashrc": "#", "etc/machine-id": "",
	} {
		data, err := fs.ReadFile(fsys, name)
		if err != nil || !strings.Contains(string(data), want) {
			t.Errorf("%s: %q, %v; want %q in it", name, data, err, want)
		}
	}
	for _, name := range []string{"home/user/.bash_logout", "etc/skel/.bash_logout", "etc/environment", "etc/npmrc"} {
		if _, err := fs.Stat(fsys, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there (%v)", name, err)
		}
	}
	if data, _ := fs.ReadFile(fsys, "etc/resolv.conf"); len(data) > 0 {
		t.Errorf("the host's resolv.conf is in the image: %q", data)
	}
	for name, want := range map[string]fs.FileMode{
		".cove": 0o755 | fs.ModeDir, "tmp": 0o777 | fs.ModeSticky | fs.ModeDir, "proc": 0o555 | fs.ModeDir,
		"dev/pts": 0o755 | fs.ModeDir, "etc/sudoers.d/user": 0o440,
	} {
		st, err := fs.Stat(fsys, name)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := st.Sys().(*erofs.Stat).Mode; got != want {
			t.Errorf("%s has mode %v, want %v", name, got, want)
		}
	}
	st, err := fs.Stat(fsys, "home/user/.profile")
	if err != nil || st.Sys().(*erofs.Stat).UID != 1000 {
		t.Errorf("the user's profile: %v, %v", st, err)
	}
}

// TestBuildBaseCertificates: with certificates of the host's administrator the
// programs in the image are told about them, and it is another recipe.
func TestBuildBaseCertificates(t *testing.T) {
	b := newBench(t)
	before, err := b.build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.write(t, "usr/local/share/ca-certificates/corp.crt", "certificate")
	if _, err := b.FindBase(t.Context()); !cove.Is(err, cove.NotFound) {
		t.Errorf("found the build without the certificate: %v", err)
	}
	if err := b.Remove(t.Context(), buildID); err != nil {
		t.Fatal(err)
	}
	after, err := b.build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after.Recipe == before.Recipe {
		t.Error("the recipe is the same")
	}
	fsys := b.image(t)
	for name, want := range map[string]string{
		"etc/environment": "NODE_EXTRA_CA_CERTS=/etc/ssl", "etc/profile.d/certificates.sh": "export REQUESTS_CA_BUNDLE=",
		"etc/npmrc": "cafile=", "etc/pip.conf": "cert = ", "etc/sudoers.d/certificates": "env_keep",
	} {
		if data, err := fs.ReadFile(fsys, name); err != nil || !strings.Contains(string(data), want) {
			t.Errorf("%s: %q, %v; want %q in it", name, data, err, want)
		}
	}
}

func TestBuildBaseProgress(t *testing.T) {
	b := newBench(t)
	if _, err := b.build(t.Context()); err != nil {
		t.Fatal(err)
	}
	var steps []string
	last := builder.Progress{}
	for _, p := range b.progress {
		if p.Step != last.Step {
			steps = append(steps, p.Step)
		}
		if p.N < last.N || p.N > p.Of || p.Elapsed < last.Elapsed {
			t.Errorf("%+v after %+v", p, last)
		}
		last = p
	}
	if diff := cmp.Diff([]string{"extracting archives", "merging layers", "writing the image", "finished"}, steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

func TestBuildBaseFails(t *testing.T) {
	b := newBench(t)
	b.tool(t, "echo 'I: installing essential packages...'; echo 'E: no such luck'; exit 1")
	_, err := b.build(t.Context())
	if _, msg := cove.Describe(err); !strings.Contains(msg, "installing essential packages") || strings.Contains(msg, b.cache) {
		t.Errorf("callers see %q", msg)
	}
	if err == nil || !strings.Contains(err.Error(), "no such luck") {
		t.Errorf("the log gets %v", err)
	}
	if left := list(t, b.templates); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestBuildBaseResumes: what an interrupted attempt has installed is used.
func TestBuildBaseResumes(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := b.BuildBase(ctx, buildID, func(p builder.Progress) {
		if p.Step == "writing the image" {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if left := list(t, b.templates); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := b.build(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.ran() != 1 {
		t.Errorf("the tool ran %d times", b.ran())
	}
	if first := b.progress[0]; !strings.Contains(first.Step, "earlier attempt") || first.N < 2 {
		t.Errorf("progress begins with %+v", first)
	}
}

// TestBuildBaseDamaged: an installed tree that cannot be read does not stand in
// the way for ever.
func TestBuildBaseDamaged(t *testing.T) {
	b := newBench(t)
	b.tool(t, `for a; do case "$a" in */out.tar) head -c 2000 /dev/zero | tr '\0' x > "$a";; esac; done`)
	for want := 1; want <= 2; want++ {
		if _, err := b.build(t.Context()); !cove.Is(err, cove.Invalid) || b.ran() != want {
			t.Errorf("attempt %d: %v after %d runs", want, err, b.ran())
		}
	}
}

func TestCleanAndRemove(t *testing.T) {
	b := newBench(t)
	if _, err := b.build(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(b.templates, ".x.partial", "y"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{string(buildID)}, list(t, b.templates)); diff != "" {
		t.Errorf("after Clean (-want +got):\n%s", diff)
	}
	for range 2 { // the second has nothing to do
		if err := b.Remove(t.Context(), buildID); err != nil {
			t.Fatal(err)
		}
	}
	if left := list(t, b.templates); len(left) > 0 {
		t.Errorf("after Remove: %v", left)
	}
	for _, bad := range []cove.BuildID{"", ".", "..", "a/b", "../templates", ".x"} {
		if err := b.Remove(t.Context(), bad); !cove.Is(err, cove.Invalid) {
			t.Errorf("Remove(%q): %v", bad, err)
		}
	}
}

// TestFindBasePassesOver: what is not a build of ours does not stop the search.
func TestFindBasePassesOver(t *testing.T) {
	b := newBench(t)
	want, err := b.build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, manifest := range map[string]string{"0broken": "no JSON", "1future": `{"format":99,"build":"1future"}`, "2foreign": `{}`} {
		dir := filepath.Join(b.templates, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, builder.ManifestFile), []byte(manifest), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(b.templates, "3empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	got, err := b.FindBase(t.Context())
	if err != nil || got.Build != want.Build {
		t.Errorf("found %+v, %v", got, err)
	}
}
