package debian_test

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/rootfs/debian"
	"github.com/google/go-cmp/cmp"
)

// mirrors is a host with a mirror for each kind of suite.
var mirrors = debian.Host{
	Keyring: true,
	Sources: []debian.Source{
		{URI: "http://mirror.example/debian", Suite: "bookworm", Components: []string{"main", "partner"}, SignedBy: keyring},
		{URI: "http://mirror.example/debian", Suite: "bookworm-updates", Components: []string{"main"}},
		{URI: "http://mirror.example/debian-security", Suite: "bookworm-security", Components: []string{"main"}},
	},
	Proxies: []debian.Setting{{Key: "Acquire::http::Proxy", Value: "http://proxy.example:3128"}},
	Environ: []string{"https_proxy=http://proxy.example", "SECRET=1"},
}

// writeTar is the end of a fake tool that succeeds: its output is the argument
// that ends in out.tar.
const writeTar = `
for a; do case "$a" in */out.tar) echo made > "$a";; esac; done
`

// recordArgs is the beginning of a fake tool that leaves its arguments and
// environment behind.
func recordArgs(log string) string {
	return "{ echo RUN; for a; do echo \"arg $a\"; done; env | sed 's/^/env /'; } >> '" + log + "'\n"
}

type fixture struct {
	opts   debian.Options
	log    string // of the fake tool
	events []debian.Event
}

func newFixture(t *testing.T, script string) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{log: filepath.Join(dir, "log")}
	tools(t, map[string]string{"mmdebstrap": recordArgs(f.log) + script})
	f.opts = debian.Options{
		Suite: "stable", Packages: []string{"git", "curl"}, DpkgOpts: []string{"path-exclude=/usr/share/man/*"},
		Commands: []debian.Command{{Name: "greeting", Script: "echo it's me"}},
		Files:    []debian.File{{Path: "/etc/x", Data: []byte("x")}},
		Host:     mirrors, CacheDir: filepath.Join(dir, "cache"), Out: filepath.Join(dir, "result.tar"),
		Progress: func(e debian.Event) { f.events = append(f.events, e) },
	}
	return f
}

func (f *fixture) lines(t *testing.T, prefix string) []string {
	t.Helper()
	data, err := os.ReadFile(f.log)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for l := range strings.Lines(string(data)) {
		if s, ok := strings.CutPrefix(strings.TrimRight(l, "\n"), prefix); ok {
			lines = append(lines, s)
		}
	}
	return lines
}

func TestBootstrapCommand(t *testing.T) {
	f := newFixture(t, "echo 'I: downloading packages with apt...'\necho 'Need to get 1,500 kB/2 MB of archives.'\n"+
		"echo 'Get:1 http://mirror.example/debian stable/main amd64 git amd64 1 [500 kB]'"+writeTar)
	if err := debian.Bootstrap(t.Context(), f.opts); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(f.opts.Out); err != nil || string(data) != "made\n" {
		t.Errorf("result %q, %v", data, err)
	}
	args := f.lines(t, "arg ")
	for _, want := range []string{
		"--variant=minbase", "--include=git,curl", "--dpkgopt=path-exclude=/usr/share/man/*",
		`--aptopt=Acquire::http::Proxy "http://proxy.example:3128"`,
	} {
		if !slices.Contains(args, want) {
			t.Errorf("no argument %s in %q", want, args)
		}
	}
	end := []string{
		"deb [signed-by=" + keyring + "] http://mirror.example/debian stable main",
		"deb http://mirror.example/debian stable-updates main",
		"deb http://mirror.example/debian-security stable-security main",
	}
	if diff := cmp.Diff(end, args[len(args)-3:]); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
	for _, a := range args {
		if strings.Contains(a, "Check-") || strings.Contains(a, "trusted=") || strings.Contains(a, "AllowInsecure") {
			t.Errorf("%s weakens apt's checks", a)
		}
	}
	if env := f.lines(t, "env "); !slices.Contains(env, "https_proxy=http://proxy.example") || slices.Contains(env, "SECRET=1") {
		t.Errorf("environment %q", env)
	}
	want := []debian.Event{
		{Step: "downloading packages with apt"},
		{Step: "downloading packages with apt", Detail: "Need to get 1,500 kB/2 MB of archives.", Total: 1_500_000},
		{Step: "downloading packages with apt", Bytes: 500_000, Total: 1_500_000,
			Detail: "Get:1 http://mirror.example/debian stable/main amd64 git amd64 1 [500 kB]"},
	}
	if diff := cmp.Diff(want, f.events); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
	if _, err := os.Stat(filepath.Join(f.opts.CacheDir, "work")); err == nil {
		t.Error("the working directory is still there")
	}
}

const expired = `E: Release file for http://mirror.example/debian/dists/stable-updates/InRelease is expired (invalid since 15d). Updates for this repository will not be applied.`

func TestBootstrapExpired(t *testing.T) {
	script := "case \"$*\" in *stable-updates*|*'out.tar') echo 'Get:1 http://default.example/debian stable InRelease [140 kB]'; echo '" + expired + "'; exit 25;; esac" + writeTar
	tests := map[string]struct {
		host debian.Host
		want string
	}{
		"the host's mirrors": {mirrors, "deb [signed-by=" + keyring + "] http://mirror.example/debian stable main"},
		"the tool's mirror":  {debian.Host{Keyring: true}, "deb http://default.example/debian stable main"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, script)
			f.opts.Host = test.host
			if err := debian.Bootstrap(t.Context(), f.opts); err != nil {
				t.Fatal(err)
			}
			args := f.lines(t, "arg ")
			if got := args[len(args)-1]; got != test.want || !strings.HasSuffix(args[len(args)-2], "out.tar") {
				t.Errorf("the last source is %q, want only %q", got, test.want)
			}
			warned := slices.IndexFunc(f.events, func(e debian.Event) bool { return e.Warning && strings.Contains(e.Detail, "expired") })
			if warned < 0 {
				t.Errorf("no warning in %v", f.events)
			}
		})
	}
}

func TestBootstrapExpiredMain(t *testing.T) {
	f := newFixture(t, "echo '"+expired+"'; exit 25")
	err := debian.Bootstrap(t.Context(), f.opts)
	if !cove.Is(err, cove.Unavailable) || len(f.lines(t, "RUN")) != 2 {
		t.Errorf("got %v after %d runs, want it to give up after 2", err, len(f.lines(t, "RUN")))
	}
}

func TestBootstrapFails(t *testing.T) {
	f := newFixture(t, "echo 'I: installing essential packages...'\ni=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done\necho 'E: dpkg failed' >&2; exit 7")
	err := debian.Bootstrap(t.Context(), f.opts)
	failure, ok := errors.AsType[*debian.CommandError](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	if failure.Command != "mmdebstrap" || failure.Step != "installing essential packages" || !strings.Contains(failure.Error(), "exit status 7") {
		t.Errorf("got %+v", failure)
	}
	if len(failure.Lines) != 20 || failure.Lines[19] != "E: dpkg failed" || failure.Lines[18] != "line 99" {
		t.Errorf("last lines %q", failure.Lines)
	}
	kind, msg := cove.Describe(err)
	if kind != cove.Unavailable || !strings.Contains(msg, "installing essential packages") || strings.Contains(msg, f.opts.CacheDir) {
		t.Errorf("callers see %v: %s", kind, msg)
	}
	if _, err := os.Stat(f.opts.Out); err == nil {
		t.Error("there is a result")
	}
}

func TestBootstrapLongLines(t *testing.T) {
	f := newFixture(t, `i=0; while [ $i -lt 20 ]; do head -c 100000 /dev/zero | tr '\0' x; echo; i=$((i+1)); done; exit 1`)
	failure, ok := errors.AsType[*debian.CommandError](debian.Bootstrap(t.Context(), f.opts))
	if !ok {
		t.Fatal("no CommandError")
	}
	total := 0
	for _, l := range failure.Lines {
		total += len(l) + 1
	}
	if total == 0 || total > 4<<10 {
		t.Errorf("%d bytes of last lines", total)
	}
}

func TestBootstrapFullDisk(t *testing.T) {
	f := newFixture(t, "echo 'tar: out.tar: Cannot write: No space left on device' >&2; exit 2")
	if err := debian.Bootstrap(t.Context(), f.opts); !cove.Is(err, cove.NoSpace) {
		t.Errorf("got %v", err)
	}
}

func TestBootstrapMissing(t *testing.T) {
	f := newFixture(t, "")
	f.opts.Host.Keyring = false
	if _, msg := cove.Describe(debian.Bootstrap(t.Context(), f.opts)); !strings.Contains(msg, "apt-get install debian-archive-keyring") {
		t.Errorf("without a keyring: %q", msg)
	}
	t.Setenv("PATH", t.TempDir())
	if _, msg := cove.Describe(debian.Bootstrap(t.Context(), f.opts)); !strings.Contains(msg, "apt-get install mmdebstrap") {
		t.Errorf("without the tool: %q", msg)
	}
}

// TestBootstrapKeepsPackages: what a failed attempt has downloaded is there for
// the next, although mmdebstrap cleans up after itself.
func TestBootstrapKeepsPackages(t *testing.T) {
	f := newFixture(t, `
d="$TMPDIR/mmdebstrap.x/var/cache/apt/archives"; mkdir -p "$d"; echo deb > "$d/git_1_amd64.deb"
kept="${TMPDIR%/work/tmp}/packages/git_1_amd64.deb"
i=0; while ! [ -e "$kept" ] && [ $i -lt 200 ]; do sleep 0.05; i=$((i+1)); done
rm -rf "$TMPDIR/mmdebstrap.x"; exit 1`)
	if err := debian.Bootstrap(t.Context(), f.opts); err == nil {
		t.Fatal("it succeeded")
	}
	if data, err := os.ReadFile(filepath.Join(f.opts.CacheDir, "packages", "git_1_amd64.deb")); err != nil || string(data) != "deb\n" {
		t.Errorf("kept %q, %v", data, err)
	}
}

// TestBootstrapCancel: everything the tool has started ends with it, and the
// next attempt is not in its way.
func TestBootstrapCancel(t *testing.T) {
	host := t.TempDir()
	f := newFixture(t, "mount -t tmpfs cove-test '"+host+"'\nsleep 1000 &\necho 'I: started'\nwait")
	ctx, cancel := context.WithCancel(t.Context())
	f.opts.Progress = func(debian.Event) { cancel() }
	if err := debian.Bootstrap(ctx, f.opts); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), host) {
		t.Errorf("still mounted (%v)", err)
	}
	if left := sleepers(t, f.opts.CacheDir); len(left) > 0 {
		t.Errorf("still running: %v", left)
	}
}

// sleepers returns the processes whose environment names dir.
func sleepers(t *testing.T, dir string) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// A process that has ended in the meantime has no environment.
		if env, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ")); strings.Contains(string(env), dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestBootstrapTwice(t *testing.T) {
	f := newFixture(t, "echo 'I: started'; sleep 1000")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	started, done := make(chan struct{}), make(chan error, 1)
	f.opts.Progress = func(e debian.Event) {
		if e.Step == "started" {
			close(started)
		}
	}
	go func() { done <- debian.Bootstrap(ctx, f.opts) }()
	select {
	case <-started:
	case err := <-done:
		t.Fatalf("the first ended: %v", err)
	}
	second := f.opts
	second.Progress = nil
	if err := debian.Bootstrap(ctx, second); !cove.Is(err, cove.Conflict) {
		t.Errorf("the second: %v", err)
	}
	cancel()
	<-done
}

// TestBootstrapReal makes Debian's minimal system with the mirrors of this
// machine, twice: the second time the packages are there already.
func TestBootstrapReal(t *testing.T) {
	host, err := debian.ReadHost(t.Context(), "/", os.Environ())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var log []string
	opts := debian.Options{
		Suite: "stable", Host: host, CacheDir: filepath.Join(dir, "cache"), Out: filepath.Join(dir, "out.tar"),
		DpkgOpts: []string{"path-exclude=/usr/share/doc/*"},
		Files:    []debian.File{{Path: "/etc/brought", Data: []byte("from the host")}},
		Commands: []debian.Command{{Name: "failing", Script: "cat /etc/brought; exit 3"}},
		Progress: func(e debian.Event) { log = append(log, e.Step+" | "+e.Detail) },
	}
	failure, ok := errors.AsType[*debian.CommandError](debian.Bootstrap(t.Context(), opts))
	if !ok || failure.Step != "failing" || !slices.ContainsFunc(failure.Lines, func(l string) bool { return strings.Contains(l, "from the host") }) {
		t.Fatalf("the first attempt: %v\n%s", failure, strings.Join(log[max(0, len(log)-30):], "\n"))
	}
	log = nil
	opts.Commands = []debian.Command{{Name: "marking", Script: "echo it\\'s done > /etc/marked; test ! -e /usr/share/doc/bash"}}
	if err := debian.Bootstrap(t.Context(), opts); err != nil {
		t.Fatalf("the second attempt: %v\n%s", err, strings.Join(log[max(0, len(log)-30):], "\n"))
	}
	for _, l := range log {
		if strings.HasPrefix(l, "downloading packages") && strings.Contains(l, "Get:") {
			t.Errorf("downloaded again: %s", l)
		}
	}
	files := contents(t, opts.Out, "etc/marked", "etc/os-release", "usr/bin/bash", "etc/apt/apt.conf.d/99mmdebstrap")
	if files["etc/marked"] != "it's done\n" || files["usr/bin/bash"] == "" {
		t.Errorf("the result has no bash or no mark: %q", files["etc/marked"])
	}
	if _, ok := files["etc/apt/apt.conf.d/99mmdebstrap"]; ok {
		t.Error("the result has the build's settings of apt")
	}
}

// contents reads some files of a tar archive.
func contents(t *testing.T, name string, wanted ...string) map[string]string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found := map[string]string{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.TrimPrefix(h.Name, "./"); slices.Contains(wanted, n) {
			data, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			found[n] = string(data)
		}
	}
}
