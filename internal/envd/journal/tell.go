package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
)

// head is what comes before the lines. They end with the connection.
const head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"

// batch is how many lines are written at once.
const batch = 32

// tell writes to a reader until it has gone.
func (j *Journal) tell(rd *reader) {
	defer j.leave(rd)
	first, err := encode([]line{{Seq: rd.next - 1}})
	if err != nil {
		return
	}
	if _, err := io.WriteString(rd.conn, head+string(first)); err != nil {
		return
	}
	for {
		lines := j.take(rd)
		if len(lines) == 0 {
			select {
			case <-rd.more:
				continue
			case <-rd.gone:
				return
			}
		}
		text, err := encode(lines)
		if err != nil {
			return
		}
		if _, err := rd.conn.Write(text); err != nil {
			return
		}
	}
}

// take returns the lines a reader gets next; none if it has had them all.
func (j *Journal) take(rd *reader) []line {
	j.mu.Lock()
	defer j.mu.Unlock()
	var lost uint64
	if oldest := j.last - uint64(len(j.ring)) + 1; rd.next < oldest {
		lost, rd.next = oldest-rd.next, oldest
	}
	var out []line
	for ; rd.next <= j.last && len(out) < batch; rd.next++ {
		out = append(out, j.ring[(rd.next-1)%maxLines])
	}
	if len(out) > 0 {
		out[0].Lost = lost
	}
	return out
}

// leave makes the place of a reader free, unless another has it.
func (j *Journal) leave(rd *reader) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.reader == rd {
		j.dismissLocked()
	}
}

// encode writes each line as JSON, and a line's end after it.
func encode(lines []line) ([]byte, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	for _, l := range lines {
		if err := enc.Encode(l); err != nil {
			return nil, err
		}
	}
	return text.Bytes(), nil
}

// Logger returns a logger of that name whose lines go on to next, and its
// warnings and errors to the journal too. There they are their message alone:
// what else is said with it is for those who look after the daemon.
func (j *Journal) Logger(name string, next *slog.Logger) *slog.Logger {
	return slog.New(&handler{Handler: next.Handler(), journal: j, name: name})
}

type handler struct {
	slog.Handler
	journal *Journal
	name    string
}

// Enabled reports whether anybody wants lines of that level.
func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn || h.Handler.Enabled(ctx, level)
}

// Handle passes a line on.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		h.journal.Add(strings.ToLower(r.Level.String()), h.name, r.Message)
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs returns the same with attributes.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.Handler.WithAttrs(attrs), h.journal, h.name}
}

// WithGroup returns the same with a group.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.Handler.WithGroup(name), h.journal, h.name}
}
