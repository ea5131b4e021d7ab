package orchestrator

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
)

// Said is a line that the daemon in a sandbox says, or code inside in its place.
type Said struct {
	Seq     int64 // its number in the daemon's journal
	Lost    int64 // how many lines before it nobody heard
	Level   cove.LogLevel
	Logger  string
	Message string // empty: it only says that lines from here on are heard
}

// fromNow is a place in a daemon's journal: that of the lines to come.
const fromNow int64 = -1

// How long to wait before the daemon is listened to again when it broke off:
// twice as long each time, unless it went well for a while.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// startListening hears what the daemon says until hush is called, which may be
// more than once and waits until nothing more is told. While nothing is said, it
// is one connection and one goroutine, and costs nothing.
func (s *sandbox) startListening(ctx context.Context) (hush func()) {
	if s.record.Unused {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var hearing sync.WaitGroup
	hearing.Go(func() { s.listen(ctx) })
	return func() {
		cancel()
		hearing.Wait()
	}
}

// listen hears what the daemon says, until ctx is done or it turns out to have
// no journal. That is no use of the sandbox: an idle one stays idle.
func (s *sandbox) listen(ctx context.Context) {
	p := &pace{}
	for wait := firstRetry; ; {
		if after, frozen := s.place(); !frozen {
			begin := time.Now()
			err := s.o.cfg.Daemon.Listen(ctx, s.record.Identity, s.dialJournal, after, func(l Said) bool { return s.hear(ctx, p, l) })
			if ctx.Err() != nil {
				return
			}
			if cove.Is(err, cove.Unimplemented) { // it was made by an older server
				s.o.cfg.Log.Debug("the daemon in a sandbox has no journal", "sandbox", s.record.ID, "err", err)
				return
			}
			if time.Since(begin) > lastRetry {
				wait = firstRetry
			}
		}
		if !sleep(ctx, wait) {
			return
		}
		wait = min(2*wait, lastRetry)
	}
}

// place returns after which line the daemon is heard, and whether the sandbox
// may stand still: nobody answers then.
func (s *sandbox) place() (after int64, frozen bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard, s.record.Frozen
}

// moveTo makes a line the last one heard, unless the sandbox may stand still.
// Then it is not heard yet: the snapshot that is being made says what was, and
// whoever goes on from it hears the rest.
func (s *sandbox) moveTo(seq int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.record.Frozen {
		return false
	}
	s.heard = seq
	return true
}

// hear takes a line, in its turn, and reports whether to go on.
func (s *sandbox) hear(ctx context.Context, p *pace, l Said) bool {
	if l.Message == "" {
		return s.moveTo(l.Seq)
	}
	if !p.wait(ctx) {
		return false
	}
	if !s.moveTo(l.Seq) {
		return false
	}
	if l.Lost > 0 && p.wait(ctx) {
		s.tell(Said{Level: cove.LogWarn, Logger: "envd", Message: fmt.Sprintf("%d lines that belong here are missing: there were more than can be kept", l.Lost)})
	}
	s.tell(l)
	return true
}

func (s *sandbox) tell(l Said) {
	s.o.lines.tell(node.Line{
		ID: s.record.ID, Execution: s.record.Execution, At: s.o.cfg.Now(), Level: l.Level, Logger: l.Logger, Message: l.Message,
	})
}

// dialJournal connects to the daemon for a long time. The connection is none of
// those that a sandbox may have so many of, and ends with the listening.
func (s *sandbox) dialJournal(ctx context.Context) (net.Conn, error) {
	conn, err := s.dialDaemon(ctx)
	if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
		// Usually a connection is probed every few seconds, which would wake each
		// idle sandbox. Seldom is enough for the host's firewall to remember it.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Hour, Interval: time.Minute, Count: 5})
		_ = tcp.SetLinger(0) // closed, it is gone: the other side may stand still
	}
	return conn, err
}

// How many lines of one sandbox are taken. Those that come faster wait inside,
// where few are kept, so neither the host's processors nor its disk are at the
// mercy of who speaks.
const (
	linesASecond = 50
	linesAMinute = 1000
)

// A pace holds back whoever says too much. Its zero value is ready to use.
type pace struct{ second, minute window }

// A window counts the lines of a span of time.
type window struct {
	since time.Time
	n     int
}

// left returns how long it takes until another line is allowed.
func (w *window) left(now time.Time, span time.Duration, most int) time.Duration {
	if now.Sub(w.since) >= span {
		w.since, w.n = now, 0
	}
	if w.n < most {
		return 0
	}
	return w.since.Add(span).Sub(now)
}

// wait waits until another line is allowed, and reports whether it is: not if
// ctx is done before.
func (p *pace) wait(ctx context.Context) bool {
	for {
		now := time.Now()
		left := max(p.second.left(now, time.Second, linesASecond), p.minute.left(now, time.Minute, linesAMinute))
		if left == 0 {
			p.second.n++
			p.minute.n++
			return true
		}
		if !sleep(ctx, left) {
			return false
		}
	}
}

// sleep waits, and reports whether ctx is still not done.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
