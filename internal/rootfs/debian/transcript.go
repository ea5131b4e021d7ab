package debian

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
)

// What a transcript keeps for an error message.
const (
	tailLines = 20
	tailBytes = 4 << 10
	maxLine   = 1 << 10 // longer lines are cut
)

// A transcript reads what mmdebstrap and the programs under it print, turns it
// into progress and remembers the end of it. It is an io.Writer for one
// goroutine.
type transcript struct {
	report func(Event)
	line   []byte // unfinished
	last   []string

	step         string
	bytes, total int64
	gets         []get // of the step "running apt-get update"
	expired      bool  // apt refused a Release file as too old
	full         bool  // something said the disk is full
}

type get struct{ uri, suite string }

func newTranscript(report func(Event)) *transcript { return &transcript{report: report} }

// Write takes output; it never fails.
func (t *transcript) Write(p []byte) (int, error) {
	rest := p
	for len(rest) > 0 {
		i := bytes.IndexAny(rest, "\r\n")
		chunk := rest
		if i >= 0 {
			chunk = rest[:i]
		}
		if room := maxLine - len(t.line); room > 0 {
			t.line = append(t.line, chunk[:min(len(chunk), room)]...)
		}
		if i < 0 {
			break
		}
		rest = rest[i+1:]
		t.flush()
	}
	return len(p), nil
}

// flush ends the line.
func (t *transcript) flush() {
	line := strings.TrimRight(strings.ToValidUTF8(string(t.line), "?"), " \t")
	t.line = t.line[:0]
	if line != "" {
		t.add(line)
	}
}

// noise are steps of mmdebstrap that say nothing about the work.
var noise = regexp.MustCompile(`^(chroot architecture|finding correct signed-by|automatically chosen|using .* as tempdir|` +
	`running --[a-z-]+-hook|main\(\) received|removing tempdir|success in|skipping |done$)`)

// Lines of apt.
var (
	getLine  = regexp.MustCompile(`^Get:\d+ (\S+) (\S+) .*\[([0-9.,]+) ([kMG]?B)\]$`)
	needLine = regexp.MustCompile(`^Need to get ([0-9.,]+) ([kMG]?B)[ /]`)
)

func (t *transcript) add(line string) {
	if len(t.last) == tailLines {
		t.last = t.last[1:]
	}
	t.last = append(t.last, line)

	switch {
	case strings.HasPrefix(line, stepMark):
		if name := strings.TrimRight(strings.TrimPrefix(line, stepMark), "."); !noise.MatchString(name) {
			t.step, t.bytes, t.total = name, 0, 0
			t.report(Event{Step: name})
		}
		return
	case strings.Contains(line, " is expired (invalid since "):
		t.expired = true
	case strings.Contains(line, "No space left on device"), strings.Contains(line, "You don't have enough free space"):
		t.full = true
	}
	if m := needLine.FindStringSubmatch(line); m != nil {
		t.total += size(m[1], m[2])
	}
	if m := getLine.FindStringSubmatch(line); m != nil {
		t.bytes += size(m[3], m[4])
		if len(t.gets) < 32 {
			t.gets = append(t.gets, get{uri: m[1], suite: m[2]})
		}
	}
	t.report(Event{Step: t.step, Detail: line, Bytes: t.bytes, Total: max(t.total, 0)})
}

// size reads a size as apt writes it; its units are powers of 1000.
func size(number, unit string) int64 {
	f, err := strconv.ParseFloat(strings.ReplaceAll(number, ",", ""), 64)
	if err != nil {
		return 0
	}
	factor := map[string]float64{"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
	return int64(f * factor)
}

// mirrorOf returns the URI that apt got suite's Release file from.
func (t *transcript) mirrorOf(suite string) string {
	for _, g := range t.gets {
		if g.suite == suite {
			return g.uri
		}
	}
	return ""
}

// tail returns the last lines, as many as fit.
func (t *transcript) tail() []string {
	room, from := tailBytes, len(t.last)
	for from > 0 && room >= len(t.last[from-1])+1 {
		from--
		room -= len(t.last[from]) + 1
	}
	return t.last[from:]
}
