package envdclient_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/envd/envdclient"
)

// hostile returns a client of a daemon that reads a little and then answers
// with what it was told to, for as long as anybody listens.
func hostile(t *testing.T, head, repeat string) *envdclient.Client {
	t.Helper()
	return hostileFor(t, head, repeat, 0)
}

// hostileFor is hostile with a limit to silence.
func hostileFor(t *testing.T, head, repeat string, silence time.Duration) *envdclient.Client {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
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
			conn.Read(make([]byte, 1024))
			_, err = io.WriteString(conn, head)
			for err == nil {
				if repeat == "" { // silence: wait until the client gives up
					_, err = conn.Read(make([]byte, 1024))
					continue
				}
				_, err = io.WriteString(conn, repeat)
			}
			conn.Close()
		}
	}()
	c := envdclient.New(envdclient.Config{Silence: silence, Dial: func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", ln.Addr().String())
	}})
	t.Cleanup(func() {
		c.Close()
		ln.Close()
		<-done
	})
	return c
}

func TestHostileAnswers(t *testing.T) {
	for name, c := range map[string]struct{ head, repeat string }{
		"endless body":    {"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{", strings.Repeat(" ", 4096)},
		"endless headers": {"HTTP/1.1 200 OK\r\n", "X: " + strings.Repeat("x", 4096) + "\r\n"},
		"endless line":    {"HTTP/1.1 200 OK\r\nX: ", strings.Repeat("x", 4096)},
		"no HTTP":         {"SSH-2.0-hello\r\n", "hello\r\n"},
		"not JSON":        {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", ""},
		"redirect":        {"HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			client := hostile(t, c.head, c.repeat)
			if _, err := client.Metrics(ctx); !cove.Is(err, cove.Unavailable) {
				t.Errorf("metrics: %v", err)
			}
			if conn, err := client.Connect(ctx, 1); !cove.Is(err, cove.Unavailable) {
				t.Errorf("connect: %v, %v", conn, err)
			}
			if ctx.Err() != nil {
				t.Error("gave up only because the time was over")
			}
		})
	}
}

func TestSilence(t *testing.T) {
	client := hostile(t, "", "")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.Connect(ctx, 1); !cove.Is(err, cove.Unavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("connect: %v", err)
	}
	if err := client.Health(ctx); !cove.Is(err, cove.Unavailable) {
		t.Errorf("health: %v", err)
	}
}

// The first bytes of the other side may come along with the answer.
func TestEarlyBytes(t *testing.T) {
	const head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: cove-tcp\r\n\r\nearly"
	conn, err := hostile(t, head, "").Connect(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "early" {
		t.Errorf("read %q, %v", got, err)
	}
}
