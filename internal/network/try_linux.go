package network

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/cove-sandbox/cove/internal/undo"
)

// Try makes a slot and the host's rules as a server does and takes them away
// again, to find out whether this host and process can. Nothing it does stays:
// unlike Run it switches no forwarding on for the host. Instance must be a name
// that no server has. The errors are those of Run and Acquire.
func Try(ctx context.Context, cfg Config) (err error) {
	p, err := New(cfg)
	if err != nil {
		return err
	}
	var steps undo.Stack
	defer func() { err = errors.Join(err, steps.Unwind(ctx)) }()
	if err := os.MkdirAll(p.cfg.LockDir, 0o700); err != nil {
		return notPermitted("network.Try", err)
	}
	steps.Add("directory", func(context.Context) error { return p.removeLockDir() })
	state, err := p.observe()
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.host = state
	p.mu.Unlock()
	state.guarded = nil // no forwarding was switched on
	steps.Add("rules", func(context.Context) error { return p.removeHostRules() })
	if _, err := p.installHostRules(state); err != nil {
		return err
	}
	s, err := p.make(ctx)
	if err != nil {
		return err
	}
	steps.Add("slot", func(ctx context.Context) error { return p.Release(ctx, s) })
	return nil
}

// removeLockDir removes the directory of claims if this was the last server on
// the host.
func (p *Pool) removeLockDir() error {
	err := os.Remove(p.cfg.LockDir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTEMPTY) {
		return nil
	}
	return err
}
