// Package obs makes the program's log.
//
// It keeps nothing global: a logger is made once, by the command, and handed
// down. It starts no goroutines. Every package of the module may import it.
package obs

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// Format is how a log line looks.
type Format string

// The formats.
const (
	Text Format = "text" // for people
	JSON Format = "json" // for programs
)

// NewLogger returns a logger that writes lines of at least the given level
// (debug, info, warn, error) to w. The error names what is allowed.
func NewLogger(w io.Writer, level string, format Format) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil || strings.ContainsAny(level, "+-") {
		return nil, fmt.Errorf("log level %q: want debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: l}
	switch format {
	case Text:
		return slog.New(slog.NewTextHandler(w, options)), nil
	case JSON:
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("log format %q: want text or json", format)
}
