package process

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	pb "github.com/cove-sandbox/cove/internal/gen/process"
)

// firstUnborn is the first number given to a process that could not be
// executed. The kernel's numbers stop before it.
const firstUnborn = 1 << 22

// A table holds the processes that live and, for a while, those that ended. It
// is safe for concurrent use.
type table struct {
	retain time.Duration

	mu     sync.Mutex
	byPID  map[uint32]*process      // guarded by mu
	order  uint64                   // guarded by mu; of the newest process
	unborn uint32                   // guarded by mu; the last number given out
	forget map[*process]*time.Timer // guarded by mu; the ended ones
	closed bool                     // guarded by mu
}

func newTable(retain time.Duration) *table {
	return &table{
		retain: retain,
		byPID:  map[uint32]*process{},
		unborn: firstUnborn,
		forget: map[*process]*time.Timer{},
	}
}

// add registers p. A number that an ended process had is p's from now on.
func (t *table) add(p *process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.pid == 0 {
		t.unborn++
		p.pid = t.unborn
	}
	t.order++
	p.order = t.order
	t.byPID[p.pid] = p
}

// ended lets p be found for a while longer, to tell late callers of its end.
func (t *table) ended(p *process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.forget[p] = time.AfterFunc(t.retain, func() { t.remove(p) })
}

func (t *table) remove(p *process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.forget, p)
	if t.byPID[p.pid] == p {
		delete(t.byPID, p.pid)
	}
}

// close stops the timers.
func (t *table) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, timer := range t.forget {
		timer.Stop()
	}
}

// list returns the processes that live, oldest first.
func (t *table) list() []*process {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*process
	for _, p := range t.byPID {
		if !p.hub.ended() {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *process) int { return cmp.Compare(a.order, b.order) })
	return out
}

// find returns the selected process, ended or not. Of several with the tag it
// is one that lives, and of those the newest.
func (t *table) find(sel *pb.ProcessSelector) (*process, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found *process
	switch by := sel.GetSelector().(type) {
	case *pb.ProcessSelector_Pid:
		found = t.byPID[by.Pid]
	case *pb.ProcessSelector_Tag:
		for _, p := range t.byPID {
			if p.tag != nil && *p.tag == by.Tag && (found == nil || preferred(p, found)) {
				found = p
			}
		}
	default:
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("no process is selected"))
	}
	if found == nil {
		return nil, notFound(sel)
	}
	return found, nil
}

func preferred(a, b *process) bool {
	if aEnded, bEnded := a.hub.ended(), b.hub.ended(); aEnded != bEnded {
		return bEnded
	}
	return a.order > b.order
}

// live is find for those that need a process which still lives.
func (t *table) live(sel *pb.ProcessSelector) (*process, error) {
	p, err := t.find(sel)
	if err != nil {
		return nil, err
	}
	if p.hub.ended() {
		return nil, notFound(sel)
	}
	return p, nil
}

func notFound(sel *pb.ProcessSelector) error {
	if by, ok := sel.GetSelector().(*pb.ProcessSelector_Tag); ok {
		return connect.NewError(connect.CodeNotFound, fmt.Errorf("process with tag %s not found", by.Tag))
	}
	return connect.NewError(connect.CodeNotFound, fmt.Errorf("process with pid %d not found", sel.GetPid()))
}
