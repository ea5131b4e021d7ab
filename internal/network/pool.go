package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/undo"
)

// A Pool makes, keeps and removes the slots of one server. Its methods may be
// called from any goroutine.
type Pool struct {
	cfg       Config
	resolvers *resolvers
	limits    func() flowLimits // of a slot made now
	retry     time.Duration     // after something failed that the pool does of its own accord

	fingerprint string // of the host's rules in force, used by refresh alone; empty: not known

	ready chan struct{} // closed by Run once the host's table is in force
	ended chan struct{} // closed by Run when it takes no more requests
	want  chan struct{} // tells the filler that a slot was taken

	mu      sync.Mutex
	host    hostState // what the rules in force are made from
	started bool
	idle    []*Slot        // newest last; in live too
	live    map[int]*Slot  // slots of this process
	busy    map[int]bool   // indices being made, adopted or removed
	cursor  int            // where the search for a free index goes on
	making  sync.WaitGroup // slots being made or adopted; Run waits for them
}

// New checks cfg and allocates; it touches nothing on the host.
func New(cfg Config) (*Pool, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Pool{
		cfg:       cfg,
		resolvers: newResolvers(cfg.ResolvConf),
		limits:    hostFlowLimits,
		retry:     retry,
		ready:     make(chan struct{}),
		ended:     make(chan struct{}),
		want:      make(chan struct{}, 1),
		live:      map[int]*Slot{},
		busy:      map[int]bool{},
	}, nil
}

// Ready returns a channel that is closed once the host's rules are in force.
func (p *Pool) Ready() <-chan struct{} { return p.ready }

// Run puts the host's rules in force, replacing those of an earlier run, and
// keeps Warm slots ready until ctx is done. Then it removes the slots nobody
// uses. Those in use stay, without DNS, and so do the rules that they need;
// without such slots the rules go too. It may be called once. The error is Unavailable if this host or process cannot do networking,
// and Invalid if it uses the slots' addresses itself.
func (p *Pool) Run(ctx context.Context) error {
	if err := p.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	err := func() error {
		defer work.Wait()
		defer cancel()
		if err := os.MkdirAll(p.cfg.LockDir, 0o700); err != nil {
			return notPermitted("network.Run", err)
		}
		changed, err := watch(ctx) // before the first look, so that nothing is missed
		if err != nil {
			return err
		}
		if err := p.refresh(); err != nil {
			cancel()
			for range changed { // until the watch has ended
			}
			return err
		}
		p.warnOfFirewalls(ctx)
		close(p.ready)
		work.Go(func() { p.fill(ctx) })
		p.follow(ctx, changed)
		return nil
	}()
	return errors.Join(err, p.stop(ctx))
}

func (p *Pool) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started {
		return errors.New("network: Run was called twice")
	}
	p.started = true
	return nil
}

// stop lets go of every slot and removes the idle ones.
func (p *Pool) stop(ctx context.Context) error {
	p.mu.Lock()
	close(p.ended)
	p.mu.Unlock()
	p.making.Wait() // nothing is added once ended is closed

	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	var used []*Slot
	for _, s := range p.live {
		used = append(used, s)
	}
	p.mu.Unlock()
	var errs []error
	for _, s := range idle {
		errs = append(errs, p.Release(ctx, s))
	}
	for _, s := range used {
		s.dns.close()
	}
	return errors.Join(append(errs, p.leave())...)
}

// leave removes the host's rules if no slot of this server is left.
func (p *Pool) leave() error {
	indices, err := p.claimed()
	if err != nil || len(indices) > 0 {
		return err
	}
	return p.removeHostRules()
}

func (p *Pool) warnOfFirewalls(ctx context.Context) {
	walls, err := Firewalls(ctx)
	if err != nil {
		p.cfg.Log.Warn("looking for other firewalls failed", "err", err)
	}
	for _, w := range walls {
		p.cfg.Log.Warn("another firewall drops what sandboxes send to the internet", "firewall", w.Name, "remedy", w.Remedy)
	}
}

// fill keeps Warm slots ready until ctx is done.
func (p *Pool) fill(ctx context.Context) {
	for {
		p.mu.Lock()
		missing := p.cfg.Warm - len(p.idle)
		p.mu.Unlock()
		if missing <= 0 {
			select {
			case <-p.want:
				continue
			case <-ctx.Done():
				return
			}
		}
		s, err := p.make(ctx)
		if err == nil {
			p.mu.Lock()
			p.idle = append(p.idle, s)
			p.mu.Unlock()
			continue
		}
		if ctx.Err() == nil {
			p.cfg.Log.Warn("making a network slot in advance failed", "err", err)
		}
		select {
		case <-time.After(p.retry):
		case <-ctx.Done():
			return
		}
	}
}

// Acquire hands out a slot with the policy in force. It waits for Ready. The
// caller owns the slot until Release. The error is Exhausted if all addresses
// are in use and Unavailable if Run has ended.
func (p *Pool) Acquire(ctx context.Context, policy Policy) (*Slot, error) {
	s, err := p.take(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.SetPolicy(ctx, s, policy); err != nil {
		return nil, errors.Join(err, p.Release(ctx, s))
	}
	return s, nil
}

// take returns an idle slot, or a new one.
func (p *Pool) take(ctx context.Context) (*Slot, error) {
	if err := p.serving(ctx); err != nil {
		return nil, err
	}
	p.mu.Lock()
	var s *Slot
	if n := len(p.idle); n > 0 {
		s, p.idle = p.idle[n-1], p.idle[:n-1]
	}
	p.mu.Unlock()
	if s == nil {
		return p.make(ctx)
	}
	select {
	case p.want <- struct{}{}:
	default:
	}
	return s, nil
}

// serving waits until Run is at work.
func (p *Pool) serving(ctx context.Context) error {
	select {
	case <-p.ready:
		return ctx.Err()
	case <-p.ended:
		return p.endedError()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *Pool) endedError() error {
	return cove.E(cove.Unavailable, "network.Acquire", nil, "this host hands out no network slots now: the server is shutting down or could not set up networking")
}

// SetPolicy changes what the sandbox in a slot is allowed. What it has open
// ends with the permission.
func (p *Pool) SetPolicy(ctx context.Context, s *Slot, policy Policy) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.internet.Load() == policy.Internet {
		return nil
	}
	if !policy.Internet {
		s.internet.Store(false) // DNS first when closing, last when opening
	}
	if err := inNetNS(s.NetNS, func() error { return installPolicy(policy) }); err != nil {
		return fmt.Errorf("setting the policy of slot %d: %w", s.Index, err)
	}
	s.internet.Store(policy.Internet)
	return nil
}

// Adopt takes over a slot of an earlier process of this server, whose sandbox
// still runs, and opens its DNS again. The error is NotFound if there is no
// such slot and Conflict if this process has it already.
func (p *Pool) Adopt(ctx context.Context, index int, policy Policy) (_ *Slot, err error) {
	const op = "network.Adopt"
	if err := p.serving(ctx); err != nil {
		return nil, err
	}
	done, err := p.begin(index)
	if errors.Is(err, errTaken) {
		return nil, cove.E(cove.Conflict, op, nil, "network slot %d is in use", index)
	}
	if err != nil {
		return nil, err
	}
	var s *Slot
	defer func() { done(s) }()
	mine := false
	if index >= 0 && index < p.capacity() {
		if mine, err = p.owns(index); err != nil {
			return nil, err
		}
	}
	if !mine {
		return nil, cove.E(cove.NotFound, op, nil, "no network slot %d", index)
	}
	found := p.slotAt(index)
	if err := p.inspect(found); err != nil {
		return nil, cove.E(cove.NotFound, op, err, "network slot %d is broken", index)
	}
	// All of its rules: an earlier version of this program may have made them,
	// and the host have changed since.
	p.mu.Lock()
	found.denied = p.host.denied
	p.mu.Unlock()
	rules := slotRules{denied: found.denied, limits: p.limits(), policy: policy}
	if err := inNetNS(found.NetNS, func() error { return installSlotRules(found, rules) }); err != nil {
		return nil, fmt.Errorf("renewing the rules of slot %d: %w", index, err)
	}
	found.internet.Store(policy.Internet)
	if found.dns, err = p.openDNS(found); err != nil {
		return nil, err
	}
	s = found
	return s, nil
}

// make claims a free index and builds its slot.
func (p *Pool) make(ctx context.Context) (*Slot, error) {
	for range p.capacity() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p.mu.Lock()
		index := p.cursor
		p.cursor = (p.cursor + 1) % p.capacity()
		p.mu.Unlock()
		s, err := p.makeAt(ctx, index)
		if errors.Is(err, errTaken) {
			continue
		}
		return s, err
	}
	return nil, cove.E(cove.Exhausted, "network.make", nil, "this host has no room for another sandbox: all its network slots are in use")
}

// makeAt builds the slot of an index; errTaken means that it is in use.
func (p *Pool) makeAt(ctx context.Context, index int) (_ *Slot, err error) {
	// An index that an earlier process of this server claimed is not touched, not
	// even for the moment in which somebody adopts it.
	if p.isClaimed(index) {
		return nil, errTaken
	}
	done, err := p.begin(index)
	if err != nil {
		return nil, err
	}
	var made *Slot
	defer func() { done(made) }()
	var steps undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(err, steps.Unwind(ctx))
		}
	}()
	if err := p.claim(index); err != nil {
		return nil, err
	}
	steps.Add("claim", func(context.Context) error { return p.unclaim(index) })

	s := p.slotAt(index)
	p.mu.Lock()
	s.MTU, s.denied = p.host.mtu, p.host.denied
	p.mu.Unlock()
	if err := p.build(ctx, s); err != nil {
		return nil, err
	}
	steps.Add("slot", func(context.Context) error { return p.demolish(s) })

	s.internet.Store(true)
	if s.dns, err = p.openDNS(s); err != nil {
		return nil, err
	}
	steps.Keep()
	made = s
	return made, nil
}

// begin reserves an index for making or adopting its slot; errTaken means that
// this process has it. The caller must call done, with the slot if there is one.
func (p *Pool) begin(index int) (done func(*Slot), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.ended:
		return nil, p.endedError()
	default:
	}
	if p.live[index] != nil || p.busy[index] {
		return nil, errTaken
	}
	p.busy[index] = true
	p.making.Add(1)
	return func(s *Slot) {
		p.mu.Lock()
		delete(p.busy, index)
		if s != nil {
			p.live[index] = s
		}
		p.mu.Unlock()
		p.making.Done()
	}, nil
}
