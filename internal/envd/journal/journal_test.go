package journal_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cove-sandbox/cove/internal/envd/journal"
)

type line struct {
	Seq, Lost              uint64
	At                     time.Time
	Level, Logger, Message string
}

// serve runs a journal until the test ends and returns it with its address.
func serve(t *testing.T) (*journal.Journal, string) {
	t.Helper()
	j := journal.New()
	srv := httptest.NewServer(j)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("run: %v", err)
		}
		srv.Close()
	})
	return j, srv.Listener.Addr().String()
}

// A listener is somebody who reads a journal.
type listener struct {
	t    *testing.T
	conn net.Conn
	text *bufio.Reader
}

// listen asks for a journal and reads the line that says where it begins.
func listen(t *testing.T, addr, query string, from uint64) *listener {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /journal%s HTTP/1.1\r\nHost: envd\r\n\r\n", query)
	l := &listener{t, conn, bufio.NewReader(conn)}
	resp, err := http.ReadResponse(l.text, nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
	if first := l.next(); first != (line{Seq: from}) {
		t.Fatalf("begins with %+v, want %d", first, from)
	}
	return l
}

func (l *listener) next() (out line) {
	l.t.Helper()
	text, err := l.text.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		l.t.Fatalf("%v in %q", err, text)
	}
	return out
}

func (l *listener) want(seq, lost uint64, message string) {
	l.t.Helper()
	if got := l.next(); got.Seq != seq || got.Lost != lost || got.Message != message {
		l.t.Errorf("line %+v, want %d %q, %d lost", got, seq, message, lost)
	}
}

func TestLinesArriveOnce(t *testing.T) {
	j, addr := serve(t)
	before := time.Now()
	j.Add("warn", "guard", "one")
	l := listen(t, addr, "?after=0", 0)
	if got := l.next(); got.Level != "warn" || got.Logger != "guard" || got.Message != "one" || got.At.Before(before.Add(-time.Second)) {
		t.Errorf("line %+v", got)
	}
	j.Add("warn", "guard", "two")
	l.want(2, 0, "two")
	j.Add("error", "envd", "three")
	l.want(3, 0, "three")

	again := listen(t, addr, "?after=2", 2)
	again.want(3, 0, "three")
	if _, err := l.text.ReadByte(); err != io.EOF {
		t.Errorf("the former reader: %v", err)
	}
	newest := listen(t, addr, "", 3)
	j.Add("warn", "guard", "four")
	newest.want(4, 0, "four")
	// A number that was never given is that of another journal.
	strange := listen(t, addr, "?after=99", 4)
	j.Add("warn", "guard", "five")
	strange.want(5, 0, "five")
}

func TestTheOldestAreOverwritten(t *testing.T) {
	j, addr := serve(t)
	for i := range 1000 {
		j.Add("warn", "guard", fmt.Sprint(i+1))
	}
	l := listen(t, addr, "?after=10", 10)
	l.want(745, 734, "745")
	for i := 746; i <= 1000; i++ {
		l.want(uint64(i), 0, fmt.Sprint(i))
	}
}

// A reader that reads nothing holds nobody up, and is told what it missed.
func TestSlowReader(t *testing.T) {
	j, addr := serve(t)
	l := listen(t, addr, "?after=0", 0)
	const lines = 20_000 // far more than the system holds for a connection
	long := strings.Repeat("x", 4<<10)
	for range lines {
		j.Add("warn", "guard", long)
	}
	var heard, lost, last uint64
	for last < lines {
		got := l.next()
		heard, lost, last = heard+1, lost+got.Lost, got.Seq
	}
	if lost == 0 || heard+lost != lines {
		t.Errorf("heard %d, lost %d of %d", heard, lost, lines)
	}
}

func TestLongLinesAreCut(t *testing.T) {
	j, addr := serve(t)
	j.Add("warn", "guard", strings.Repeat("ü", 5000)+"x")
	if got := listen(t, addr, "?after=0", 0).next(); len(got.Message) != 4<<10 || !utf8.ValidString(got.Message) {
		t.Errorf("%d bytes", len(got.Message))
	}
}

func TestWhatIsRefused(t *testing.T) {
	j, _ := serve(t)
	for _, query := range []string{"?after=-1", "?after=x", "?after=99999999999999999999"} {
		w := httptest.NewRecorder()
		j.ServeHTTP(w, httptest.NewRequest("GET", "/journal"+query, nil))
		if w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", query, w.Code)
		}
	}
}

func TestLogger(t *testing.T) {
	j, addr := serve(t)
	var text strings.Builder
	log := j.Logger("guard", slog.New(slog.NewTextHandler(&text, nil)))
	log.Info("for others")
	log.With("secret", 1).WithGroup("g").Warn("for both", "path", "/x")
	log.Error("bad", "err", io.EOF)
	quiet := j.Logger("envd", slog.New(slog.DiscardHandler))
	quiet.Warn("for the journal")
	l := listen(t, addr, "?after=0", 0)
	for _, want := range []line{{Level: "warn", Logger: "guard", Message: "for both"}, {Level: "error", Logger: "guard", Message: "bad"}, {Level: "warn", Logger: "envd", Message: "for the journal"}} {
		if got := l.next(); got.Level != want.Level || got.Logger != want.Logger || got.Message != want.Message {
			t.Errorf("line %+v, want %+v", got, want)
		}
	}
	if n := strings.Count(text.String(), "\n"); n != 3 {
		t.Errorf("the log: %s", &text)
	}
}

// Nobody gets a place once the journal is closed.
func TestAfterTheEnd(t *testing.T) {
	j := journal.New()
	srv := httptest.NewServer(j)
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Run(ctx); err != context.Canceled {
		t.Errorf("run: %v", err)
	}
	if _, err := http.Get(srv.URL); err == nil {
		t.Error("it was served")
	}
}
