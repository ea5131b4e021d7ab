package process

import (
	"sync"
	"time"

	pb "github.com/cove-sandbox/cove/internal/gen/process"
)

// queueLen is how many pieces of output wait for a listener. A piece has at
// most chunkStd bytes, so a listener holds half a megabyte at the most.
const queueLen = 16

// A hub hands the output of one process to its listeners. Its methods are safe
// for concurrent use, but nothing may be sent once finish was called.
type hub struct {
	stall time.Duration
	done  chan struct{} // closed by finish, once end is set

	mu   sync.Mutex
	subs map[*listener]struct{} // guarded by mu
	end  *pb.ProcessEvent       // guarded by mu until done is closed; never changes then
}

// A listener is one who gets the output.
type listener struct {
	events chan *pb.ProcessEvent // never closed; the hub sends
	left   chan struct{}         // closed by leave
	cut    chan struct{}         // closed by the hub that gave up on the listener

	leaveOnce sync.Once
}

func newHub(stall time.Duration) *hub {
	return &hub{stall: stall, done: make(chan struct{}), subs: map[*listener]struct{}{}}
}

// listen returns a listener that gets everything sent from now on. It must be
// given back to leave.
func (h *hub) listen() *listener {
	l := &listener{
		events: make(chan *pb.ProcessEvent, queueLen),
		left:   make(chan struct{}),
		cut:    make(chan struct{}),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs[l] = struct{}{}
	return l
}

func (h *hub) leave(l *listener) {
	l.leaveOnce.Do(func() { close(l.left) })
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs, l)
}

// send gives ev to every listener, waiting for those whose queue is full. One
// that takes nothing for as long as a process may be stalled is cut off.
func (h *hub) send(ev *pb.ProcessEvent) {
	h.mu.Lock()
	subs := make([]*listener, 0, len(h.subs))
	for l := range h.subs {
		subs = append(subs, l)
	}
	h.mu.Unlock()
	for _, l := range subs {
		select {
		case l.events <- ev:
		default:
			h.wait(l, ev)
		}
	}
}

func (h *hub) wait(l *listener, ev *pb.ProcessEvent) {
	timer := time.NewTimer(h.stall)
	defer timer.Stop()
	select {
	case l.events <- ev:
	case <-l.left:
	case <-timer.C:
		h.mu.Lock()
		defer h.mu.Unlock()
		// Both outputs of a process may give up at the same time; only the
		// first finds the listener still here.
		if _, here := h.subs[l]; here {
			delete(h.subs, l)
			close(l.cut)
		}
	}
}

// finish says that nothing will be sent any more, and how it ended.
func (h *hub) finish(end *pb.ProcessEvent) {
	h.mu.Lock()
	h.end = end
	h.mu.Unlock()
	close(h.done)
}

func (h *hub) ended() bool {
	select {
	case <-h.done:
		return true
	default:
		return false
	}
}
