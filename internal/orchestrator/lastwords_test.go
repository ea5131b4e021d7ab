package orchestrator_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cove-sandbox/cove/internal/orchestrator"
)

func TestReasonOfACrash(t *testing.T) {
	for words, want := range map[string]string{
		"":                             "",
		"goroutine 1 [running]:\nmain": "",
		"some warning\npanic: out of \x1b[1mmemory\n\ngoroutine 7 [running]:\nmain.main()\n\t/build/secret/main.go:7 +0x1f\n": "panic: out of [1mmemory",
		"panic: open /srv/cove/sandboxes/i1/upper: no such file":                                                              "panic: open … no such file",
		"fatal error: fault at 0xc000123456 in relative/path":                                                                 "fatal error: fault at … in …",
		"FATAL ERROR: cannot go on\xff":                                                                                       "FATAL ERROR: cannot go on",
	} {
		if got := orchestrator.Reason(words); got != want {
			t.Errorf("%q: %q, want %q", words, got, want)
		}
	}
	long := orchestrator.Reason("panic: " + strings.Repeat("ü", 1000))
	if len(long) > 300 || !utf8.ValidString(long) {
		t.Errorf("%d bytes: %q", len(long), long)
	}
}
