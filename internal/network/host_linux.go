package network

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	cove "github.com/cove-sandbox/cove"
)

const maxMTU = 1500 // what the rest of the internet takes

// hostState is what the host's rules and settings are made from.
type hostState struct {
	denied  []netip.Prefix // what no sandbox reaches, sorted, none inside another
	uplinks []string       // interfaces that packets leave through, sorted
	guarded []string       // those of them that forward for nobody but sandboxes, sorted
	mtu     int            // of slots
}

func (h hostState) equal(o hostState) bool {
	return slices.Equal(h.denied, o.denied) && slices.Equal(h.uplinks, o.uplinks) &&
		slices.Equal(h.guarded, o.guarded) && h.mtu == o.mtu
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
	state := hostState{denied: widest(denied), uplinks: uplinks, mtu: mtu}
	routes, err := routesForOthers(uplinks)
	if !routes {
		state.guarded = uplinks
	}
	return state, err
}

// routesForOthers reports whether somebody wants this host to be a router, for
// virtual machines, containers or a network. If nobody does, switching
// forwarding on for the uplinks must not make it one for its neighbours.
func routesForOthers(uplinks []string) (bool, error) {
	const conf = "/proc/sys/net/ipv4/conf"
	on := func(path string) (bool, error) {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) { // the interface went away
			return false, nil
		}
		return strings.TrimSpace(string(text)) == "1", err
	}
	if yes, err := on("/proc/sys/net/ipv4/ip_forward"); yes || err != nil {
		return yes, err
	}
	links, err := os.ReadDir(conf)
	if err != nil {
		return false, fmt.Errorf("listing the host's interfaces: %w", err)
	}
	for _, link := range links {
		name := link.Name()
		if name == "all" || name == "default" || strings.HasPrefix(name, hostLinkPrefix) || slices.Contains(uplinks, name) {
			continue
		}
		if yes, err := on(filepath.Join(conf, name, "forwarding")); yes || err != nil {
			return yes, err
		}
	}
	return false, nil
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
