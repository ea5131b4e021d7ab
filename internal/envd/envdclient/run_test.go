package envdclient_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/envd/envdclient"
)

const streaming = "HTTP/1.1 200 OK\r\nContent-Type: application/connect+json\r\nConnection: close\r\n\r\n"

// framed puts a message into the envelope of a stream.
func framed(flags byte, message string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message)))) + message
}

var (
	begun = framed(0, `{"event":{"start":{"pid":1}}}`)
	piece = framed(0, `{"event":{"data":{"stdout":"eA=="}}}`)
)

func TestRunHostileOnes(t *testing.T) {
	for name, c := range map[string]struct{ head, repeat string }{
		"endless headers":  {"HTTP/1.1 200 OK\r\n", "X: " + strings.Repeat("x", 4096) + "\r\n"},
		"no HTTP":          {"SSH-2.0-hello\r\n", "hello\r\n"},
		"another type":     {"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", "hello"},
		"redirect":         {"HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", ""},
		"output first":     {streaming + piece, piece},
		"two starts":       {streaming + begun + begun, piece},
		"nothing at all":   {streaming + framed(0, `{}`), piece},
		"huge message":     {streaming + begun + "\x00\xff\xff\xff\xff", "x"},
		"large message":    {streaming + begun + "\x00\x00\x10\x00\x00", strings.Repeat(" ", 4096)},
		"compressed":       {streaming + begun + framed(1, "\x1f\x8b"), piece},
		"deep JSON":        {streaming + begun + framed(0, strings.Repeat(`{"event":`, 9000)), piece},
		"not JSON":         {streaming + begun + framed(0, "hello"), piece},
		"ended without":    {streaming + begun + framed(2, "{}"), ""},
		"large end":        {streaming + begun + "\x02\x0f\xff\xff\xff", strings.Repeat("x", 4096)},
		"end, not JSON":    {streaming + begun + framed(2, "hello"), piece},
		"silence at first": {"", ""},
		"silence":          {streaming, ""},
		"silence later":    {streaming + begun, ""},
		"half a message":   {streaming + begun + "\x00\x00\x00\x10\x00{", ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			exit, err := hostileFor(t, c.head, c.repeat, 200*time.Millisecond).Run(ctx, envdclient.Command{Args: []string{"x"}}, func(bool, []byte) {})
			if !cove.Is(err, cove.Unavailable) {
				t.Errorf("%+v, %v", exit, err)
			}
			begun := strings.HasPrefix(c.head, streaming+begun) // what comes then is not heard
			if err := hostileFor(t, c.head, c.repeat, 200*time.Millisecond).Begin(ctx, envdclient.Command{Args: []string{"x"}}); begun != (err == nil) || !begun && !cove.Is(err, cove.Unavailable) {
				t.Errorf("begin: %v", err)
			}
			if ctx.Err() != nil {
				t.Error("gave up only because the time was over")
			}
		})
	}
}

// Whoever never tires of talking is heard until the context ends, and the kill
// that is not answered takes a while and no longer.
func TestRunEndlessOne(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	pieces := 0
	_, err := hostile(t, streaming+begun, strings.Repeat(piece, 100)).Run(ctx, envdclient.Command{Args: []string{"x"}}, func(bool, []byte) {
		if pieces++; pieces == 1000 {
			cancel()
		}
	})
	if ctx.Err() == nil || pieces < 1000 || err == nil {
		t.Errorf("%d pieces, %v", pieces, err)
	}
}

func TestRunCleansWords(t *testing.T) {
	command := envdclient.Command{Args: []string{"x"}}
	end := framed(0, `{"event":{"end":{"exitCode":-7,"exited":true,"error":"a\nb\u001b[31m`+strings.Repeat("x", 5000)+`"}}}`)
	exit, err := hostile(t, streaming+begun+end, piece).Run(t.Context(), command, func(bool, []byte) { t.Error("heard something after the end") })
	if err != nil || exit.Code != -7 || len(exit.Error) != 4<<10 || !strings.HasPrefix(exit.Error, "a b [31mxx") {
		t.Errorf("%+v, %v", exit, err)
	}
	for said, want := range map[string]string{
		`{"error":{"code":"not_found","message":"a\nb"}}`: "not_found: a b",
		`{"error":{"code":"made\nup","message":"x"}}`:     "unknown: x",
		`{"error":{}}`: "unknown: ",
	} {
		answer := begun + framed(2, said)
		head := strings.Replace(streaming, "Connection: close", fmt.Sprint("Content-Length: ", len(answer)), 1)
		_, err := hostile(t, head+answer, "").Run(t.Context(), command, func(bool, []byte) {})
		if refused, ok := err.(*envdclient.RefusedError); !ok || refused.Error() != want {
			t.Errorf("%s: %v", said, err)
		}
	}
}

func TestCopyHostileOnes(t *testing.T) {
	answer := func(status, body string) string {
		return fmt.Sprintf("HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
	}
	for name, c := range map[string]struct{ head, repeat string }{
		"endless body":  {"HTTP/1.1 200 OK\r\n\r\n{", strings.Repeat(" ", 4096)},
		"endless words": {"HTTP/1.1 400 Bad Request\r\n\r\n{", strings.Repeat(" ", 4096)},
		"not JSON":      {answer("200 OK", "x"), ""},
		"negative":      {answer("200 OK", `{"files":-1,"bytes":0}`), ""},
		"no words":      {answer("400 Bad Request", "x"), ""},
		"redirect":      {answer("307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/", ""), ""},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			done, err := hostile(t, c.head, c.repeat).Copy(ctx, envdclient.CopyOrder{}, strings.NewReader("archive"), 7)
			if !cove.Is(err, cove.Unavailable) || ctx.Err() != nil {
				t.Errorf("%+v, %v", done, err)
			}
		})
	}
	_, err := hostile(t, answer("507 Full", `{"message":"a\u001bb"}`), "").Copy(t.Context(), envdclient.CopyOrder{}, strings.NewReader("archive"), 7)
	if refused, ok := err.(*envdclient.RefusedError); !ok || refused.Error() != "resource_exhausted: a b" {
		t.Errorf("%v", err)
	}
}
