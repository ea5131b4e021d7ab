package control_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node/nodetest"
)

// messages returns what a sandbox said itself.
func messages(lines []cove.LogLine) (all []string) {
	for _, l := range lines {
		if l.Fields["source"] == "sandbox" {
			all = append(all, l.Message)
		}
	}
	return all
}

func TestWhatASandboxSaysIsInItsLog(t *testing.T) {
	b := fresh(t)
	sb, other := create(t, b), create(t, b)
	b.node.Say(sb.ID, "a process was ended")
	b.node.Say("inobody", "I am nobody's")
	lines, err := b.SandboxLogs(t.Context(), team, sb.ID, cove.LogFilter{Limit: 1, Search: "PROCESS"})
	if err != nil || len(lines) != 1 {
		t.Fatalf("searched: %+v, %v", lines, err)
	}
	l := lines[0]
	if l.Team != team || l.Sandbox != sb.ID || l.Level != cove.LogWarn || l.Logger != "guard" || l.At.IsZero() || l.Message != "a process was ended" ||
		l.Fields["event"] != "" || l.Fields["execution"] != string(sb.Execution) || l.Fields["source"] != "sandbox" {
		t.Errorf("line = %+v", l)
	}
	if got := messages(logOf(t, b, other.ID)); got != nil {
		t.Errorf("another one's log: %q", got)
	}
	_, err = b.SandboxLogs(t.Context(), rival, sb.ID, cove.LogFilter{Limit: 1})
	wantKind(t, "another team's", err, cove.NotFound)

	// It is heard in its next life too, and its log outlives it.
	if err := b.PauseSandbox(t.Context(), team, sb.ID, cove.Pause{}); err != nil {
		t.Fatal(err)
	}
	b.node.Say(sb.ID, "while it stands")
	if _, _, err := b.ConnectSandbox(t.Context(), team, sb.ID, cove.Resume{Timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	b.node.Say(sb.ID, strings.Repeat("ü", 5000))
	if err := b.KillSandbox(t.Context(), team, sb.ID); err != nil {
		t.Fatal(err)
	}
	b.node.Say(sb.ID, "after the end")
	got := messages(logOf(t, b, sb.ID))
	if len(got) != 2 || len(got[1]) > 4<<10 || !utf8.ValidString(got[1]) {
		t.Errorf("the log: %q", got)
	}
	wantEvents(t, b, sb.ID, "created  paused resumed  killed ")
}

// Whoever floods the log does not push out what became of others, nor what
// cannot be written yet, and keeps no more than a log may hold.
func TestFloodOfLines(t *testing.T) {
	s := &stubborn{Store: records(t), refuse: true}
	b := open(t, s, &nodetest.Fake{}, &builder{}, never)
	quiet, loud := create(t, b), create(t, b)
	for i := range 20_000 {
		b.node.Say(loud.ID, fmt.Sprint(i))
	}
	s.mu.Lock()
	s.refuse = false
	s.mu.Unlock()
	wantEvents(t, b, quiet.ID, "created ")
	if got := messages(allOf(t, b, loud.ID)); len(got) == 0 || len(got) > 5000 {
		t.Errorf("%d lines were held", len(got))
	}
	for i := range 12_000 {
		b.node.Say(loud.ID, fmt.Sprint("again ", i))
	}
	got := messages(allOf(t, b, loud.ID))
	if len(got) != 10_000 || got[len(got)-1] != "again 11999" {
		t.Errorf("%d lines are kept, the last of them %q", len(got), got[len(got)-1])
	}
	wantEvents(t, b, quiet.ID, "created ")
}

// allOf returns all lines of a log.
func allOf(t *testing.T, b *bench, id cove.SandboxID) []cove.LogLine {
	t.Helper()
	lines, err := b.SandboxLogs(t.Context(), team, id, cove.LogFilter{Limit: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}
