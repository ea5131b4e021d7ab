package envd_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/envd"
	"github.com/cove-sandbox/cove/internal/envd/envdclient"
	"github.com/cove-sandbox/cove/internal/envd/paths"
	"github.com/cove-sandbox/cove/internal/gen/process"
)

const unauthorized = "unauthorized access, please provide a valid access token or method signing if supported"

func TestInit(t *testing.T) {
	var clock time.Time
	var marked map[string]string
	d := start(t, func(c *envd.Config) {
		c.SetClock = func(now time.Time) error { clock = now; return errors.New("refused, as some engines do") }
		c.Markers = func(env map[string]string) error { marked = env; return nil }
	})
	body := []byte(`{"accessToken":"stolen"}`)
	for _, header := range []map[string]string{nil, {"X-Cove-Control": "guess"}, {"X-Access-Token": control}} {
		d.want("without the secret", 401, failure(401, "this route is for the host of the sandbox"))(d.do("POST", "/init", header, body))
	}
	d.want("no JSON", 400, failure(400, "the body is not the JSON of an init"))(
		d.do("POST", "/init", map[string]string{"X-Cove-Control": control}, []byte("x")))

	now := time.Now()
	d.init(envdclient.Init{AccessToken: "one", EnvVars: map[string]string{"A": "1", "B": "1"}, Timestamp: now})
	if !clock.IsZero() {
		t.Errorf("a true clock was set to %v", clock)
	}
	d.init(envdclient.Init{AccessToken: "late", Timestamp: now.Add(-time.Second)}) // overtaken
	token := map[string]string{"X-Access-Token": "one"}
	var envs map[string]string
	_, _, text := d.do("GET", "/envs", token, nil)
	if err := json.Unmarshal([]byte(text), &envs); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"A": "1", "B": "1", "E2B_SANDBOX": "true", "E2B_SANDBOX_ID": "isbx"}
	if diff := cmp.Diff(want, envs); diff != "" {
		t.Errorf("variables (-want +got):\n%s", diff)
	}
	for _, target := range []string{"/envs", "/metrics", "/files/compose", "/nothing", "/process.Process/List"} {
		method := http.MethodGet
		if strings.Contains(target, "e/") || strings.Contains(target, ".") {
			method = http.MethodPost
		}
		d.want(target, 401, failure(401, unauthorized))(d.do(method, target, map[string]string{"Content-Type": "application/json"}, []byte("{}")))
	}
	d.want("health is for all", 204, "")(d.do("GET", "/health", nil, nil))
	_, err := d.process.List(t.Context(), connect.NewRequest(&process.ListRequest{}))
	wantCode(t, err, connect.CodeUnauthenticated, "")

	later := now.Add(time.Hour)
	d.init(envdclient.Init{EnvVars: map[string]string{"A": "2"}, Timestamp: later, SandboxID: "iother"})
	if !clock.Equal(later) {
		t.Errorf("clock set to %v, want %v", clock, later)
	}
	if marked["E2B_SANDBOX_ID"] != "iother" {
		t.Errorf("marked %v", marked)
	}
	d.want("variables replaced, token gone", 200, `{"A":"2","E2B_SANDBOX":"true","E2B_SANDBOX_ID":"iother"}`)(d.do("GET", "/envs", nil, nil))
	d.want("not found", 404, failure(404, "there is no GET /nothing here"))(d.do("GET", "/nothing", nil, nil))
}

// A daemon that was given no secret obeys nobody.
func TestNoControlToken(t *testing.T) {
	d := start(t, func(c *envd.Config) { c.ControlToken = "" })
	d.want("init", 401, failure(401, "this route is for the host of the sandbox"))(d.do("POST", "/init", map[string]string{"X-Cove-Control": ""}, []byte("{}")))
	if _, err := d.host.Connect(t.Context(), 1); !cove.Is(err, cove.Unauthorized) {
		t.Errorf("connect: %v", err)
	}
}

func TestInternalPathsAreGuarded(t *testing.T) {
	d := start(t, nil)
	for _, path := range paths.InternalPaths() {
		for _, method := range []string{"GET", "POST"} {
			if status, _, body := d.do(method, path, nil, nil); status != 401 && status != 405 && status != 404 {
				t.Errorf("%s %s: %d %s", method, path, status, body)
			}
		}
	}
}

// What the owner of a sandbox should know gets to the host, once.
func TestJournal(t *testing.T) {
	d := start(t, func(c *envd.Config) {
		c.Markers = func(map[string]string) error { return io.ErrShortWrite }
	})
	d.init(envdclient.Init{AccessToken: "secret", SandboxID: "iother"})
	var heard []envdclient.Line
	err := d.host.Listen(t.Context(), 0, func(l envdclient.Line) bool {
		heard = append(heard, l)
		if len(heard) == 2 { // it is heard while it listens, too
			d.init(envdclient.Init{AccessToken: "secret", SandboxID: "ithird"})
		}
		return len(heard) < 3
	})
	if err != nil || len(heard) != 3 {
		t.Fatalf("%+v, %v", heard, err)
	}
	want := envdclient.Line{Seq: 2, Level: cove.LogWarn, Logger: "envd", Message: "the files that say which sandbox this is could not be written"}
	if heard[2] != want {
		t.Errorf("heard %+v, want %+v", heard[2], want)
	}
	err = d.host.Listen(t.Context(), envdclient.FromNow, func(l envdclient.Line) bool {
		if l.Seq != 2 || l.Message != "" {
			t.Errorf("the second time: %+v", l)
		}
		return false
	})
	if err != nil {
		t.Error(err)
	}
	foreign := envdclient.New(envdclient.Config{ControlToken: "guessed", Dial: func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", d.addr)
	}})
	defer foreign.Close()
	if err := foreign.Listen(t.Context(), 0, func(envdclient.Line) bool { t.Error("heard"); return false }); !cove.Is(err, cove.Unimplemented) {
		t.Errorf("a stranger: %v", err)
	}
}

func TestMetrics(t *testing.T) {
	d := start(t, nil)
	m, err := d.host.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m.CPUCount < 1 || m.MemTotal == 0 || m.MemUsed == 0 || m.MemUsed > m.MemTotal || m.DiskTotal == 0 || m.DiskUsed > m.DiskTotal ||
		m.CPUUsedPct < 0 || m.CPUUsedPct > 100 || time.Since(time.Unix(m.Timestamp, 0)) > time.Minute {
		t.Errorf("metrics %+v", m)
	}
	if err := d.host.Health(t.Context()); err != nil {
		t.Error(err)
	}
	var keys map[string]json.Number
	_, _, text := d.do("GET", "/metrics", nil, nil)
	if err := json.Unmarshal([]byte(text), &keys); err != nil || len(keys) != 10 {
		t.Errorf("keys %v, %v", keys, err)
	}
}

func TestCORS(t *testing.T) {
	d := start(t, nil)
	d.init(envdclient.Init{AccessToken: "secret"})
	status, h, _ := d.do("OPTIONS", "/process.Process/Start", map[string]string{
		"Origin": "https://page.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-access-token",
	}, nil)
	if status != 204 || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Headers") != "authorization,x-access-token" ||
		!strings.Contains(h.Get("Access-Control-Allow-Methods"), "POST") || h.Get("Access-Control-Max-Age") != "7200" {
		t.Errorf("preflight: %d %v", status, h)
	}
	_, h, _ = d.do("GET", "/health", map[string]string{"Origin": "https://page.example"}, nil)
	if h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Expose-Headers") == "" {
		t.Errorf("request: %v", h)
	}
}

// echo answers on a listener: what it reads until the end, then its own end.
func echo(t *testing.T, addr string) uint16 {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			all, err := io.ReadAll(conn) // ends only if the half-close is passed on
			if err == nil {
				conn.Write(append([]byte("got "), all...))
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return uint16(ln.Addr().(*net.TCPAddr).Port)
}

func TestConnectToPort(t *testing.T) {
	d := start(t, nil)
	d.init(envdclient.Init{AccessToken: "secret"}) // which is not what Connect asks for
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		conn, err := d.host.Connect(ctx, echo(t, addr))
		if err != nil {
			t.Fatalf("%s: %v", addr, err)
		}
		large := strings.Repeat("x", 1<<20)
		if _, err := io.WriteString(conn, large); err != nil {
			t.Fatal(err)
		}
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		if err != nil || string(got) != "got "+large {
			t.Errorf("%s: %d bytes, %v", addr, len(got), err)
		}
		conn.Close()
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(ln.Addr().(*net.TCPAddr).Port)
	ln.Close()
	if _, err := d.host.Connect(ctx, port); !errors.Is(err, envdclient.ErrPortClosed) {
		t.Errorf("closed port: %v", err)
	}
	// A tunnel that stays open does not keep the daemon from ending.
	ln, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	conn, err := d.host.Connect(ctx, uint16(ln.Addr().(*net.TCPAddr).Port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
}
