// Package e2e tests the program as its users run it: real servers, real
// sandboxes. The official clients have their tests in test/compat.
package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/cove-sandbox/cove/test/stand"
)

// TestServer holds what can share one server.
func TestServer(t *testing.T) {
	s := stand.Start(t)
	t.Run("isolation", func(t *testing.T) { testIsolation(t, s) })
	t.Run("internet", func(t *testing.T) { testInternet(t, s) })
	t.Run("bad input", func(t *testing.T) { testBadInput(t, s) })
	t.Run("ports", func(t *testing.T) { testPorts(t, s) })
	t.Run("limits", func(t *testing.T) { testLimits(t, s) })
	t.Run("users", func(t *testing.T) { testUsers(t, s) })
	t.Run("kill during a command", func(t *testing.T) { testKillDuringCommand(t, s) })
	t.Run("nothing is left behind", func(t *testing.T) { testNothingLeft(t, s) })
}

func testBadInput(t *testing.T, s *stand.Server) {
	right := s.Key
	for name, c := range map[string]struct {
		method, path, body, key string
		status                  int
		message                 string // a part of it
	}{
		"wrong key":        {"GET", "/v2/sandboxes", "", "e2b_" + strings.Repeat("0", 40), 401, "Invalid API key"},
		"no key":           {"GET", "/v2/sandboxes", "", "", 401, ""},
		"unknown template": {"POST", "/v2/sandboxes", `{"templateID":"nosuch"}`, right, 404, "nosuch"},
		"malformed":        {"POST", "/v2/sandboxes", `{"templateID":`, right, 400, ""},
		"not an object":    {"POST", "/v2/sandboxes", `[]`, right, 400, ""},
		"unknown field":    {"POST", "/v2/sandboxes", `{"templateID":"base","colour":"red"}`, right, 400, "colour"},
		"not yet served":   {"POST", "/v2/sandboxes", `{"templateID":"base","network":{"denyOut":["1.1.1.1"]}}`, right, 501, "network.denyOut"},
		"negative timeout": {"POST", "/v2/sandboxes", `{"templateID":"base","timeout":-1}`, right, 400, "imeout"},
		"unknown sandbox":  {"DELETE", "/sandboxes/inosuch", "", right, 404, `Sandbox "inosuch" doesn't exist or you don't have access to it`},
		"unknown route":    {"GET", "/nosuch", "", right, 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if c.key != "" {
				req.Header.Set("X-API-Key", c.key)
			}
			status, body := roundTrip(t, req)
			if status != c.status || !strings.Contains(body, fmt.Sprintf(`"code":%d`, c.status)) ||
				!strings.Contains(strings.ReplaceAll(body, `\"`, `"`), c.message) {
				t.Errorf("%d %s, want %d and %q", status, body, c.status, c.message)
			}
		})
	}
	if list := s.List(t); len(list) != 0 {
		t.Errorf("bad input made sandboxes: %v", list)
	}
}

// roundTrip makes a request and returns status and body.
func roundTrip(t *testing.T, req *http.Request) (int, string) {
	t.Helper()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}

// get asks a port of a sandbox, by host name.
func get(t *testing.T, s *stand.Server, port, id, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = port + "-" + id + ".cove.test"
	return roundTrip(t, req)
}

func testPorts(t *testing.T, s *stand.Server) {
	sb := s.Create(t, nil)
	defer sb.Kill(t)
	if status, body := get(t, s, "80", "inosuch", "/"); status != 502 ||
		body != `{"sandboxId":"inosuch","message":"The sandbox was not found","code":502}` {
		t.Errorf("unknown sandbox: %d %s", status, body)
	}
	if status, body := get(t, s, "8099", sb.ID, "/"); status != 502 ||
		body != `{"sandboxId":"`+sb.ID+`","message":"The sandbox is running but port is not open","port":8099,"code":502}` {
		t.Errorf("closed port: %d %s", status, body)
	}
	for port, bind := range map[string]string{"8001": "0.0.0.0", "8002": "127.0.0.1", "8003": "::1"} {
		sb.Run(t, `mkdir -p /w && cd /w && echo from `+port+` > index.html
			(setsid python3 -m http.server `+port+` --bind `+bind+` >/dev/null 2>&1 </dev/null &)
			until ss -ltn | grep -q :`+port+`; do sleep 0.1; done`)
		if status, body := get(t, s, port, sb.ID, "/"); status != 200 || body != "from "+port {
			t.Errorf("a server on %s: %d %q", bind, status, body)
		}
	}
	if status, body := get(t, s, "49983", sb.ID, "/init"); status != 404 || !strings.Contains(body, "reserved") {
		t.Errorf("an internal route: %d %s", status, body)
	}
	testWebSocket(t, s, sb)
}

// echoServer is a WebSocket server in nothing but Node's standard library.
const echoServer = `
const http = require('http'), crypto = require('crypto');
http.createServer().on('upgrade', (req, socket) => {
  const accept = crypto.createHash('sha1').update(req.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ' + accept + '\r\n\r\n');
  socket.on('data', d => {
    if ((d[0] & 15) !== 1) return socket.end();
    const n = d[1] & 127, mask = d.subarray(2, 6), text = Buffer.from(d.subarray(6, 6 + n)).map((b, i) => b ^ mask[i % 4]);
    socket.write(Buffer.concat([Buffer.from([0x81, n]), text]));
  });
}).listen(8004, '127.0.0.1');
`

func testWebSocket(t *testing.T, s *stand.Server, sb *stand.Sandbox) {
	sb.Run(t, "cat > /w/echo.js <<'END'\n"+echoServer+"\nEND\n"+
		"(setsid node /w/echo.js >/dev/null 2>&1 </dev/null &)\nuntil ss -ltn | grep -q :8004; do sleep 0.1; done")
	c, _, err := websocket.Dial(t.Context(), s.URL, &websocket.DialOptions{Host: "8004-" + sb.ID + ".cove.test"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if err := c.Write(t.Context(), websocket.MessageText, []byte("ping")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(t.Context()); string(got) != "ping" {
		t.Errorf("echo: %q, %v", got, err)
	}
}

func testLimits(t *testing.T, s *stand.Server) {
	sb := s.Create(t, nil)
	defer sb.Kill(t)
	if out := sb.Run(t, "nproc; grep MemTotal /proc/meminfo; df -BM --output=size / | tail -1").Stdout; !strings.HasPrefix(out, "2\n") ||
		!strings.Contains(out, "1048576 kB") || !strings.Contains(out, "10240M") {
		t.Errorf("inside, the limits look like this: %q", out)
	}
	// Disk and memory are not the same: twice the memory fits on the disk.
	if r := sb.Run(t, "dd if=/dev/zero of=/tmp/big bs=1M count=2048 status=none && rm /tmp/big"); r.Exit != 0 {
		t.Errorf("writing 2 GiB: %+v", r)
	}
}

func testUsers(t *testing.T, s *stand.Server) {
	sb := s.Create(t, map[string]any{"envVars": map[string]string{"GREETING": "hello"}})
	defer sb.Kill(t)
	out := sb.Run(t, `su user -c 'id -un; echo ~; sudo -n id -un' && echo $GREETING && hostname && getent hosts $(hostname) | wc -l`).Stdout
	if out != "user\n/home/user\nroot\nhello\n"+sb.ID+"\n1\n" {
		t.Errorf("inside: %q", out)
	}
}

func testKillDuringCommand(t *testing.T, s *stand.Server) {
	sb := s.Create(t, nil)
	stream, err := sb.Start(t.Context(), "echo started; sleep 600")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for stream.Receive() && string(stream.Msg().GetEvent().GetData().GetStdout()) != "started\n" {
	}
	sb.Kill(t)
	if stream.Receive() || stream.Err() == nil {
		t.Error("the stream of a killed sandbox ended as if all were well")
	}
	if status, _ := get(t, s, "49983", sb.ID, "/health"); status != 502 {
		t.Errorf("the health of a killed sandbox: %d, want 502", status)
	}
}

// counter counts in a file and never ends.
const counter = `(setsid sh -c 'i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done' >/dev/null 2>&1 </dev/null & echo $!)`

func TestSandboxesOutliveTheServer(t *testing.T) {
	s := stand.Start(t)
	sb, brief := s.Create(t, nil), s.Create(t, map[string]any{"timeout": 3})
	pid := strings.TrimSpace(sb.Run(t, counter).Stdout)
	count := func() int {
		n, err := strconv.Atoi(strings.TrimSpace(sb.Run(t, "kill -0 "+pid+" && cat /tmp/count").Stdout))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	s.Kill(t)
	s.Run(t)
	if after := count(); after <= before {
		t.Errorf("the same process counted to %d before and to %d after", before, after)
	}
	if list := s.List(t); len(list) == 0 || !strings.Contains(strings.Join(list, " "), sb.ID) {
		t.Errorf("list after the restart: %v", list)
	}
	if r := sb.Run(t, "pip download --no-deps -q -d /tmp/p six"); r.Exit != 0 {
		t.Errorf("no internet after the restart: %+v", r)
	}
	awaitGone(t, s, brief) // its end came, or comes, under the new server

	// The end is the node's own matter: move it, kill the server, and it counts.
	if status, body := s.Do(t, "POST", "/sandboxes/"+sb.ID+"/timeout", map[string]any{"timeout": 1}); status != 204 {
		t.Fatalf("timeout: %d %v", status, body)
	}
	s.Kill(t)
	s.Run(t)
	awaitGone(t, s, sb)
}

func awaitGone(t *testing.T, s *stand.Server, sb *stand.Sandbox) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		if status, _ := s.Do(t, "GET", "/sandboxes/"+sb.ID, nil); status == http.StatusNotFound {
			return
		}
	}
	t.Errorf("sandbox %s outlived its end", sb.ID)
}

func TestSecondServerOnTheSameDirectory(t *testing.T) {
	s := stand.New(t)
	s.Run(t)
	second := *s
	err := second.TryRun(t)
	if err == nil || !strings.Contains(err.Error(), "another cove serve uses this data directory") {
		t.Errorf("err = %v", err)
	}
}

func TestCredentials(t *testing.T) {
	s := stand.New(t)
	s.Run(t)
	path := filepath.Join(s.Dir, "credentials.env")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v", info.Mode(), err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	names := map[string]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, _, _ := strings.Cut(lines.Text(), "=")
		names[name] = true
	}
	for _, name := range []string{"E2B_API_KEY", "E2B_API_URL", "E2B_SANDBOX_URL"} {
		if !names[name] {
			t.Errorf("%s is missing", name)
		}
	}
	key := s.Key
	s.Stop(t)
	s.Run(t)
	if s.Key != key {
		t.Error("the key changed with a restart")
	}
}

func TestStreamIsPassedOnAtOnce(t *testing.T) {
	s := stand.Start(t)
	sb := s.Create(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := sb.Start(ctx, "echo one; read -t 60 < <(tail -f /tmp/go 2>/dev/null || sleep 60); echo two")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var out string
	for out != "one\n" && stream.Receive() {
		out += string(stream.Msg().GetEvent().GetData().GetStdout())
	}
	if out != "one\n" {
		t.Errorf("the first line did not come while the command runs: %q, %v", out, stream.Err())
	}
}
