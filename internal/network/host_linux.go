package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	cove "github.com/cove-sandbox/cove"
)

const (
	maxMTU = 1500 // what the rest of the internet takes

	// settle is how long after a change the host's configuration is read again:
	// one change comes as many messages.
	settle = 200 * time.Millisecond
)

// hostState is what the host's rules and settings are made from.
type hostState struct {
	denied  []netip.Prefix // what no sandbox reaches, sorted, none inside another
	uplinks []string       // interfaces that packets leave through, sorted
	mtu     int            // of slots
}

func (h hostState) equal(o hostState) bool {
	return slices.Equal(h.denied, o.denied) && slices.Equal(h.uplinks, o.uplinks) && h.mtu == o.mtu
}

// observe reads the host's addresses and routes.
func (p *Pool) observe() (hostState, error) {
	const op = "network.observe"
	addrs, err := list(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return hostState{}, fmt.Errorf("listing the host's addresses: %w", err)
	}
	denied := append(specialRanges(), p.cfg.Prefix)
	for _, a := range addrs {
		if strings.HasPrefix(a.Label, hostLinkPrefix) { // of a slot, of any server
			continue
		}
		for _, n := range []netip.Prefix{prefixOf(a.IPNet.IP, a.IPNet.Mask), peerOf(a)} {
			if n.IsValid() && p.cfg.Prefix.Contains(n.Addr()) {
				return hostState{}, cove.E(cove.Invalid, op, fmt.Errorf("%v is an address of %s", n, a.Label),
					"the addresses meant for sandboxes are in use on this host: choose another range")
			}
			if n.IsValid() {
				denied = append(denied, n.Masked())
			}
		}
	}
	uplinks, mtu, err := uplinks()
	if err != nil {
		return hostState{}, err
	}
	return hostState{denied: widest(denied), uplinks: uplinks, mtu: mtu}, nil
}

// uplinks finds the interfaces that routes with a gateway, and default routes,
// leave through, and the size of packets the default route's interface takes.
func uplinks() (names []string, mtu int, err error) {
	routes, err := list(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, 0, fmt.Errorf("listing the host's routes: %w", err)
	}
	mtu = maxMTU
	for _, r := range routes {
		isDefault := r.Dst == nil || r.Dst.IP.IsUnspecified()
		if !isDefault && r.Gw == nil && len(r.MultiPath) == 0 {
			continue
		}
		indices := []int{r.LinkIndex}
		for _, hop := range r.MultiPath {
			indices = append(indices, hop.LinkIndex)
		}
		for _, index := range indices {
			link, err := netlink.LinkByIndex(index)
			if err != nil { // no device, or it went away: another change will be reported
				continue
			}
			names = append(names, link.Attrs().Name)
			if isDefault && link.Attrs().MTU > 0 {
				mtu = min(mtu, link.Attrs().MTU)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), mtu, nil
}

// list repeats a dump that the kernel says changed under its hands.
func list[T any](dump func() ([]T, error)) ([]T, error) {
	const attempts = 5
	for i := 1; ; i++ {
		items, err := dump()
		if i == attempts || !errors.Is(err, netlink.ErrDumpInterrupted) {
			return items, err
		}
	}
}

func prefixOf(ip, mask []byte) netip.Prefix {
	addr, ok := netip.AddrFromSlice(ip)
	if !ok {
		return netip.Prefix{}
	}
	bits := 0
	for _, b := range mask {
		for ; b != 0; b <<= 1 {
			bits++
		}
	}
	return netip.PrefixFrom(addr.Unmap(), bits)
}

func peerOf(a netlink.Addr) netip.Prefix {
	if a.Peer == nil {
		return netip.Prefix{}
	}
	return prefixOf(a.Peer.IP, a.Peer.Mask)
}

// widest sorts prefixes and leaves out those inside another.
func widest(prefixes []netip.Prefix) []netip.Prefix {
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var kept []netip.Prefix
	for _, p := range prefixes {
		if n := len(kept); n == 0 || !kept[n-1].Contains(p.Addr()) {
			kept = append(kept, p)
		}
	}
	return kept
}

// refresh brings the host's rules and settings up to date.
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
	p.mu.Lock()
	same := state.equal(p.host)
	p.mu.Unlock()
	if same {
		return nil
	}
	if err := p.installHostRules(state.denied); err != nil {
		return err
	}
	p.mu.Lock()
	p.host = state
	p.mu.Unlock()
	return nil
}

// watch returns a channel that gets a value some time after the host's
// addresses or routes changed. It is closed once ctx is done and nothing of the
// watch is left.
func watch(ctx context.Context) (<-chan struct{}, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "netlink")
	groups := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV4_ROUTE}
	if err := unix.Bind(fd, groups); err != nil {
		socket.Close()
		return nil, fmt.Errorf("watching the host's addresses: %w", err)
	}
	changed := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, func() { socket.Close() })
	go func() {
		defer close(changed)
		defer stop()
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
	}()
	return changed, nil
}

// follow refreshes after changes until ctx is done.
func (p *Pool) follow(ctx context.Context, changed <-chan struct{}) {
	var due <-chan time.Time // nil: nothing to do
	for {
		select {
		case _, ok := <-changed:
			if !ok {
				if ctx.Err() == nil {
					p.cfg.Log.Warn("changes of the host's addresses are no longer noticed")
				}
				<-ctx.Done()
				return
			}
			if due == nil { // not later with every change, or it never comes
				due = time.After(settle)
			}
		case <-due:
			due = nil
			if err := p.refresh(); err != nil {
				p.cfg.Log.Warn("following a change of the host's addresses failed", "err", err)
			}
		case <-ctx.Done():
			for range changed { // until the watch has ended
			}
			return
		}
	}
}
