package envdclient

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/envd/paths"
)

// Bounds of what is heard of a daemon, in bytes. A message can be twice as long
// on its way, with what stands around it.
const (
	maxLine    = 16 << 10
	maxMessage = 4 << 10
)

// FromNow is a place in a daemon's journal: that of the lines to come.
const FromNow int64 = -1

// Line is what a daemon says. Code inside may speak in its place, so nothing of
// it is more than a claim, but it can be shown: the message is of letters that
// do nothing, and the logger one of those the daemon has.
type Line struct {
	Seq     int64 // its number: larger than that of any line before
	Lost    int64 // how many lines before it nobody heard
	Level   cove.LogLevel
	Logger  string
	Message string // empty: it only says that lines from here on are heard
}

// Listen calls said for each line after the one with that number, and from then
// on for every line when it is said, until ctx is done or the connection ends;
// either is an error. While said is busy, nothing is read, so how much is heard
// is up to it. said returns false to hear no more; then the error is nil.
//
// The error is a *cove.Error: of kind Unimplemented if the daemon refuses, as one
// does that is too old to have a journal, and Unavailable otherwise. There is no
// goroutine of its own, and nothing happens while nothing is said.
func (c *Client) Listen(ctx context.Context, after int64, said func(Line) bool) error {
	const op = "envdclient.Listen"
	conn, err := c.cfg.Dial(ctx)
	if err != nil {
		return cove.E(cove.Unavailable, op, err, "the sandbox does not answer")
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	lines, status, err := c.openJournal(conn, after)
	switch {
	case err != nil:
		return cove.E(cove.Unavailable, op, err, "the sandbox does not answer")
	case status != http.StatusOK:
		return cove.E(cove.Unimplemented, op, fmt.Errorf("status %d", status), "the sandbox refused the request")
	}
	if err := hear(lines, said); err != nil {
		return cove.E(cove.Unavailable, op, err, "the sandbox's journal could not be read on")
	}
	return nil
}

// openJournal asks for the journal and returns the answer's status and where the
// lines come from.
func (c *Client) openJournal(conn net.Conn, after int64) (*bufio.Reader, int, error) {
	query := ""
	if after >= 0 {
		query = fmt.Sprintf("?after=%d", after)
	}
	_, err := fmt.Fprintf(conn, "GET %s%s HTTP/1.1\r\nHost: envd\r\n%s: %s\r\n\r\n", paths.Journal, query, paths.ControlHeader, c.cfg.ControlToken)
	if err != nil {
		return nil, 0, err
	}
	limited := &io.LimitedReader{R: conn, N: maxAnswer}
	// Small, because it is there for as long as the sandbox.
	r := bufio.NewReaderSize(limited, 512)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, 0, err
	}
	limited.N = math.MaxInt64 // from here on it is each line that has a limit
	return r, resp.StatusCode, nil
}

// hear reads lines. A daemon numbers them in order; whoever does not is none.
func hear(r *bufio.Reader, said func(Line) bool) error {
	at := FromNow
	for first := true; ; first = false {
		text, err := readLine(r)
		if err != nil {
			return err
		}
		l, err := parseLine(text)
		if err != nil {
			return err
		}
		// Of the first, the daemon decides the number: there may be another
		// daemon than the one that was heard before.
		if first != (l.Message == "") || !first && l.Seq <= at {
			return errors.New("lines out of order")
		}
		at = l.Seq
		if !said(l) {
			return nil
		}
	}
}

// readLine returns the next line, which may have maxLine bytes.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return nil, errors.New("a line is too long")
		case err == nil:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// parseLine reads a line and makes of it what can be shown.
func parseLine(text []byte) (Line, error) {
	var given struct {
		Seq     int64  `json:"seq"`
		Lost    int64  `json:"lost"`
		Level   string `json:"level"`
		Logger  string `json:"logger"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal(text, &given); err != nil {
		return Line{}, err
	}
	if given.Seq < 0 || given.Lost < 0 {
		return Line{}, errors.New("a number is negative")
	}
	l := Line{Seq: given.Seq, Lost: given.Lost, Level: cove.LogInfo, Logger: "envd", Message: plain(given.Message)}
	if level, ok := cove.ParseLogLevel(given.Level); ok {
		l.Level = level
	}
	if given.Logger == "guard" {
		l.Logger = given.Logger
	}
	return l, nil
}

// plain returns text without what is not to be seen, or changes how the rest of
// it is, and not too long.
func plain(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, "\uFFFD"))
	if len(text) <= maxMessage {
		return text
	}
	cut := maxMessage
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return strings.Clone(text[:cut])
}
