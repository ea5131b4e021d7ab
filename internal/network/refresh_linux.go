package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// settle is how long after a change the host's configuration is read again:
	// one change comes as many messages.
	settle = 50 * time.Millisecond

	// retry is how long the pool waits after something failed that it does of
	// its own accord.
	retry = 5 * time.Second

	// calm is how long after a failure no change is looked at: what fails may be
	// the change.
	calm = time.Second

	// recheck is how often the host is looked at although it reported no change.
	recheck = 30 * time.Second
)

// refresh brings the rules of the host and of all slots up to date with the
// host's configuration, and puts them back if somebody removed them. Only one
// goroutine calls it at a time.
func (p *Pool) refresh() error {
	state, err := p.observe()
	if err != nil {
		return err
	}
	// Every time, for other programs reset them: forwarding is decided by the
	// interface a packet comes in by, and replies come in by these.
	for _, name := range state.uplinks {
		if err := setSysctls(sysctl{"ipv4/conf/" + name + "/forwarding", "1", true}); err != nil {
			return notPermitted("network.refresh", err)
		}
	}
	now, _, err := p.readHostRules()
	if err != nil {
		return notPermitted("network.refresh", err)
	}
	p.mu.Lock()
	same := state.equal(p.host)
	p.mu.Unlock()
	intact := now != "" && now == p.fingerprint
	if !same || !intact {
		if !intact && p.fingerprint != "" {
			p.cfg.Log.Warn("somebody changed or removed this server's rules on the host: they are put back", "table", p.tableName())
		}
		p.fingerprint = "" // unknown, if the next line fails
		if p.fingerprint, err = p.installHostRules(state); err != nil {
			return err
		}
		p.mu.Lock()
		p.host = state
		p.mu.Unlock()
	}
	return p.refreshSlots(state)
}

// refreshSlots brings the slots up to date that were made when the host was
// different. One that is being made now is left to the next time: the host's
// own rules hold for it already.
func (p *Pool) refreshSlots(state hostState) error {
	var stale []*Slot
	p.mu.Lock()
	for index, s := range p.live {
		if !p.busy[index] && !slices.Equal(s.denied, state.denied) {
			stale = append(stale, s)
		}
	}
	p.mu.Unlock()
	var errs []error
	for _, s := range stale {
		err := inNetNS(s.NetNS, func() error { return installDenied(state.denied) })
		p.mu.Lock()
		gone := p.live[s.Index] != s || p.busy[s.Index]
		if err == nil {
			s.denied = state.denied
		}
		p.mu.Unlock()
		if err != nil && !gone {
			errs = append(errs, fmt.Errorf("bringing slot %d up to date: %w", s.Index, err))
		}
	}
	return errors.Join(errs...)
}

// Multicast groups of netlink, as bits to bind to.
const (
	hostGroups = unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE | 1<<(unix.RTNLGRP_IPV4_NETCONF-1)
	ruleGroups = 1 << (7 - 1) // NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h
)

// watch returns a channel that gets a value some time after the host's
// addresses, routes, forwarding or nftables rules changed. It is closed once
// ctx is done, or something can no longer be watched, and nothing of the watch
// is left.
func watch(ctx context.Context) (<-chan struct{}, error) {
	host, err := subscribe(unix.NETLINK_ROUTE, hostGroups)
	if err != nil {
		return nil, err
	}
	rules, err := subscribe(unix.NETLINK_NETFILTER, ruleGroups)
	if err != nil {
		return nil, errors.Join(err, host.Close())
	}
	changed := make(chan struct{}, 1)
	end := func() { host.Close(); rules.Close() }
	stop := context.AfterFunc(ctx, end)
	follow := func(socket *os.File) {
		buf := make([]byte, os.Getpagesize())
		for {
			// What changed does not matter, nor does losing messages (ENOBUFS).
			_, err := socket.Read(buf)
			if err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}
	done := make(chan struct{}) // closed by the goroutine that follows rules
	go func() {
		defer close(done)
		defer end() // one does not go on without the other
		follow(rules)
	}()
	go func() {
		defer close(changed)
		defer func() { <-done }()
		defer stop()
		defer end()
		follow(host)
	}()
	return changed, nil
}

// subscribe opens a netlink socket that receives what groups are told.
func subscribe(family int, groups uint32) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, family)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "netlink")
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return nil, errors.Join(notPermitted("network.watch", fmt.Errorf("watching the host: %w", err)), socket.Close())
	}
	return socket, nil
}

// follow refreshes after changes, now and then without any, and again after a
// failure, until ctx is done.
func (p *Pool) follow(ctx context.Context, changed <-chan struct{}) {
	due := time.NewTimer(recheck)
	defer due.Stop()
	next := time.Now().Add(recheck)
	var failed time.Time
	in := func(d time.Duration) {
		next = time.Now().Add(d)
		due.Reset(d)
	}
	for {
		select {
		case _, ok := <-changed:
			if !ok {
				if ctx.Err() == nil {
					p.cfg.Log.Warn("changes of the host's network are noticed late: it can no longer be watched")
				}
				changed = nil
				continue
			}
			// Not later with every change, or it never comes.
			if wait := max(settle, calm-time.Since(failed)); time.Until(next) > wait {
				in(wait)
			}
		case <-due.C:
			in(recheck)
			if err := p.refresh(); err != nil {
				p.cfg.Log.Warn("following a change of the host's network failed and will be tried again", "err", err)
				failed = time.Now()
				in(p.retry)
			}
		case <-ctx.Done():
			for changed != nil { // until the watch has ended
				if _, ok := <-changed; !ok {
					changed = nil
				}
			}
			return
		}
	}
}
