// Package journal keeps what the daemon has to say to the sandbox's owner, and
// tells it to the host: why a process was ended, for one.
//
// It is not the daemon's log, which is for those who look after the daemon; it
// is a ring of few lines in the daemon's memory, so it goes through a pause and
// into a fork with it. Adding a line waits for nobody. A reader that is too slow
// loses lines and is told how many.
//
// Only the packages of the daemon import it, and only callers that have shown
// the control token get to read. A Journal owns the goroutine of its one reader,
// and its Run waits for that. While nothing is said, it does nothing.
package journal

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/cove-sandbox/cove/internal/envd/reply"
)

// Bounds of what is kept.
const (
	maxLines   = 256
	maxMessage = 4 << 10 // bytes
)

// line is one line as it is sent. One without a message only says how far the
// reader is.
type line struct {
	Seq     uint64     `json:"seq"`            // the first line ever is 1
	Lost    uint64     `json:"lost,omitempty"` // how many before it were overwritten unread
	At      *time.Time `json:"at,omitempty"`
	Level   string     `json:"level,omitempty"`
	Logger  string     `json:"logger,omitempty"`
	Message string     `json:"message,omitempty"`
}

// A Journal holds the newest lines. It is safe for concurrent use.
type Journal struct {
	mu      sync.Mutex
	last    uint64         // number of the newest line; guarded by mu
	ring    []line         // line n is at (n-1) % maxLines; guarded by mu
	reader  *reader        // the present one, or nil; guarded by mu
	closing bool           // no reader is taken any more; guarded by mu
	running sync.WaitGroup // one for each reader; added to under mu, before closing
}

// A reader is a connection that lines are written to.
type reader struct {
	conn net.Conn
	next uint64        // number of the line it gets next; its goroutine's
	more chan struct{} // there are lines it has not got; holds one element
	gone chan struct{} // closed, under the journal's mu, when it is to end
}

// New returns an empty Journal.
func New() *Journal { return &Journal{} }

// Add adds a line. It does not wait.
func (j *Journal) Add(level, logger, message string) {
	if len(message) > maxMessage {
		cut := maxMessage
		for cut > 0 && !utf8.RuneStart(message[cut]) {
			cut--
		}
		message = strings.Clone(message[:cut]) // without the rest of it
	}
	now := time.Now().UTC()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last++
	l := line{Seq: j.last, At: &now, Level: level, Logger: logger, Message: message}
	if len(j.ring) < maxLines {
		j.ring = append(j.ring, l)
	} else {
		j.ring[(l.Seq-1)%maxLines] = l
	}
	if j.reader != nil {
		select {
		case j.reader.more <- struct{}{}:
		default: // it has heard
		}
	}
}

// Run waits for ctx and then ends the reader.
func (j *Journal) Run(ctx context.Context) error {
	<-ctx.Done()
	j.mu.Lock()
	j.closing = true
	j.dismissLocked()
	j.mu.Unlock()
	j.running.Wait()
	return ctx.Err()
}

// dismissLocked ends the present reader, if there is one. mu is held.
func (j *Journal) dismissLocked() {
	if j.reader != nil {
		close(j.reader.gone)
		j.reader.conn.Close()
		j.reader = nil
	}
}

// ServeHTTP sends the lines after the one whose number the query says, and from
// then on every line when it is said; without a number, only those. It takes the
// connection over: to keep one alive costs a wake-up now and then, and this one
// is there for as long as the sandbox, however idle that is.
//
// There is one reader, the host; whoever comes is the newest and takes the
// place. So one that a pause has cut off needs nobody to find that out.
func (j *Journal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	after, err := uint64(0), error(nil)
	text := r.URL.Query().Get("after")
	if text != "" {
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			reply.Errorf(http.StatusBadRequest, "after must be the number of a line").Write(w)
			return
		}
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		reply.Errorf(http.StatusInternalServerError, "the connection cannot be taken over").Write(w)
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetKeepAlive(false) // if it stays on, that costs a little and harms nothing
	}
	_ = conn.SetDeadline(time.Time{}) // the server's, which are for requests
	rd := &reader{conn: conn, more: make(chan struct{}, 1), gone: make(chan struct{})}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closing {
		conn.Close()
		return
	}
	if text == "" || after > j.last {
		after = j.last // a number that was not given yet was another journal's
	}
	rd.next = after + 1
	j.dismissLocked()
	j.reader = rd
	j.running.Go(func() { j.tell(rd) })
}
