package orchestrator

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/runtime"
	"github.com/cove-sandbox/cove/internal/undo"
)

// A sandbox is one sandbox on this host. After begin, its goroutine (watch)
// alone tears it down; others ask it to through the channels below.
type sandbox struct {
	o       *Orchestrator
	slot    Slot            // set while it boots
	process runtime.Process // nil until begin; set under Orchestrator.mu
	undo    *undo.Stack     // what takes the sandbox away; used by watch alone
	hush    func()          // ends the listening to its daemon; used by watch alone
	counted time.Time       // since when its cgroup counts; zero: an earlier server made it; set while it boots

	kills chan chan error // requests to end it; answered when it is gone
	moved chan struct{}   // the end was moved; holds one element
	gone  chan struct{}   // closed by watch once nothing is left
	left  chan struct{}   // closed when watch has returned, the sandbox gone or not

	needs atomic.Pointer[needs] // what it starts from; nil until that is known

	mu     sync.Mutex
	open   int                   // requests under way; guarded by mu
	usedAt time.Time             // of the last request; guarded by mu
	heard  int64                 // number of the last line of its daemon's journal that was heard; guarded by mu once it runs
	record record                // Slot and Handle are set while it boots; EndAt guarded by mu
	conns  map[*tracked]struct{} // open connections from Dial; nil once it ends; guarded by mu
	dials  map[*attempt]struct{} // attempts to connect; guarded by mu
	saving sync.Mutex            // one write of the record at a time; taken before mu
	ending bool                  // guarded by saving
	still  sync.Mutex            // held while it is stopped, saved or let go on; taken before saving
	doubt  bool                  // an earlier server may have left it stopped; guarded by still
}

// needs is what a sandbox has open, or will have when it is resumed.
type needs struct {
	build  cove.BuildID
	tools  string
	engine string // empty: the newest
}

func newSandbox(o *Orchestrator, spec cove.Spec) *sandbox {
	return &sandbox{
		o:     o,
		kills: make(chan chan error),
		moved: make(chan struct{}, 1),
		gone:  make(chan struct{}),
		left:  make(chan struct{}),
		conns: map[*tracked]struct{}{},
		dials: map[*attempt]struct{}{},
		record: record{
			ID: spec.ID, Execution: spec.Execution, Internet: spec.Internet, EndAt: spec.EndAt,
			OnTimeout: spec.OnTimeout, IdleAfter: spec.IdleAfter, Build: spec.Build, Resources: spec.Resources, Identity: spec.ID, Unused: spec.Unused, Slot: -1,
		},
	}
}

// begin makes the sandbox known and starts to watch over it. undo takes it away
// when it ends.
func (s *sandbox) begin(process runtime.Process, undo *undo.Stack) {
	s.undo = undo
	s.o.mu.Lock()
	s.process = process
	ctx := s.o.ctx
	s.o.waits.Add(1)
	s.o.mu.Unlock()
	go s.watch(ctx)
}

func (s *sandbox) end() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record.EndAt
}

// watch waits for the sandbox's end and takes away what is left of it. It
// returns early, with the sandbox running, when the server stops.
func (s *sandbox) watch(ctx context.Context) {
	defer s.o.waits.Done()
	defer close(s.left)
	s.hush = s.startListening(ctx)
	defer s.hush()
	timer := time.NewTimer(s.end().Sub(s.o.cfg.Now()))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			s.abort()
			return
		case <-s.moved:
			timer.Reset(s.end().Sub(s.o.cfg.Now()))
		case <-timer.C:
			if s.record.OnTimeout == cove.PauseOnTimeout && s.end().Sub(s.o.cfg.Now()) <= 0 {
				// It runs on until somebody pauses it or moves its end.
				s.o.events.tell(node.Event{ID: s.record.ID, Execution: s.record.Execution, What: node.Due})
				continue
			}
			// The clock may have been set, or the end moved, meanwhile.
			if left := s.expire(); left > 0 {
				timer.Reset(left)
				continue
			}
			s.tearDown(ctx, node.Expired)
			return
		case <-s.process.Done():
			s.tearDown(ctx, node.Crashed)
			return
		case reply := <-s.kills:
			reply <- s.tearDown(ctx, node.Killed)
			return
		}
	}
}

// tearDown ends the sandbox and gives back all it had. A part that cannot be
// given back is logged and left to the next start of the server, which finds
// it by the sandbox's directory.
func (s *sandbox) tearDown(ctx context.Context, what node.What) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.o.cfg.KillTimeout)
	defer cancel()
	s.abort()
	s.hush() // its end is the last that is told of it
	lastWords := ""
	if what == node.Crashed {
		lastWords = s.lastWords()
	}
	s.saving.Lock()
	s.ending = true
	s.saving.Unlock()
	err := s.undo.Unwind(ctx)
	log := s.o.cfg.Log.With("sandbox", s.record.ID, "reason", what)
	if lastWords != "" {
		log = log.With("engine", lastWords)
	}
	if err != nil {
		log.Error("sandbox ended, but not all of it could be removed", "err", err)
	} else {
		log.Info("sandbox ended")
	}
	s.o.drop(s)
	close(s.gone)
	s.o.events.tell(node.Event{ID: s.record.ID, Execution: s.record.Execution, What: what, Reason: reason(lastWords)})
	return err
}

// kill asks the watcher to end the sandbox and waits until it is gone.
func (s *sandbox) kill(ctx context.Context) error {
	const op = "orchestrator.Kill"
	reply := make(chan error, 1)
	select {
	case s.kills <- reply:
	case <-s.left:
		select {
		case <-s.gone:
			return nil
		default:
			return cove.E(cove.Unavailable, op, nil, "the server is stopping; try again")
		}
	case <-ctx.Done():
		return cove.E(cove.DeadlineExceeded, op, ctx.Err(), "the sandbox did not end in time")
	}
	select {
	case err := <-reply:
		if err != nil {
			return cove.E(cove.Internal, op, err, "the sandbox ended, but not all of it could be removed; the server's log says what")
		}
		return nil
	case <-ctx.Done():
		return cove.E(cove.DeadlineExceeded, op, ctx.Err(), "the sandbox did not end in time")
	}
}

// setEnd records the new end before it takes effect, so that a restarted server
// keeps to it.
func (s *sandbox) setEnd(end time.Time) error {
	s.mu.Lock()
	if s.conns == nil { // it is ending, and must not promise to live longer
		s.mu.Unlock()
		return notHere("orchestrator.SetEnd")
	}
	s.record.EndAt = end
	s.mu.Unlock()
	err := s.save()
	if cove.Is(err, cove.NotFound) && !end.After(s.o.cfg.Now()) {
		err = nil // it ended while its end was written down, as was wanted
	}
	select {
	case s.moved <- struct{}{}:
	default: // one is pending; it will read the newest end
	}
	return err
}

// dial connects to a port, on the sandbox's address first, then on its own
// localhost through the daemon.
func (s *sandbox) dial(ctx context.Context, port uint16) (net.Conn, error) {
	ctx, done, err := s.attempt(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	conn, err := s.slot.Dial(ctx, port)
	if errors.Is(err, syscall.ECONNREFUSED) && port != s.o.cfg.Daemon.Port() {
		conn, err = s.o.cfg.Daemon.Connect(ctx, s.record.Identity, s.dialDaemon, port)
	}
	switch {
	case errors.Is(context.Cause(ctx), errEnding):
		return nil, notHere("orchestrator.Dial")
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, node.ErrPortClosed
	case err != nil:
		return nil, err
	}
	return s.track(conn)
}

// An attempt is somebody connecting to the sandbox.
type attempt struct{ cancel context.CancelCauseFunc }

var errEnding = errors.New("the sandbox ends")

// attempt returns a context that ends when the sandbox does: in a network that
// is being taken down, nobody says no. done must be called.
func (s *sandbox) attempt(ctx context.Context) (_ context.Context, done func(), err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	a := &attempt{cancel}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		cancel(errEnding)
		return nil, nil, notHere("orchestrator.Dial")
	}
	s.dials[a] = struct{}{}
	return ctx, func() {
		s.mu.Lock()
		delete(s.dials, a)
		s.mu.Unlock()
		cancel(nil)
	}, nil
}

// track makes a connection end with the sandbox: its peer would otherwise wait
// for an answer that nobody is left to give, not even with a reset.
func (s *sandbox) track(conn net.Conn) (net.Conn, error) {
	t := &tracked{Conn: conn, owner: s}
	s.mu.Lock()
	open, full := s.conns != nil, len(s.conns) >= maxConnections
	if open && !full {
		s.conns[t] = struct{}{}
	}
	s.mu.Unlock()
	switch {
	case !open:
		conn.Close()
		return nil, notHere("orchestrator.Dial")
	case full:
		conn.Close()
		return nil, cove.E(cove.Exhausted, "orchestrator.Dial", nil,
			"The sandbox has too many concurrent incoming connections (limit: %d)", maxConnections)
	}
	return t, nil
}

// maxConnections is how many connections from outside a sandbox may have.
const maxConnections = 4096

// expire decides that the sandbox's time is up, unless it has some left, which
// it returns. Once decided, the end cannot be moved any more.
func (s *sandbox) expire() (left time.Duration) {
	s.mu.Lock()
	if left = s.record.EndAt.Sub(s.o.cfg.Now()); left > 0 {
		s.mu.Unlock()
		return left
	}
	s.cutLocked()
	return 0
}

// cutLocked resets every connection into the sandbox, ends attempts to connect,
// and refuses further ones. It is called with mu held and gives it back.
func (s *sandbox) cutLocked() {
	conns := s.conns
	s.conns = nil
	for a := range s.dials {
		a.cancel(errEnding)
	}
	s.mu.Unlock()
	for c := range conns {
		c.reset()
	}
}

// abort resets every connection into the sandbox and refuses further ones.
func (s *sandbox) abort() {
	s.mu.Lock()
	s.cutLocked()
}
