package envd_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/cove-sandbox/cove/internal/envd"
	"github.com/cove-sandbox/cove/internal/gen/process"
	"github.com/cove-sandbox/cove/internal/gen/process/processconnect"
)

func TestPTY(t *testing.T) {
	d := start(t, nil)
	req := &process.StartRequest{
		Process: &process.ProcessConfig{Cmd: "/bin/bash", Args: []string{"--norc", "-i"}, Envs: map[string]string{"TERM": "xterm", "PS1": "> "}},
		Pty:     &process.PTY{Size: &process.PTY_Size{Cols: 93, Rows: 31}},
	}
	r, err := d.spawn(t.Context(), req, auth("user"))
	if err != nil {
		t.Fatal(err)
	}
	typed := func(text string) {
		t.Helper()
		in := &process.ProcessInput{Input: &process.ProcessInput_Pty{Pty: []byte(text)}}
		if _, err := d.process.SendInput(t.Context(), connect.NewRequest(&process.SendInputRequest{Process: r.sel(), Input: in})); err != nil {
			t.Fatal(err)
		}
	}
	typed("stty size; echo $TERM\n")
	r.until("31 93\r\nxterm\r\n")
	size := &process.PTY{Size: &process.PTY_Size{Cols: 100, Rows: 40}}
	if _, err := d.process.Update(t.Context(), connect.NewRequest(&process.UpdateRequest{Process: r.sel(), Pty: size})); err != nil {
		t.Fatal(err)
	}
	typed("stty size; echo tty >$(tty)\n")
	r.until("40 100\r\n")
	r.until("tty\r\n")
	_, err = d.process.CloseStdin(t.Context(), connect.NewRequest(&process.CloseStdinRequest{Process: r.sel()}))
	wantCode(t, err, connect.CodeUnknown, "cannot close stdin for PTY process")
	in := &process.ProcessInput{Input: &process.ProcessInput_Stdin{Stdin: []byte("x")}}
	_, err = d.process.SendInput(t.Context(), connect.NewRequest(&process.SendInputRequest{Process: r.sel(), Input: in}))
	wantCode(t, err, connect.CodeInternal, "tty assigned to process")
	typed("exit 7\n")
	res, err := r.wait()
	if err != nil {
		t.Fatal(err)
	}
	wantEnd(t, res, ended(7, "exit status 7"))

	if r, err = d.spawn(t.Context(), req, nil); err != nil {
		t.Fatal(err)
	}
	d.kill(r, process.Signal_SIGNAL_SIGKILL)
	res, _ = r.wait()
	wantEnd(t, res, ended(-1, "signal: killed"))

	// All of a large output arrives before the end.
	req.Process = &process.ProcessConfig{Cmd: "seq", Args: []string{"1", "20000"}}
	res = d.runReq(req, nil)
	if !strings.HasSuffix(res.pty, "\r\n20000\r\n") {
		t.Errorf("output ends with %q", res.pty[max(0, len(res.pty)-20):])
	}

	if r, err = d.spawn(t.Context(), &process.StartRequest{Process: &process.ProcessConfig{Cmd: "cat"}}, nil); err != nil {
		t.Fatal(err)
	}
	_, err = d.process.Update(t.Context(), connect.NewRequest(&process.UpdateRequest{Process: r.sel(), Pty: size}))
	wantCode(t, err, connect.CodeInternal, "tty not assigned")
}

func TestKeepalive(t *testing.T) {
	d := start(t, nil)
	r, err := d.spawn(t.Context(), bash("sleep 1.5"), map[string]string{"Keepalive-Ping-Interval": "1"})
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.wait()
	if err != nil || res.keepalives != 1 {
		t.Errorf("%+v, %v", res, err)
	}
}

// A listener that takes nothing stalls the process only so long, and others not
// at all afterwards.
func TestSlowListenerIsCut(t *testing.T) {
	d := start(t, func(c *envd.Config) { c.Stall = 200 * time.Millisecond })
	patient := d.process
	d.process = d.smallBuffers()
	slow, err := d.spawn(t.Context(), &process.StartRequest{Process: &process.ProcessConfig{Cmd: "sh", Args: []string{"-c", "read x; head -c 20000000 /dev/zero; echo; echo done"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d.process = patient
	quick, err := d.connect(t.Context(), slow.sel())
	if err != nil {
		t.Fatal(err)
	}
	d.input(slow, "go\n")
	res, err := quick.wait()
	if err != nil || len(res.out) != 20_000_006 {
		t.Errorf("quick listener: %d bytes, %v", len(res.out), err)
	}
	_, err = slow.wait()
	wantCode(t, err, connect.CodeResourceExhausted, "not read for too long")
}

// smallBuffers returns a client whose connections hold little that is not read.
func (d *daemon) smallBuffers() processconnect.ProcessClient {
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if tcp, ok := conn.(*net.TCPConn); ok {
			err = tcp.SetReadBuffer(512 << 10)
		}
		return conn, err
	}}
	d.t.Cleanup(transport.CloseIdleConnections)
	return processconnect.NewProcessClient(&http.Client{Transport: transport}, d.url, connect.WithProtoJSON())
}
