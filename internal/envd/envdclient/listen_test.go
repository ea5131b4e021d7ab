package envdclient_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/envd/envdclient"
)

const accepted = "HTTP/1.1 200 OK\r\n\r\n{\"seq\":0}\n"

// listen returns the lines that are heard before the error, at most a hundred.
func listen(t *testing.T, head, repeat string) ([]envdclient.Line, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var lines []envdclient.Line
	err := hostile(t, head, repeat).Listen(ctx, 0, func(l envdclient.Line) bool {
		lines = append(lines, l)
		return len(lines) < 100
	})
	if ctx.Err() != nil {
		t.Error("gave up only because the time was over")
	}
	return lines, err
}

func TestListenToHostileOnes(t *testing.T) {
	for name, c := range map[string]struct{ head, repeat string }{
		"endless headers": {"HTTP/1.1 200 OK\r\n", "X: " + strings.Repeat("x", 4096) + "\r\n"},
		"no HTTP":         {"SSH-2.0-hello\r\n", "hello\r\n"},
		"endless line":    {accepted, strings.Repeat(" ", 4096)},
		"empty lines":     {accepted, "\n"},
		"not JSON":        {accepted, "hello\n"},
		"deep JSON":       {accepted, strings.Repeat("[", 9000) + "\n"},
		"the same line":   {accepted, `{"seq":7,"message":"x"}` + "\n"},
		"only positions":  {accepted, `{"seq":7}` + "\n"},
		"no position":     {"HTTP/1.1 200 OK\r\n\r\n", `{"seq":7,"message":"x"}` + "\n"},
		"negative":        {"HTTP/1.1 200 OK\r\n\r\n", `{"seq":-7}` + "\n"},
		"lost negative":   {accepted, `{"seq":7,"lost":-1,"message":"x"}` + "\n"},
		"too large":       {accepted, `{"seq":99999999999999999999,"message":"x"}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			lines, err := listen(t, c.head, c.repeat)
			if !cove.Is(err, cove.Unavailable) || len(lines) > 2 {
				t.Errorf("%d lines, %v", len(lines), err)
			}
		})
	}
}

func TestListenToOneWithoutAJournal(t *testing.T) {
	for _, status := range []string{"404 Not Found", "401 Unauthorized", "302 Found"} {
		_, err := listen(t, "HTTP/1.1 "+status+"\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "")
		if !cove.Is(err, cove.Unimplemented) {
			t.Errorf("%s: %v", status, err)
		}
	}
}

func TestLinesAreCleaned(t *testing.T) {
	var head strings.Builder
	head.WriteString(accepted)
	for i, rest := range []string{
		`"level":"error","logger":"guard","message":"good"`,
		`"level":"fatal","logger":"lifecycle","message":"a\nb\u001b[31mc\u202ed\u2028e"`,
		`"level":"","logger":"` + strings.Repeat("x", 3000) + "\",\"message\":\"\xff\xfe\\ud800\"",
		`"message":"` + strings.Repeat("ü", 5000) + `","extra":{"a":[1]}`,
	} {
		fmt.Fprintf(&head, "{\"seq\":%d,\"lost\":%d,%s}\n", i+1, i, rest)
	}
	head.WriteString("end\n")
	lines, err := listen(t, head.String(), "")
	if !cove.Is(err, cove.Unavailable) || len(lines) != 5 {
		t.Fatalf("%+v, %v", lines, err)
	}
	if lines[1] != (envdclient.Line{Seq: 1, Level: cove.LogError, Logger: "guard", Message: "good"}) {
		t.Errorf("an honest line: %+v", lines[1])
	}
	if l := lines[2]; l.Message != "a b [31mc d e" || l.Level != cove.LogInfo || l.Logger != "envd" || l.Lost != 1 {
		t.Errorf("a line that plays tricks: %+v", l)
	}
	for _, l := range lines[1:] {
		if len(l.Message) > 4<<10 || len(l.Message) == 0 || strings.ContainsFunc(l.Message, unicode.IsControl) || l.Logger == "lifecycle" {
			t.Errorf("line %+v", l)
		}
	}
}

// Whoever has heard enough is not told more, and that is no error.
func TestListenUntilEnough(t *testing.T) {
	err := hostile(t, accepted, "").Listen(t.Context(), 0, func(envdclient.Line) bool { return false })
	if err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = hostile(t, accepted, "").Listen(ctx, envdclient.FromNow, func(envdclient.Line) bool { cancel(); return true })
	if !cove.Is(err, cove.Unavailable) {
		t.Errorf("after the end of the context: %v", err)
	}
}
