package e2e_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/test/stand"
)

type logLine struct {
	Message, Level string
	Fields         map[string]string
}

// logOf returns the lines of a sandbox's log that contain a text.
func logOf(t *testing.T, s *stand.Server, sb *stand.Sandbox, text string) []logLine {
	t.Helper()
	var log struct{ Logs []logLine }
	read(t, s, "/v2/sandboxes/"+sb.ID+"/logs?search="+url.QueryEscape(text), &log)
	return log.Logs
}

// wantSaid waits until the log has a line with a text, and wants only that one.
func wantSaid(t *testing.T, s *stand.Server, sb *stand.Sandbox, text string) logLine {
	t.Helper()
	settles(true, func() bool { return len(logOf(t, s, sb, text)) > 0 })
	lines := logOf(t, s, sb, text)
	if len(lines) != 1 {
		t.Fatalf("with %q the log has %+v, want one line\n%s", text, lines, s.Log())
	}
	return lines[0]
}

func wantNotSaid(t *testing.T, s *stand.Server, sb *stand.Sandbox, text string) {
	t.Helper()
	if lines := logOf(t, s, sb, text); len(lines) > 0 {
		t.Errorf("with %q the log has %+v, want none", text, lines)
	}
}

// hog takes all memory, under a name of its own.
func hog(t *testing.T, sb *stand.Sandbox, name string) {
	t.Helper()
	r, err := sb.TryRun(t, "cp -n $(command -v tail) /tmp/"+name+" && exec /tmp/"+name+" /dev/zero")
	if err != nil || r.Exit == 0 {
		t.Fatalf("the hog %s: %+v, %v", name, r, err)
	}
}

// TestOwnersAreTold ends processes for want of memory, and looks for the reason
// in the log of the sandbox.
func TestOwnersAreTold(t *testing.T) {
	s := stand.Start(t)
	sb := s.Create(t, nil)
	hog(t, sb, "first-hog")
	l := wantSaid(t, s, sb, "first-hog")
	if l.Level != "warn" || l.Fields["logger"] != "guard" || l.Fields["source"] != "sandbox" || l.Fields["event"] != "" ||
		!strings.Contains(l.Message, "was ended because the sandbox's memory ran out") || !strings.Contains(l.Message, "more memory") {
		t.Errorf("the reason: %+v", l)
	}
	t.Log(l.Message)

	pause(t, s, sb)
	connect(t, s, sb, http.StatusCreated)
	hog(t, sb, "second-hog")
	wantSaid(t, s, sb, "second-hog")
	wantSaid(t, s, sb, "first-hog")

	made := sb.Fork(t, 1)[0]
	hog(t, made, "third-hog")
	hog(t, sb, "fourth-hog") // the origin was thawed, and goes on to speak
	wantSaid(t, s, made, "third-hog")
	wantSaid(t, s, sb, "fourth-hog")
	for _, name := range []string{"first-hog", "second-hog", "fourth-hog"} {
		wantNotSaid(t, s, made, name)
	}
	wantNotSaid(t, s, sb, "third-hog")

	s.Kill(t) // as a power cut would
	s.Run(t)
	s.Create(t, nil).Kill(t) // by then it has long taken them over
	hog(t, sb, "fifth-hog")
	wantSaid(t, s, sb, "fifth-hog")
	sb.Kill(t)
	for _, name := range []string{"second-hog", "fourth-hog", "fifth-hog"} {
		if n := len(logOf(t, s, sb, name)); n > 1 {
			t.Errorf("%s is in the log %d times", name, n)
		}
	}
}

// impostor reads the journal in the host's place, again and again.
const impostor = `
token=$(tr '\0' '\n' </proc/1/environ | sed -n 's/^COVE_CONTROL_TOKEN=//p')
for i in $(seq 30); do
  curl -s -m 0.1 -H "X-Cove-Control: $token" 'http://127.0.0.1:49983/journal?after=0' | head -c 20000
done | head -n 1
`

// liar takes the daemon's place, which root inside can, and says what it likes as
// fast as it can. The real daemon's reader is sent away, so that it comes to him.
const liar = `
cat >/tmp/liar.py <<'END'
import socket
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("169.254.0.21", 49983))
s.listen()
open("/tmp/lies", "w").close()
while True:
    c, _ = s.accept()
    try:
        c.recv(1000)
        c.sendall(b'HTTP/1.1 200 OK\r\n\r\n{"seq":0}\n')
        for n in range(1, 1000000):
            c.sendall(b'{"seq":%d,"lost":1,"level":"info","logger":"lifecycle","message":"a lie\\u001b","event":"killed"}\n' % n)
    except OSError:
        pass
END
token=$(tr '\0' '\n' </proc/1/environ | sed -n 's/^COVE_CONTROL_TOKEN=//p')
(setsid sh -c "
python3 /tmp/liar.py &
until [ -e /tmp/lies ]; do sleep 0.05; done
curl -s -m 0.1 -H 'X-Cove-Control: $token' http://127.0.0.1:49983/journal
wait" >/dev/null 2>&1 </dev/null &)
`

// trickster takes all memory under a name that plays tricks in a terminal.
const trickster = `exec python3 -c "
import ctypes
ctypes.CDLL(None).prctl(15, b'\x1b[2Jlife\ncycle', 0, 0, 0)
held = bytearray(3 << 30)"`

// TestHostileLines has root inside do what it can to the sandbox's log.
func TestHostileLines(t *testing.T) {
	s := stand.Start(t)
	sb := s.Create(t, nil)
	if r := sb.Run(t, impostor); !strings.HasPrefix(r.Stdout, `{"seq":0}`) {
		t.Errorf("the impostor got nothing, so nothing was tried: %+v", r)
	}
	if r, err := sb.TryRun(t, trickster); err != nil || r.Exit == 0 {
		t.Errorf("the trickster: %+v, %v", r, err)
	}
	l := wantSaid(t, s, sb, "life") // the host has its place again
	if l.Fields["logger"] != "guard" || strings.ContainsAny(l.Message, "\x1b\n") {
		t.Errorf("line = %+v", l)
	}
	if status, _ := get(t, s, "49983", sb.ID, "/journal"); status == http.StatusOK {
		t.Error("the edge lets others read the journal")
	}

	before := time.Now()
	sb.Run(t, liar)
	if !settles(true, func() bool { return len(logOf(t, s, sb, "a lie")) > 60 }) {
		t.Fatal("he lied, and nobody heard: nothing was tried")
	}
	lies := logOf(t, s, sb, "a lie")
	if most := 50 * (int(time.Since(before).Seconds()) + 1); len(lies) > most {
		t.Errorf("%d lines were taken, at most %d should be", len(lies), most)
	}
	for _, l := range lies {
		if l.Fields["logger"] != "envd" || l.Fields["source"] != "sandbox" || l.Fields["event"] != "" || l.Message != "a lie " {
			t.Fatalf("line = %+v", l)
		}
	}
	if status, _, err := s.Attempt(t.Context(), "POST", "/sandboxes/"+sb.ID+"/pause", nil); err != nil || status != http.StatusNoContent {
		t.Errorf("the pause of one who lies: %d, %v", status, err)
	}
	if got := strings.Fields(events(t, s, sb, "")); !slices.Equal(got, []string{"created", "paused"}) {
		t.Errorf("the log says %q", got)
	}
	sb.Kill(t)
}
