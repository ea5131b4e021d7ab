package envd_test

import (
	"context"
	"encoding/base64"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/cove-sandbox/cove/internal/envd"
	"github.com/cove-sandbox/cove/internal/envd/envdclient"
	"github.com/cove-sandbox/cove/internal/gen/process"
)

func auth(user string) map[string]string {
	return map[string]string{"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"))}
}

func ended(code int32, status string) *process.ProcessEvent_EndEvent {
	end := &process.ProcessEvent_EndEvent{ExitCode: code, Exited: code >= 0, Status: status}
	if code != 0 {
		end.Error = &status
	}
	return end
}

func wantEnd(t *testing.T, res result, end *process.ProcessEvent_EndEvent) {
	t.Helper()
	if diff := cmp.Diff(end, res.end, protocmp.Transform()); diff != "" {
		t.Errorf("end (-want +got):\n%s\n%+v", diff, res)
	}
}

func TestRun(t *testing.T) {
	d := start(t, nil)
	res := d.run("echo hello world; echo oops >&2")
	if res.out != "hello world\n" || res.err != "oops\n" {
		t.Errorf("got %+v", res)
	}
	wantEnd(t, res, ended(0, "exit status 0"))
	wantEnd(t, d.run("exit 42"), ended(42, "exit status 42"))
	wantEnd(t, d.run("kill -9 $$"), ended(-1, "signal: killed"))
	wantEnd(t, d.run("kill -TERM $$"), ended(-1, "signal: terminated"))
	wantEnd(t, d.run("kill 0"), ended(-1, "signal: terminated")) // its own group, not the daemon's

	// All of a large output arrives, in order.
	res = d.run("seq 1 300000")
	want := &strings.Builder{}
	for i := range 300000 {
		want.WriteString(strconv.Itoa(i+1) + "\n")
	}
	if res.out != want.String() {
		t.Errorf("got %d bytes, want %d", len(res.out), want.Len())
	}
}

func TestUnknownCommand(t *testing.T) {
	d := start(t, nil)
	no := false
	for _, c := range []struct {
		cmd, err string
		code     int32
	}{
		{"no-such-program", "no-such-program: No such file or directory\n", 127},
		{"/no/such/program", "/no/such/program: No such file or directory\n", 127},
		{d.write("not-executable", "x"), d.path("not-executable") + ": Permission denied\n", 126},
	} {
		req := &process.StartRequest{Process: &process.ProcessConfig{Cmd: c.cmd}, Stdin: &no}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		r, err := d.spawn(ctx, req, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := r.wait()
		if err != nil || res.err != c.err {
			t.Errorf("%s: %+v, %v", c.cmd, res, err)
		}
		wantEnd(t, res, ended(c.code, "exit status "+strconv.Itoa(int(c.code))))
		// Such a process, too, is remembered, and cannot be signalled.
		again, err := d.connect(ctx, r.sel())
		if err != nil {
			t.Fatal(err)
		}
		res, _ = again.wait()
		wantEnd(t, res, ended(c.code, "exit status "+strconv.Itoa(int(c.code))))
		_, err = d.process.SendSignal(ctx, connect.NewRequest(&process.SendSignalRequest{Process: r.sel(), Signal: process.Signal_SIGNAL_SIGKILL}))
		wantCode(t, err, connect.CodeNotFound, "not found")
	}
	// A script that does not say what for is the shell's.
	script := d.write("script", "echo from $1\n")
	if err := os.Chmod(script, 0o755); err != nil {
		t.Fatal(err)
	}
	res := d.runReq(&process.StartRequest{Process: &process.ProcessConfig{Cmd: script, Args: []string{"here"}}, Stdin: &no}, nil)
	if res.out != "from here\n" {
		t.Errorf("script: %+v", res)
	}
}

func TestEnvironment(t *testing.T) {
	d := start(t, func(c *envd.Config) { c.Path = "/usr/bin:/bin" })
	d.init(envdclient.Init{EnvVars: map[string]string{"A": "global", "B": "global", "HOME": "/global", "E2B_SANDBOX_ID": "forged"}})
	req := &process.StartRequest{Process: &process.ProcessConfig{
		Cmd: "env", Envs: map[string]string{"B": "own", "LOGNAME": "own"},
	}}
	got := map[string]string{}
	for line := range strings.Lines(d.runReq(req, auth("user")).out) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		got[k] = v
	}
	want := map[string]string{
		"PATH": "/usr/bin:/bin", "HOME": "/global", "USER": "user", "LOGNAME": "own",
		"A": "global", "B": "own", "E2B_SANDBOX": "true", "E2B_SANDBOX_ID": "isbx",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

func TestUsersAndDirectories(t *testing.T) {
	d := start(t, nil)
	if got := d.run("id -u; pwd").out; got != "0\n"+d.path("root")+"\n" {
		t.Errorf("default: %q", got)
	}
	if got := d.runReq(bash("id -u; id -g; id -G; pwd"), auth("user")).out; got != "1000\n1000\n1000 4242\n"+d.path("user")+"\n" {
		t.Errorf("user: %q", got)
	}
	_, err := d.spawn(t.Context(), bash("id"), auth("root123"))
	wantCode(t, err, connect.CodeUnauthenticated, "invalid username: 'root123'")
	_, err = d.spawn(t.Context(), bash("id"), auth("nobody")) // whose home does not exist
	wantCode(t, err, connect.CodeInvalidArgument, "cwd '/nonexistent' does not exist")

	d.init(envdclient.Init{DefaultUser: "user", DefaultWorkdir: "~/site"})
	if err := os.MkdirAll(d.path("user/site/sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for cwd, want := range map[string]string{
		"":         d.path("user/site"),
		"~":        d.path("user"),
		"~/site":   d.path("user/site"),
		"site/sub": d.path("user/site/sub"),
		"/tmp":     "/tmp",
	} {
		req := bash("pwd")
		req.Process.Cwd = &cwd
		if got := d.runReq(req, nil).out; got != want+"\n" {
			t.Errorf("cwd %q: %q, want %q", cwd, got, want)
		}
	}
	if err := os.Mkdir(d.path("secret"), 0o700); err != nil {
		t.Fatal(err)
	}
	for cwd, text := range map[string]string{
		"/no/such":       "cwd '/no/such' does not exist",
		"~other":         "cannot expand user-specific home dir",
		d.path("secret"): "permission denied",
	} {
		req := bash("pwd")
		req.Process.Cwd = &cwd
		_, err := d.spawn(t.Context(), req, nil)
		wantCode(t, err, connect.CodeInvalidArgument, text)
	}
}

func TestDeadlineKills(t *testing.T) {
	d := start(t, nil)
	r, err := d.spawn(t.Context(), bash("exec sleep 1000"), map[string]string{"Connect-Timeout-Ms": "300"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := d.connect(t.Context(), r.sel())
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.wait()
	wantCode(t, err, connect.CodeDeadlineExceeded, "")
	if res.end != nil {
		t.Errorf("the call with the deadline got an end: %v", res.end)
	}
	res, err = other.wait()
	if err != nil {
		t.Error(err)
	}
	wantEnd(t, res, ended(-1, "signal: killed"))

	// Also after the caller has left, and although a child holds the output.
	ctx, leave := context.WithCancel(t.Context())
	r, err = d.spawn(ctx, bash("sleep 1000 & echo $! >"+d.path("pid")+"; echo up; wait"), map[string]string{"Connect-Timeout-Ms": "1000"})
	if err != nil {
		t.Fatal(err)
	}
	r.until("up")
	leave()
	other, err = d.connect(t.Context(), r.sel())
	if err != nil {
		t.Fatal(err)
	}
	res, _ = other.wait()
	wantEnd(t, res, ended(-1, "signal: killed"))
	number, err := os.ReadFile(d.path("pid"))
	if err != nil {
		t.Fatal(err)
	}
	killNumber(t, string(number))
}

func TestConnectDeadlineSpares(t *testing.T) {
	d := start(t, nil)
	r, err := d.spawn(t.Context(), &process.StartRequest{Process: &process.ProcessConfig{Cmd: "cat"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	short, err := d.connect(ctx, r.sel())
	if err != nil {
		t.Fatal(err)
	}
	_, err = short.wait()
	wantCode(t, err, connect.CodeDeadlineExceeded, "")
	d.input(r, "still here\n")
	r.until("still here")
	d.closeStdin(r)
	res, _ := r.wait()
	wantEnd(t, res, ended(0, "exit status 0"))
}

func (d *daemon) input(r *running, text string) {
	d.t.Helper()
	in := &process.ProcessInput{Input: &process.ProcessInput_Stdin{Stdin: []byte(text)}}
	if _, err := d.process.SendInput(d.t.Context(), connect.NewRequest(&process.SendInputRequest{Process: r.sel(), Input: in})); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) closeStdin(r *running) {
	d.t.Helper()
	if _, err := d.process.CloseStdin(d.t.Context(), connect.NewRequest(&process.CloseStdinRequest{Process: r.sel()})); err != nil {
		d.t.Fatal(err)
	}
}

func TestStdin(t *testing.T) {
	d := start(t, nil)
	r, err := d.spawn(t.Context(), &process.StartRequest{Process: &process.ProcessConfig{Cmd: "sh", Args: []string{"-c", "wc -c; exec sleep 1000"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := d.process.StreamInput(t.Context())
	send := func(m *process.StreamInputRequest) {
		t.Helper()
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	send(&process.StreamInputRequest{Event: &process.StreamInputRequest_Start{Start: &process.StreamInputRequest_StartEvent{Process: r.sel()}}})
	piece := &process.ProcessInput{Input: &process.ProcessInput_Stdin{Stdin: make([]byte, 64<<10)}}
	for range 4 {
		send(&process.StreamInputRequest{Event: &process.StreamInputRequest_Data{Data: &process.StreamInputRequest_DataEvent{Input: piece}}})
	}
	if _, err := s.CloseAndReceive(); err != nil {
		t.Fatal(err)
	}
	d.input(r, "12345")
	d.closeStdin(r)
	d.closeStdin(r) // may be repeated
	in := &process.SendInputRequest{Process: r.sel(), Input: &process.ProcessInput{Input: &process.ProcessInput_Stdin{Stdin: []byte("x")}}}
	r.until(strconv.Itoa(4*64<<10+5) + "\n")
	_, err = d.process.SendInput(t.Context(), connect.NewRequest(in))
	wantCode(t, err, connect.CodeInternal, "error writing to stdin: stdin not enabled or closed")
	d.kill(r, process.Signal_SIGNAL_SIGKILL)
	if _, err := r.wait(); err != nil {
		t.Fatal(err)
	}
	_, err = d.process.SendInput(t.Context(), connect.NewRequest(in))
	wantCode(t, err, connect.CodeNotFound, "process with pid")

	r, err = d.spawn(t.Context(), bash("read x; echo $?; exec sleep 1000"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.until("1\n")
	in.Process = r.sel()
	_, err = d.process.SendInput(t.Context(), connect.NewRequest(in))
	wantCode(t, err, connect.CodeInternal, "error writing to stdin: stdin not enabled or closed")
	d.closeStdin(r)
	in.Input = &process.ProcessInput{Input: &process.ProcessInput_Pty{Pty: []byte("x")}}
	_, err = d.process.SendInput(t.Context(), connect.NewRequest(in))
	wantCode(t, err, connect.CodeInternal, "tty")
	d.kill(r, process.Signal_SIGNAL_SIGKILL)
}

// A process that does not read makes the writer wait, and nobody else.
func TestStdinBackpressure(t *testing.T) {
	d := start(t, nil)
	r, err := d.spawn(t.Context(), &process.StartRequest{Process: &process.ProcessConfig{Cmd: "sleep", Args: []string{"1000"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	in := &process.ProcessInput{Input: &process.ProcessInput_Stdin{Stdin: make([]byte, 1<<20)}}
	_, err = d.process.SendInput(ctx, connect.NewRequest(&process.SendInputRequest{Process: r.sel(), Input: in}))
	wantCode(t, err, connect.CodeDeadlineExceeded, "")
	if out := d.run("echo fine").out; out != "fine\n" {
		t.Errorf("another process: %q", out)
	}
	d.kill(r, process.Signal_SIGNAL_SIGKILL)
	res, _ := r.wait()
	wantEnd(t, res, ended(-1, "signal: killed"))
}

func (d *daemon) kill(r *running, sig process.Signal) {
	d.t.Helper()
	_, err := d.process.SendSignal(d.t.Context(), connect.NewRequest(&process.SendSignalRequest{Process: r.sel(), Signal: sig}))
	if err != nil {
		d.t.Fatal(err)
	}
}

func TestBackground(t *testing.T) {
	d := start(t, nil)
	ctx, leave := context.WithCancel(t.Context())
	tag := "mine"
	d.spawnTagged("other-1")
	req := &process.StartRequest{Process: &process.ProcessConfig{Cmd: "cat"}, Tag: &tag}
	first, err := d.spawn(ctx, req, nil)
	if err != nil {
		t.Fatal(err)
	}
	d.spawnTagged("other-2")
	d.input(first, "lost on others\n")
	first.until("lost on others")
	leave()
	eventually(t, "the stream has ended", func() bool { return !first.s.Receive() })

	list, err := d.process.List(t.Context(), connect.NewRequest(&process.ListRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(list.Msg.GetProcesses()); n != 3 {
		t.Fatalf("%d processes, want 3: %v", n, list.Msg)
	}
	info := &process.ProcessInfo{Config: req.Process, Pid: first.pid, Tag: &tag}
	if diff := cmp.Diff(info, list.Msg.GetProcesses()[1], protocmp.Transform()); diff != "" {
		t.Errorf("info (-want +got):\n%s", diff)
	}

	byTag := &process.ProcessSelector{Selector: &process.ProcessSelector_Tag{Tag: tag}}
	second, err := d.connect(t.Context(), byTag)
	if err != nil {
		t.Fatal(err)
	}
	if second.pid != first.pid {
		t.Errorf("tag leads to %d, want %d", second.pid, first.pid)
	}
	d.input(first, "heard\n")
	d.closeStdin(first)
	res, err := second.wait()
	if err != nil || res.out != "heard\n" {
		t.Errorf("second listener: %+v, %v", res, err)
	}
	late, err := d.connect(t.Context(), byTag)
	if err != nil {
		t.Fatal(err)
	}
	res, _ = late.wait()
	wantEnd(t, res, ended(0, "exit status 0"))

	none := &process.ProcessSelector{Selector: &process.ProcessSelector_Tag{Tag: "none"}}
	_, err = d.connect(t.Context(), none)
	wantCode(t, err, connect.CodeNotFound, "process with tag none not found")
	none.Selector = &process.ProcessSelector_Pid{Pid: 999999}
	_, err = d.connect(t.Context(), none)
	wantCode(t, err, connect.CodeNotFound, "process with pid 999999 not found")
}

func (d *daemon) spawnTagged(tag string) *running {
	d.t.Helper()
	r, err := d.spawn(d.t.Context(), &process.StartRequest{Process: &process.ProcessConfig{Cmd: "cat"}, Tag: &tag}, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	return r
}

func TestRetention(t *testing.T) {
	d := start(t, func(c *envd.Config) { c.Retain = 20 * time.Millisecond })
	r, err := d.spawn(t.Context(), bash("exit 3"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.wait(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end is forgotten", func() bool {
		_, err := d.connect(t.Context(), r.sel())
		return connect.CodeOf(err) == connect.CodeNotFound
	})
}

func TestKill(t *testing.T) {
	d := start(t, nil)
	r, err := d.spawn(t.Context(), bash("echo up; exec sleep 1000"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.until("up")
	_, err = d.process.SendSignal(t.Context(), connect.NewRequest(&process.SendSignalRequest{Process: r.sel(), Signal: 1}))
	wantCode(t, err, connect.CodeUnimplemented, "invalid signal")
	d.kill(r, process.Signal_SIGNAL_SIGKILL)
	if err := syscall.Kill(int(r.pid), 0); err != syscall.ESRCH {
		t.Errorf("after the answer to its kill the process is still there: %v", err)
	}
	res, _ := r.wait()
	wantEnd(t, res, ended(-1, "signal: killed"))
	_, err = d.process.SendSignal(t.Context(), connect.NewRequest(&process.SendSignalRequest{Process: r.sel(), Signal: process.Signal_SIGNAL_SIGKILL}))
	wantCode(t, err, connect.CodeNotFound, "not found")
}

// The end waits for the output, not only for the process; a signal ends both.
func TestEndWaitsForOutput(t *testing.T) {
	d := start(t, nil)
	res := d.run("(read -t 0.3 <> <(:); echo late) & echo early")
	if res.out != "early\nlate\n" {
		t.Errorf("got %+v", res)
	}
	wantEnd(t, res, ended(0, "exit status 0"))

	r, err := d.spawn(t.Context(), bash("sleep 1001 & echo $!"), nil)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the shell is gone", func() bool { return syscall.Kill(int(r.pid), 0) == syscall.ESRCH })
	d.kill(r, process.Signal_SIGNAL_SIGKILL)
	res, _ = r.wait()
	wantEnd(t, res, ended(0, "exit status 0"))
	killNumber(t, res.out)
}

// What was written before a kill is not lost, though the output stays open.
func TestLeftoverIsRead(t *testing.T) {
	d := start(t, nil)
	for range 10 {
		r, err := d.spawn(t.Context(), bash("sleep 1002 & echo $! >&2; head -c 60000 /dev/zero; kill -9 $$"), nil)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the shell is gone", func() bool { return syscall.Kill(int(r.pid), 0) == syscall.ESRCH })
		d.kill(r, process.Signal_SIGNAL_SIGKILL)
		res, err := r.wait()
		if err != nil || len(res.out) != 60000 {
			t.Errorf("%d bytes, want 60000: %v", len(res.out), err)
		}
		wantEnd(t, res, ended(-1, "signal: killed"))
		killNumber(t, res.err)
	}
}

// killNumber kills the process whose number a script printed.
func killNumber(t *testing.T, number string) {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil || pid <= 1 {
		t.Fatalf("no process number: %q", number)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("kill %d: %v", pid, err)
	}
}
