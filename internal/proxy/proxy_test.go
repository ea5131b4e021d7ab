package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/proxy"
)

// dialer has one sandbox, i1, with servers on some ports.
type dialer map[uint16]string

func (d dialer) Dial(ctx context.Context, id cove.SandboxID, port uint16) (net.Conn, error) {
	if id != "i1" {
		return nil, cove.E(cove.NotFound, "test", nil, "the sandbox does not run")
	}
	addr, ok := d[port]
	if !ok {
		return nil, node.ErrPortClosed
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func edge(t *testing.T, d dialer) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(proxy.New(proxy.Config{
		Dialer: d, Log: slog.New(slog.DiscardHandler), DaemonPort: 49983, InternalPaths: []string{"/init", "/connect"},
	}))
	t.Cleanup(s.Close)
	return s
}

func request(t *testing.T, s *httptest.Server, method, path, host string, headers ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		req.Host = host
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestAnswersOfTheEdge(t *testing.T) {
	s := edge(t, dialer{49983: serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "daemon "+r.URL.Path) })})
	const browser = "Mozilla/5.0 (X11; Linux x86_64)"
	for name, c := range map[string]struct {
		path, host string
		headers    []string
		status     int
		body       string
	}{
		"unknown sandbox": {"/", "80-inone.cove.dev", nil, 502, `{"sandboxId":"inone","message":"The sandbox was not found","code":502}`},
		"closed port":     {"/", "81-i1.cove.dev", nil, 502, `{"sandboxId":"i1","message":"The sandbox is running but port is not open","port":81,"code":502}`},
		"by headers":      {"/health", "", []string{"E2b-Sandbox-Id", "i1", "E2b-Sandbox-Port", "49983"}, 200, "daemon /health"},
		"by host":         {"/health", "49983-i1.localhost:3000", nil, 200, "daemon /health"},
		"host before headers": {"/health", "49983-i1.localhost", []string{"E2b-Sandbox-Id", "inone", "E2b-Sandbox-Port", "1"}, 200,
			"daemon /health"},
		"upper case host":      {"/health", "49983-I1.LOCALHOST", nil, 200, "daemon /health"},
		"client suffix":        {"/health", "49983-i1-6532622b.localhost", nil, 200, "daemon /health"},
		"one header":           {"/", "", []string{"E2b-Sandbox-Id", "i1"}, 400, `{"message":"Missing header: E2b-Sandbox-Port","code":400}`},
		"other header":         {"/", "", []string{"E2b-Sandbox-Port", "1"}, 400, `{"message":"Missing header: E2b-Sandbox-Id","code":400}`},
		"no sandbox":           {"/", "", nil, 400, `{"message":"Invalid host","code":400}`},
		"bad port":             {"/", "99999-i1.x", nil, 400, `{"message":"Invalid sandbox port","code":400}`},
		"port zero":            {"/", "0-i1.x", nil, 400, `{"message":"Invalid sandbox port","code":400}`},
		"an address as a name": {"/", "127-0-0-1.nip.test", nil, 400, `{"message":"Invalid host","code":400}`},
		"bad identifier":       {"/", "80-i_1.x", nil, 400, `{"message":"Invalid sandbox ID","code":400}`},
		"internal":             {"/init", "49983-i1.x", nil, 404, "reserved"},
		"internal, unknown":    {"/init", "49983-inone.x", nil, 404, "reserved"},
		"internal, encoded":    {"/%69nit", "49983-i1.x", nil, 404, "reserved"},
		"internal, dotted":     {"/a/..//connect/", "49983-i1.x", nil, 404, "reserved"},
		"internal, deeper":     {"/connect/x", "49983-i1.x", nil, 404, "reserved"},
		"not internal":         {"/initial", "49983-i1.x", nil, 200, "daemon /initial"},
		"browser":              {"/", "81-i1.x", []string{"User-Agent", browser}, 502, "no service running on port <code>81</code>"},
		"script in browser":    {"/", "81-i1.x", []string{"User-Agent", browser, "Sec-Fetch-Mode", "cors"}, 502, `"port":81`},
	} {
		t.Run(name, func(t *testing.T) {
			resp := request(t, s, "GET", c.path, c.host, c.headers...)
			body, err := io.ReadAll(resp.Body)
			got := strings.TrimSuffix(string(body), "\n")
			exact := strings.HasPrefix(c.body, "{") || strings.HasPrefix(c.body, "daemon")
			if err != nil || resp.StatusCode != c.status || (exact && got != c.body) || !strings.Contains(got, c.body) {
				t.Errorf("%d %q (%v), want %d %q", resp.StatusCode, got, err, c.status, c.body)
			}
			if name == "browser" && (!strings.HasPrefix(got, "<html") || !strings.HasSuffix(got, "</html>")) {
				t.Errorf("not a page: %q", got)
			}
		})
	}
}

func TestForwardsHeadersAndBody(t *testing.T) {
	s := edge(t, dialer{80: serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", fmt.Sprint(r.Host, " ", r.URL.RequestURI(), " ", r.Header.Get("X-Forwarded-Host"), " ", string(body)))
		w.WriteHeader(http.StatusTeapot)
	})})
	req, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/a%2Fb?q=%20", strings.NewReader("hello"))
	req.Host = "80-i1.example.com"
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got, want := resp.Header.Get("X-Seen"), "80-i1.example.com /a%2Fb?q=%20 80-i1.example.com hello"; got != want || resp.StatusCode != http.StatusTeapot {
		t.Errorf("seen %q, status %d", got, resp.StatusCode)
	}
}

func TestStreamsArePassedOnAtOnce(t *testing.T) {
	next := make(chan struct{})
	s := edge(t, dialer{80: serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for range 3 {
			fmt.Fprintln(w, "line")
			w.(http.Flusher).Flush()
			<-next // the next line only once the client has this one
		}
	})})
	lines := bufio.NewReader(request(t, s, "GET", "/", "80-i1.x").Body)
	for range 3 {
		if line, err := lines.ReadString('\n'); line != "line\n" {
			t.Fatalf("%q, %v", line, err)
		}
		next <- struct{}{}
	}
}

func TestBrokenUpstreamBreaksTheClient(t *testing.T) {
	s := edge(t, dialer{80: serve(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "half")
		w.(http.Flusher).Flush()
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			conn.Close()
		}
	})})
	if body, err := io.ReadAll(request(t, s, "GET", "/", "80-i1.x").Body); err == nil {
		t.Errorf("a broken answer ended cleanly: %q", body)
	}
}

func TestClientDisconnectReachesTheServer(t *testing.T) {
	gone := make(chan struct{})
	s := edge(t, dialer{80: serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(gone)
	})})
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", s.URL, nil)
	req.Host = "80-i1.x"
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the server inside was not told")
	}
}

func TestWebSocket(t *testing.T) {
	s := edge(t, dialer{80: serve(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, append([]byte("echo "), message...)); err != nil {
				return
			}
		}
	})})
	c, _, err := websocket.Dial(t.Context(), s.URL, &websocket.DialOptions{Host: "80-i1.x"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	for range 3 {
		if err := c.Write(t.Context(), websocket.MessageText, []byte("hi")); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Read(t.Context()); string(got) != "echo hi" {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

func TestAnswerMayBeginBeforeTheRequestHasEnded(t *testing.T) {
	s := edge(t, dialer{80: serve(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		lines := bufio.NewReader(r.Body)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprint(w, "got ", line)
			w.(http.Flusher).Flush()
		}
	})})
	body, input := io.Pipe()
	req, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL, body)
	req.Host = "80-i1.x"
	go func() { _, _ = io.WriteString(input, "one\n") }()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	if got, err := lines.ReadString('\n'); got != "got one\n" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := io.WriteString(input, "two\n"); err != nil {
		t.Fatal(err)
	}
	input.Close()
	if got, err := io.ReadAll(lines); string(got) != "got two\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestErrorWhileTheRequestStillFlows(t *testing.T) {
	s := edge(t, dialer{})
	for range 20 {
		body, input := io.Pipe()
		req, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL, body)
		req.Host = "80-i1.x"
		go func() { _, _ = io.WriteString(input, "begin") }()
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusBadGateway {
			t.Errorf("status %d", resp.StatusCode)
		}
		resp.Body.Close()
		input.Close()
	}
}

func TestBrokenAnswerIsReset(t *testing.T) {
	s := edge(t, dialer{80: serve(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "half")
		w.(http.Flusher).Flush()
		if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
			conn.Close()
		}
	})})
	_, err := io.ReadAll(request(t, s, "GET", "/", "80-i1.x").Body)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("err = %v, want a reset", err)
	}
}
