package control_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node/nodetest"
)

func logOf(t *testing.T, b *bench, id cove.SandboxID) []cove.LogLine {
	t.Helper()
	lines, err := b.SandboxLogs(t.Context(), team, id, cove.LogFilter{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// events returns what a log says happened, one word each.
func events(lines []cove.LogLine) string {
	var all string
	for _, l := range lines {
		all += l.Fields["event"] + " "
	}
	return all
}

func wantEvents(t *testing.T, b *bench, id cove.SandboxID, want string) {
	t.Helper()
	if got := events(logOf(t, b, id)); got != want {
		t.Errorf("the log says %q, want %q", got, want)
	}
}

func TestLogOfALife(t *testing.T) {
	b := fresh(t)
	sb := create(t, b)
	if err := b.PauseSandbox(t.Context(), team, sb.ID, cove.Pause{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	copies, err := b.ForkSandbox(t.Context(), team, sb.ID, 1, time.Minute)
	if err != nil || copies[0].Err != nil {
		t.Fatal(err, copies)
	}
	wantEvents(t, b, copies[0].Sandbox.ID, "created ")
	if err := b.KillSandbox(t.Context(), team, sb.ID); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, b, sb.ID, "created paused resumed forked killed ") // it has ended, and its log is there
	for _, l := range logOf(t, b, sb.ID) {
		if l.Team != team || l.Sandbox != sb.ID || l.Level != cove.LogInfo || l.Logger != "lifecycle" || l.Message == "" || l.At.IsZero() {
			t.Errorf("line = %+v", l)
		}
	}
	for name, by := range map[cove.SandboxID]cove.TeamID{sb.ID: rival, "nobody": team} {
		_, err := b.SandboxLogs(t.Context(), by, name, cove.LogFilter{Limit: 1})
		wantKind(t, string(name)+" of "+string(by), err, cove.NotFound)
	}
	lines, err := b.SandboxLogs(t.Context(), team, sb.ID, cove.LogFilter{Limit: 1, Search: "RESUMED", Backward: true})
	if err != nil || events(lines) != "resumed " {
		t.Errorf("searched: %+v, %v", lines, err)
	}
}

func TestLogOfEnds(t *testing.T) {
	b := fresh(t)
	crashed := create(t, b)
	b.node.Words = "panic: " + strings.Repeat("ü", 5000)
	b.node.Crash(crashed.ID)
	wantEvents(t, b, crashed.ID, "created crashed ")
	last := logOf(t, b, crashed.ID)[1]
	if last.Level != cove.LogError || !strings.Contains(last.Message, "panic: ü") || len(last.Message) > 4<<10 || !utf8.ValidString(last.Message) {
		t.Errorf("line of a crash = %+v", last)
	}
	silent := create(t, b)
	b.node.Words = ""
	b.node.Crash(silent.ID)
	wantEvents(t, b, silent.ID, "created crashed ")

	expired := create(t, b)
	if err := b.SetTimeout(t.Context(), team, expired.ID, 0); err != nil {
		t.Fatal(err)
	}
	await(t, "its end", func() bool { return events(logOf(t, b, expired.ID)) == "created expired " })
}

func TestLogOfWhatEndedMeanwhile(t *testing.T) {
	s := records(t)
	b := open(t, s, &nodetest.Fake{}, &builder{}, never)
	lost, late := create(t, b), create(t, b)
	if _, err := s.MoveEnd(t.Context(), team, late.ID, time.Now().Add(-time.Second), false); err != nil {
		t.Fatal(err)
	}
	b.stop()
	next := open(t, s, &nodetest.Fake{}, &builder{}, never) // the host was started anew
	wantEvents(t, next, lost.ID, "created lost ")
	wantEvents(t, next, late.ID, "created expired ")
}

func TestLogOfAFailedStartIsNone(t *testing.T) {
	b := fresh(t)
	b.node.Fail = func(spec cove.Spec) error {
		_, err := b.SandboxLogs(t.Context(), team, spec.ID, cove.LogFilter{Limit: 1})
		wantKind(t, "while it starts", err, cove.NotFound)
		return cove.E(cove.Exhausted, "test", nil, "the host is full")
	}
	if _, err := b.CreateSandbox(t.Context(), team, request()); err == nil {
		t.Error("it started")
	}
}

func TestLogOfAPauseThatFails(t *testing.T) {
	b := fresh(t)
	req := request()
	req.OnTimeout = cove.PauseOnTimeout
	b.node.FailPause = func(cove.SandboxID) error {
		return cove.E(cove.NoSpace, "test", nil, "the disk is full")
	}
	sb, err := b.CreateSandbox(t.Context(), team, req)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.SetTimeout(t.Context(), team, sb.ID, 0); err != nil {
		t.Fatal(err)
	}
	await(t, "a line", func() bool { return events(logOf(t, b, sb.ID)) == "created pause_failed " })
	if last := logOf(t, b, sb.ID)[1]; last.Level != cove.LogWarn || !strings.HasSuffix(last.Message, "the disk is full") {
		t.Errorf("line = %+v", last)
	}
}
