package envd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cove-sandbox/cove/internal/envd"
	"github.com/cove-sandbox/cove/internal/envd/envdclient"
	"github.com/cove-sandbox/cove/internal/gen/filesystem/filesystemconnect"
	"github.com/cove-sandbox/cove/internal/gen/process"
	"github.com/cove-sandbox/cove/internal/gen/process/processconnect"
)

const control = "control-token"

// patience bounds every wait of these tests.
const patience = 20 * time.Second

// daemon is a running daemon with its clients.
type daemon struct {
	t       *testing.T
	url     string
	addr    string
	dir     string // users root and user have their homes here
	process processconnect.ProcessClient
	files   filesystemconnect.FilesystemClient
	host    *envdclient.Client
	config  envd.Config
}

// start runs a daemon until the test ends.
func start(t *testing.T, change func(*envd.Config)) *daemon {
	t.Helper()
	dir := t.TempDir()
	// Other users must get to their homes.
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, dir: dir}
	for name, id := range map[string]int{"root": 0, "user": 1000} {
		home := filepath.Join(dir, name)
		if err := errors.Join(os.Mkdir(home, 0o755), os.Chown(home, id, id)); err != nil {
			t.Fatal(err)
		}
	}
	d.write("passwd", fmt.Sprintf("root:x:0:0:root:%[1]s/root:/bin/bash\nuser:x:1000:1000::%[1]s/user:/bin/bash\nnobody:x:65534:65534::/nonexistent:/bin/false\n", dir))
	d.write("group", "root:x:0:\nuser:x:1000:\nextra:x:4242:someone,user\nnogroup:x:65534:\n")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.config = envd.Config{
		Listener: ln, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), ControlToken: control,
		Env:    map[string]string{"E2B_SANDBOX": "true", "E2B_SANDBOX_ID": "isbx"},
		Path:   os.Getenv("PATH"),
		Passwd: filepath.Join(dir, "passwd"), Group: filepath.Join(dir, "group"),
		Grace: 100 * time.Millisecond,
	}
	if change != nil {
		change(&d.config)
	}
	srv, err := envd.New(d.config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	d.addr = ln.Addr().String()
	d.url = "http://" + d.addr
	d.clients(d.addr)
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("daemon: %v", err)
		}
	})
	return d
}

func (d *daemon) clients(addr string) {
	transport := &http.Transport{}
	d.t.Cleanup(transport.CloseIdleConnections)
	httpClient := &http.Client{Transport: transport}
	d.process = processconnect.NewProcessClient(httpClient, d.url, connect.WithProtoJSON())
	d.files = filesystemconnect.NewFilesystemClient(httpClient, d.url, connect.WithProtoJSON())
	d.host = envdclient.New(envdclient.Config{
		Dial: func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		},
		ControlToken: control,
	})
	d.t.Cleanup(d.host.Close)
}

func (d *daemon) path(name string) string { return filepath.Join(d.dir, name) }

func (d *daemon) write(name, content string) string {
	d.t.Helper()
	path := d.path(name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		d.t.Fatal(err)
	}
	return path
}

func (d *daemon) init(init envdclient.Init) {
	d.t.Helper()
	if err := d.host.Init(d.t.Context(), init); err != nil {
		d.t.Fatal(err)
	}
}

// do makes a plain HTTP request and returns status, headers and body.
func (d *daemon) do(method, target string, header map[string]string, body []byte) (int, http.Header, string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, d.url+target, bytes.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	if req.Header.Get("Accept-Encoding") == "" {
		req.Header.Set("Accept-Encoding", "identity")
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

func basic(h http.Header, user string) {
	(&http.Request{Header: h}).SetBasicAuth(user, "")
}

// stream is what both Start and Connect return.
type stream interface {
	Receive() bool
	Err() error
	Close() error
}

// running is a process as one of its listeners sees it.
type running struct {
	t   *testing.T
	s   stream
	msg func() *process.ProcessEvent
	pid uint32

	unread string // heard, but after what until waited for
}

// spawn starts what req says and waits for the start event.
func (d *daemon) spawn(ctx context.Context, req *process.StartRequest, header map[string]string) (*running, error) {
	r := connect.NewRequest(req)
	for k, v := range header {
		r.Header().Set(k, v)
	}
	s, err := d.process.Start(ctx, r)
	if err != nil {
		return nil, err
	}
	run := &running{t: d.t, s: s, msg: func() *process.ProcessEvent { return s.Msg().GetEvent() }}
	return run, run.started()
}

func (d *daemon) connect(ctx context.Context, sel *process.ProcessSelector) (*running, error) {
	s, err := d.process.Connect(ctx, connect.NewRequest(&process.ConnectRequest{Process: sel}))
	if err != nil {
		return nil, err
	}
	run := &running{t: d.t, s: s, msg: func() *process.ProcessEvent { return s.Msg().GetEvent() }}
	return run, run.started()
}

func (r *running) started() error {
	r.t.Cleanup(func() { r.s.Close() })
	if !r.s.Receive() {
		return r.s.Err()
	}
	start := r.msg().GetStart()
	if start == nil {
		return fmt.Errorf("the first event is %v", r.msg())
	}
	r.pid = start.GetPid()
	return nil
}

func (r *running) sel() *process.ProcessSelector {
	return &process.ProcessSelector{Selector: &process.ProcessSelector_Pid{Pid: r.pid}}
}

// result is everything a listener heard.
type result struct {
	out, err, pty string
	keepalives    int
	end           *process.ProcessEvent_EndEvent
}

func (res *result) add(ev *process.ProcessEvent) {
	data := ev.GetData()
	res.out += string(data.GetStdout())
	res.err += string(data.GetStderr())
	res.pty += string(data.GetPty())
	if ev.GetKeepalive() != nil {
		res.keepalives++
	}
	res.end = ev.GetEnd()
}

// wait reads until the end of the stream.
func (r *running) wait() (result, error) {
	var res result
	var out strings.Builder // there may be a lot
	for r.s.Receive() {
		if res.end != nil {
			r.t.Errorf("event after the end: %v", r.msg())
		}
		out.Write(r.msg().GetData().GetStdout())
		res.add(r.msg())
		res.out = ""
	}
	res.out = out.String()
	return res, r.s.Err()
}

// until reads until the output contains text, all streams taken together.
func (r *running) until(text string) {
	r.t.Helper()
	stop := time.AfterFunc(patience, func() { r.s.Close() })
	defer stop.Stop()
	for {
		if _, after, found := strings.Cut(r.unread, text); found {
			r.unread = after
			return
		}
		if !r.s.Receive() {
			r.t.Fatalf("no %q in %q: %v", text, r.unread, r.s.Err())
		}
		var res result
		res.add(r.msg())
		r.unread += res.out + res.err + res.pty
	}
}

// bash is a request the way the clients make them, with their closed input.
func bash(script string) *process.StartRequest {
	no := false
	return &process.StartRequest{Process: &process.ProcessConfig{Cmd: "/bin/bash", Args: []string{"-c", script}}, Stdin: &no}
}

// run runs a script to its end.
func (d *daemon) run(script string) result {
	d.t.Helper()
	return d.runReq(bash(script), nil)
}

func (d *daemon) runReq(req *process.StartRequest, header map[string]string) result {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	r, err := d.spawn(ctx, req, header)
	if err != nil {
		d.t.Fatal(err)
	}
	res, err := r.wait()
	if err != nil {
		d.t.Fatal(err)
	}
	return res
}

// eventually waits for cond.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never: %s", what)
		}
	}
}

func wantCode(t *testing.T, err error, code connect.Code, text string) {
	t.Helper()
	var ce *connect.Error
	if !errors.As(err, &ce) || ce.Code() != code || !strings.Contains(ce.Message(), text) {
		t.Errorf("error = %v, want %v with %q", err, code, text)
	}
}
