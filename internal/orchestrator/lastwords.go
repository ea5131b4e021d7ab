package orchestrator

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/cove-sandbox/cove/internal/runtime"
)

// maxLastWords is how much of a crashed engine's complaint is logged, in bytes.
const maxLastWords = 4 << 10

// lastWords returns the beginning of what the engine said when it crashed.
func (s *sandbox) lastWords() string {
	f, err := os.Open(filepath.Join(s.dir(), runtime.PanicLog))
	if err != nil {
		return ""
	}
	defer f.Close()
	words, _ := io.ReadAll(io.LimitReader(f, maxLastWords)) // as much as can be read
	return string(words)
}

// maxReason bounds what a sandbox's owner is told of a crash, in bytes.
const maxReason = 300

var (
	complaint = regexp.MustCompile(`(?im)^(?:panic|fatal error): .+`)
	// hidden is what is nobody's business outside: paths and addresses of the
	// host.
	hidden = regexp.MustCompile(`\S*/\S*|0x[0-9a-fA-F]+`)
)

// reason is the part of an engine's last words that a sandbox's owner may know:
// the sentence, without the places. Code inside may have had a hand in it.
func reason(words string) string {
	line := hidden.ReplaceAllString(complaint.FindString(words), "…")
	return clip(strings.Map(func(r rune) rune {
		if r < ' ' || r == '\u007f' {
			return -1
		}
		return r
	}, strings.ToValidUTF8(line, "")), maxReason)
}

// clip shortens s to at most n bytes of whole letters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
