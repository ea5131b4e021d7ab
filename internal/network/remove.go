package network

import (
	"context"
	"errors"
)

// Release removes a slot. It may be called after Run has ended, and again if it
// failed. The sandbox must be gone, or is cut off.
func (p *Pool) Release(_ context.Context, s *Slot) error {
	p.mu.Lock()
	if p.live[s.Index] != s || p.busy[s.Index] {
		p.mu.Unlock()
		return nil // removed already, or being removed
	}
	p.busy[s.Index] = true
	p.mu.Unlock()

	s.dns.close()
	err := p.raze(s)

	p.mu.Lock()
	delete(p.busy, s.Index)
	if err == nil {
		delete(p.live, s.Index)
	}
	p.mu.Unlock()
	select {
	case <-p.ended:
		return errors.Join(err, p.leave())
	default:
		return err
	}
}

// raze removes a slot and then its claim: a crash in between leaves what Sweep
// finds.
func (p *Pool) raze(s *Slot) error {
	if err := p.demolish(s); err != nil {
		return err
	}
	return p.unclaim(s.Index)
}

// Sweep removes the slots of earlier processes of this server, except those in
// keep. It does not touch what this process has. All slots are tried.
func (p *Pool) Sweep(ctx context.Context, keep map[int]bool) error {
	indices, err := p.claimed()
	if err != nil {
		return err
	}
	var errs []error
	for _, index := range indices {
		if keep[index] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, p.sweep(index))
	}
	return errors.Join(errs...)
}

func (p *Pool) sweep(index int) error {
	p.mu.Lock()
	if p.live[index] != nil || p.busy[index] {
		p.mu.Unlock()
		return nil
	}
	p.busy[index] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.busy, index)
	}()
	// Again, now that nobody here can give it up: it may have changed hands
	// since it was listed.
	mine, err := p.owns(index)
	if err != nil || !mine {
		return err
	}
	return p.raze(p.slotAt(index))
}

// RemoveHost removes everything this server has on the host: all its slots, with
// or without sandboxes, and its table. It is for uninstalling, when Run is not
// running; it needs nothing of the server but its name. Forwarding stays
// switched on: others may have come to rely on it.
func (p *Pool) RemoveHost(ctx context.Context) error {
	p.mu.Lock()
	var mine []*Slot
	for _, s := range p.live {
		mine = append(mine, s)
	}
	p.mu.Unlock()
	var errs []error
	for _, s := range mine {
		errs = append(errs, p.Release(ctx, s))
	}
	errs = append(errs, p.Sweep(ctx, nil), p.removeStrayLinks(), p.removeHostRules(), p.removeLockDir())
	return errors.Join(errs...)
}
