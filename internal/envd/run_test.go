package envd_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"connectrpc.com/connect"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/envd/envdclient"
	"github.com/cove-sandbox/cove/internal/gen/process"
)

// client returns another client of the host.
func (d *daemon) client(change func(*envdclient.Config)) *envdclient.Client {
	cfg := envdclient.Config{
		Dial:         func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "tcp", d.addr) },
		ControlToken: control,
	}
	change(&cfg)
	c := envdclient.New(cfg)
	d.t.Cleanup(c.Close)
	return c
}

// heard collects what a command writes.
type heard struct{ out, err strings.Builder }

func (h *heard) said(stderr bool, text []byte) {
	if stderr {
		h.err.Write(text)
		return
	}
	h.out.Write(text)
}

func script(text string) envdclient.Command {
	return envdclient.Command{Args: []string{"/bin/bash", "-c", text}}
}

// wantRefused checks an error that the daemon sent.
func wantRefused(t *testing.T, what string, err error, want string) {
	t.Helper()
	refused, ok := errors.AsType[*envdclient.RefusedError](err)
	if !ok || err.Error() != want || refused.Code+": "+refused.Message != want {
		t.Errorf("%s: %v, want %s", what, err, want)
	}
}

func TestHostRuns(t *testing.T) {
	d := start(t, nil)
	d.init(envdclient.Init{EnvVars: map[string]string{"A": "1", "B": "2"}})
	full := script(`echo "$A $B $PWD $(id -u) $HOME"; cat; echo problem >&2; exit 3`)
	full.Env, full.Dir, full.User = map[string]string{"B": "two"}, d.path("user"), "user"
	for _, c := range []struct {
		cmd      envdclient.Command
		exit     envdclient.Exit
		out, err string
	}{
		{script("exit 0"), envdclient.Exit{}, "", ""},
		{full, envdclient.Exit{Code: 3, Error: "exit status 3"}, "1 two " + d.path("user") + " 1000 " + d.path("user") + "\n", "problem\n"},
		{script("kill -TERM $$"), envdclient.Exit{Code: -1, Error: "signal: terminated"}, "", ""},
		{envdclient.Command{Args: []string{"nosuchprogram", "x"}}, envdclient.Exit{Code: 127, Error: "exit status 127"}, "", "nosuchprogram: No such file or directory\n"},
		{script("printf 'a\\0\\xff'"), envdclient.Exit{}, "a\x00\xff", ""},
		{script("head -c 30000000 /dev/zero"), envdclient.Exit{}, strings.Repeat("\x00", 30_000_000), ""},
	} {
		var h heard
		exit, err := d.host.Run(t.Context(), c.cmd, h.said)
		if err != nil || exit != c.exit || h.out.String() != c.out || h.err.String() != c.err {
			t.Errorf("%v: %+v, %v, %.100q, %.100q", c.cmd.Args, exit, err, h.out.String(), h.err.String())
		}
	}
}

func TestHostRunRefused(t *testing.T) {
	d := start(t, nil)
	said := func(bool, []byte) { t.Error("something was said") }
	whoami := envdclient.Command{Args: []string{"whoami"}, User: "root123"}
	_, err := d.host.Run(t.Context(), whoami, said)
	// The clients' own tests know these words.
	wantRefused(t, "unknown user", err, "unauthenticated: invalid username: 'root123'")
	whoami.User, whoami.Dir = "", "/no/such/dir"
	_, err = d.host.Run(t.Context(), whoami, said)
	wantRefused(t, "directory", err, "invalid_argument: cwd '/no/such/dir' does not exist")
	_, err = d.host.Run(t.Context(), envdclient.Command{Args: []string{"x\x00"}}, said)
	wantRefused(t, "zero byte", err, "invalid_argument: an argument cannot contain a zero byte")
	if _, err := d.host.Run(t.Context(), envdclient.Command{}, said); !cove.Is(err, cove.Invalid) {
		t.Errorf("nothing to run: %v", err)
	}
	d.init(envdclient.Init{AccessToken: "secret"})
	if _, err := d.host.Run(t.Context(), script("true"), said); !cove.Is(err, cove.Unauthorized) {
		t.Errorf("without the token: %v", err)
	}
	owner := d.client(func(c *envdclient.Config) { c.Token = func() string { return "secret" } })
	if exit, err := owner.Run(t.Context(), script("true"), said); err != nil || exit.Code != 0 {
		t.Errorf("with the token: %+v, %v", exit, err)
	}
}

// processes counts what runs.
func (d *daemon) processes() int {
	d.t.Helper()
	resp, err := d.process.List(d.t.Context(), connect.NewRequest(&process.ListRequest{}))
	if err != nil {
		d.t.Fatal(err)
	}
	return len(resp.Msg.GetProcesses())
}

// A command ends with its context, if it has begun or not.
func TestHostRunEnds(t *testing.T) {
	d := start(t, nil)
	why := errors.New("the build was cancelled")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := d.host.Run(ctx, script("echo up; while :; do read -t 100 < <(sleep 100); done"), func(bool, []byte) { cancel(why) })
	if !errors.Is(err, why) {
		t.Errorf("cancelled: %v", err)
	}
	gone := func() bool { return d.processes() == 0 }
	eventually(t, "nothing is left of what was cancelled", gone)
	if _, err := d.host.Run(ctx, script("touch "+d.path("late")), nil); !errors.Is(err, why) {
		t.Errorf("after the end: %v", err)
	}
	short, cancel2 := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel2()
	if _, err := d.host.Run(short, script("exec sleep 100"), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	eventually(t, "nothing is left after the deadline", gone)
	for i := range 40 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
		if _, err := d.host.Run(ctx, script("exec sleep 100"), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d: %v", i, err)
		}
		cancel()
	}
	eventually(t, "nothing is left of what had hardly begun", gone)
	if _, err := os.Stat(d.path("late")); err == nil {
		t.Error("what came too late has run")
	}
}

func TestHostRunKeeps(t *testing.T) {
	d := start(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := script("echo $$; exec sleep 100")
	cmd.Keep, cmd.Tag = true, "start"
	var h heard
	_, err := d.host.Run(ctx, cmd, func(stderr bool, text []byte) { h.said(stderr, text); cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(h.out.String()))
	if err != nil || syscall.Kill(pid, 0) != nil {
		t.Errorf("process %d is gone, %v", pid, err)
	}
	r, err := d.connect(t.Context(), &process.ProcessSelector{Selector: &process.ProcessSelector_Tag{Tag: "start"}})
	if err != nil {
		t.Fatal(err)
	}
	d.kill(r, process.Signal_SIGNAL_SIGKILL)
}

// What is begun goes on alone, however much it writes.
func TestHostBegins(t *testing.T) {
	d := start(t, nil)
	cmd := script("head -c 30000000 /dev/zero; echo $A > mark; exec sleep 100")
	cmd.Env, cmd.Dir, cmd.Tag = map[string]string{"A": "begun"}, d.dir, "start"
	if err := d.host.Begin(t.Context(), cmd); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes on", func() bool {
		mark, err := os.ReadFile(d.path("mark"))
		return err == nil && string(mark) == "begun\n"
	})
	r, err := d.connect(t.Context(), &process.ProcessSelector{Selector: &process.ProcessSelector_Tag{Tag: "start"}})
	if err != nil {
		t.Fatal(err)
	}
	d.kill(r, process.Signal_SIGNAL_SIGKILL)
	cmd.User = "root123"
	wantRefused(t, "unknown user", d.host.Begin(t.Context(), cmd), "unauthenticated: invalid username: 'root123'")
	runs := 0 // what does not come to run in time does not run later
	for i := range 40 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
		if err := d.host.Begin(ctx, script("exec sleep 100")); err == nil {
			runs++
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%d: %v", i, err)
		}
		cancel()
	}
	eventually(t, "what runs was said to", func() bool { return d.processes() == runs })
}

// A process that is silent is told from a daemon that is gone.
func TestHostRunKeepsAlive(t *testing.T) {
	d := start(t, nil)
	c := d.client(func(c *envdclient.Config) { c.Silence = 1500 * time.Millisecond })
	if exit, err := c.Run(t.Context(), script("sleep 2.5"), nil); err != nil || exit.Code != 0 {
		t.Errorf("%+v, %v", exit, err)
	}
}

func TestHostCopies(t *testing.T) {
	d := start(t, nil)
	archive := tarred(t, folder("app", 0o755), file("app/x", 0o644))
	to := envdclient.CopyOrder{Source: "app", Dest: "app", Workdir: d.path("user"), User: "user", Mode: "0750"}
	for _, size := range []int64{int64(len(archive)), -1} {
		done, err := d.host.Copy(t.Context(), to, bytes.NewReader(archive), size)
		if err != nil || done != (envdclient.Copied{Files: 1, Bytes: 5}) {
			t.Errorf("%+v, %v", done, err)
		}
		d.wantTree(d.path("user/app"), "750 1000:1000 ./", "750 1000:1000 x app/x")
	}
	nobody, nothing, onto := to, to, to
	nobody.User, nothing.Source, onto.Dest = "root123", "ap", d.write("file", "")
	large := tarred(t, tar.Header{Typeflag: tar.TypeReg, Name: "app/large", Mode: 0o644, Size: 64 << 20})
	for _, c := range []struct {
		order   envdclient.CopyOrder
		archive []byte
		want    string
	}{
		{nobody, archive, "unauthenticated: invalid username: 'root123'"},
		{nobody, large, "unauthenticated: invalid username: 'root123'"}, // which is not read
		{onto, large, "invalid_argument: cannot copy a directory over a file: " + d.path("file")},
		{nothing, archive, "invalid_argument: no file of the build context matches source 'ap'"},
		{to, archive[:700], "invalid_argument: the archive of the files is damaged, or was cut"},
	} {
		_, err := d.host.Copy(t.Context(), c.order, bytes.NewReader(c.archive), int64(len(c.archive)))
		wantRefused(t, c.want, err, c.want)
	}
	broken := errors.New("the disk of the host is broken")
	_, err := d.host.Copy(t.Context(), to, io.MultiReader(bytes.NewReader(archive[:700]), iotest.ErrReader(broken)), int64(len(archive)))
	if !errors.Is(err, broken) {
		t.Errorf("an archive that cannot be read: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = d.host.Copy(ctx, to, io.MultiReader(bytes.NewReader(archive[:700]), readerFunc(func([]byte) (int, error) { cancel(); return 0, nil })), -1)
	if !cove.Is(err, cove.Unavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	d.init(envdclient.Init{AccessToken: "secret"})
	_, err = d.host.Copy(t.Context(), to, bytes.NewReader(archive), int64(len(archive)))
	wantRefused(t, "without the token", err, "unauthenticated: unauthorized access, please provide a valid access token or method signing if supported")
	owner := d.client(func(c *envdclient.Config) { c.Token = func() string { return "secret" } })
	if _, err := owner.Copy(t.Context(), to, bytes.NewReader(archive), int64(len(archive))); err != nil {
		t.Errorf("with the token: %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
