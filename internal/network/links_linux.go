package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/undo"
)

// build makes the namespace and the links of a slot, open to the internet: a
// slot nobody uses has nothing to hide. It returns errTaken if the slot's link
// exists already, and on any error leaves nothing behind.
func (p *Pool) build(ctx context.Context, s *Slot) (err error) {
	const op = "network.build"
	var steps undo.Stack
	defer func() {
		if err != nil {
			err = errors.Join(notPermitted(op, err), steps.Unwind(ctx))
		}
	}()
	if err := createNetNS(s.NetNS); err != nil {
		return err
	}
	steps.Add("namespace", func(context.Context) error { return removeNetNS(s.NetNS) })

	if err := addUplink(s); err != nil {
		return err
	}
	steps.Add("link", func(context.Context) error { return deleteLink(s.hostLink) })

	if err := p.configureHostEnd(s); err != nil {
		return err
	}
	rules := slotRules{denied: s.denied, limits: p.limits(), policy: Policy{Internet: true}}
	if err := inNetNS(s.NetNS, func() error { return configureInside(s, rules) }); err != nil {
		return err
	}
	return ctx.Err()
}

// addUplink creates the pair that joins the slot and the host, with each end
// where it belongs from the start: moving a link is slow.
func addUplink(s *Slot) error {
	ns, err := os.Open(s.NetNS)
	if err != nil {
		return err
	}
	defer ns.Close()
	link := veth(s.hostLink, uplink, s.MTU)
	link.PeerNamespace = netlink.NsFd(ns.Fd())
	link.HardwareAddr, link.PeerHardwareAddr = uplinkAddrs(s.Index)
	switch err := netlink.LinkAdd(link); {
	case errors.Is(err, unix.EEXIST):
		return errTaken
	case errors.Is(err, unix.EOPNOTSUPP):
		return cove.E(cove.Unavailable, "network.build", err, "sandbox networking needs veth devices, which this kernel lacks")
	case err != nil:
		return fmt.Errorf("creating the uplink: %w", err)
	}
	return nil
}

// veth returns a pair with one queue per direction: one sandbox sends on one
// socket, and the default is a queue per processor of the host.
func veth(name, peer string, mtu int) *netlink.Veth {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	attrs.MTU = mtu
	attrs.NumTxQueues = 1
	attrs.NumRxQueues = 1
	link := netlink.NewVeth(attrs)
	link.PeerName = peer
	return link
}

func (p *Pool) configureHostEnd(s *Slot) error {
	link, err := netlink.LinkByName(s.hostLink)
	if err != nil {
		return fmt.Errorf("finding the uplink: %w", err)
	}
	if err := netlink.LinkSetAlias(link, p.tableName()); err != nil {
		return fmt.Errorf("marking the uplink: %w", err)
	}
	if err := setSysctls(
		sysctl{"ipv6/conf/" + s.hostLink + "/disable_ipv6", "1", true},
		sysctl{"ipv4/conf/" + s.hostLink + "/forwarding", "1", false},
		sysctl{"ipv4/conf/" + s.hostLink + "/rp_filter", "1", false}, // only the slot's own address
	); err != nil {
		return err
	}
	return addressAndUp(link, netip.PrefixFrom(s.host, slotBits))
}

// configureInside runs in the slot's namespace. The rules come before the links
// are up.
func configureInside(s *Slot, rules slotRules) error {
	if err := setSysctls(
		sysctl{"ipv6/conf/all/disable_ipv6", "1", true},
		sysctl{"ipv6/conf/default/disable_ipv6", "1", true},
		sysctl{"ipv4/conf/all/rp_filter", "1", false},
		sysctl{"ipv4/conf/all/arp_ignore", "1", false}, // the sandbox cannot ask for the uplink's address
		sysctl{"ipv4/ip_forward", "1", false},
	); err != nil {
		return err
	}
	pair := veth(insideLink, gatewayLink, s.MTU)
	pair.HardwareAddr = hardwareAddr(insideAddr)
	pair.PeerHardwareAddr = hardwareAddr(gatewayAddr)
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("creating the inside link: %w", err)
	}
	if err := installSlotRules(s, rules); err != nil {
		return err
	}
	for _, l := range []struct {
		name    string
		address netip.Prefix
	}{
		{insideLink, netip.Prefix{}},
		{gatewayLink, netip.PrefixFrom(gatewayAddr, insideBits)},
		{uplink, netip.PrefixFrom(s.Address, slotBits)},
	} {
		link, err := netlink.LinkByName(l.name)
		if err != nil {
			return fmt.Errorf("finding %s: %w", l.name, err)
		}
		if err := addressAndUp(link, l.address); err != nil {
			return err
		}
	}
	route := &netlink.Route{Gw: s.host.AsSlice()}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("adding the default route: %w", err)
	}
	return nil
}

// addressAndUp gives link an address, unless it is the zero Prefix, and brings
// it up.
func addressAndUp(link netlink.Link, address netip.Prefix) error {
	name := link.Attrs().Name
	if address.IsValid() {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: address.Addr().AsSlice(), Mask: net.CIDRMask(address.Bits(), 32)}}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("giving %s its address: %w", name, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing %s up: %w", name, err)
	}
	return nil
}

// inspect checks that a slot of an earlier process is whole and reads what only
// its links know.
func (p *Pool) inspect(s *Slot) error {
	link, err := netlink.LinkByName(s.hostLink)
	if err != nil {
		return fmt.Errorf("finding the uplink: %w", err)
	}
	if link.Attrs().Alias != p.tableName() || !isNetNS(s.NetNS) {
		return errTaken
	}
	s.MTU = link.Attrs().MTU
	return inNetNS(s.NetNS, func() error {
		if _, err := netlink.LinkByName(gatewayLink); err != nil {
			return fmt.Errorf("finding %s: %w", gatewayLink, err)
		}
		return nil
	})
}

// demolish removes whatever there is of a slot. The links go by name, because a
// process that outlived its sandbox may keep the namespace alive. All steps are
// tried.
func (p *Pool) demolish(s *Slot) error {
	var errs []error
	if isNetNS(s.NetNS) {
		errs = append(errs, inNetNS(s.NetNS, func() error {
			return errors.Join(deleteLink(gatewayLink), deleteLink(uplink))
		}))
	}
	// The other end is gone by now, unless somebody unmounted the namespace.
	link, err := netlink.LinkByName(s.hostLink)
	if err == nil && link.Attrs().Alias == p.tableName() {
		errs = append(errs, deleteLink(s.hostLink))
	}
	errs = append(errs, removeNetNS(s.NetNS))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing slot %d: %w", s.Index, err)
	}
	return nil
}

// deleteLink deletes a link and its peer; it is not an error if there is none.
func deleteLink(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("deleting %s: %w", name, err)
	}
	return nil
}

// sysctl is a setting below net/ of the calling thread's namespace.
type sysctl struct {
	name, value string
	optional    bool // a kernel without it needs no setting
}

// setSysctls writes only what differs: where /proc/sys is read-only, whoever
// made it so may have set things up.
func setSysctls(settings ...sysctl) error {
	for _, s := range settings {
		path := filepath.Join("/proc/sys/net", s.name)
		now, err := os.ReadFile(path)
		if s.optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && strings.TrimSpace(string(now)) != s.value {
			err = os.WriteFile(path, []byte(s.value), 0)
		}
		if err != nil {
			return fmt.Errorf("setting net/%s: %w", s.name, err)
		}
	}
	return nil
}
