package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync/atomic"
)

// Names and addresses that are the same in every slot.
const (
	insideLink  = "eth0"   // the sandbox's packet socket is bound to it
	gatewayLink = "gw0"    // the other end, with the gateway's address
	uplink      = "uplink" // towards the host
)

var (
	insideAddr  = netip.AddrFrom4([4]byte{169, 254, 0, 21})
	gatewayAddr = netip.AddrFrom4([4]byte{169, 254, 0, 22})
)

// hardwareAddr is the link address of one of the two ends of the inside wire.
// It is locally administered and the same in every slot: the neighbour that a
// restored sandbox remembers must still be there.
func hardwareAddr(of netip.Addr) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0xc0, 0x7e, 0x00, 0x00, of.As4()[3]}
}

// uplinkAddrs are the link addresses of the two ends of a slot's uplink, on the
// host and in the slot. They are given, not random, because udev replaces random
// ones when it first sees a link, by which time the slot may be in use.
func uplinkAddrs(index int) (host, slot net.HardwareAddr) {
	a, b, c := byte(index>>16), byte(index>>8), byte(index) // an index has 22 bits at most
	return net.HardwareAddr{0x06, 0xc0, 0x7e, a, b, c}, net.HardwareAddr{0x0a, 0xc0, 0x7e, a, b, c}
}

const (
	insideBits = 30
	slotBits   = 30 // each slot has four addresses of Config.Prefix
)

// hostLinkPrefix begins the name of every slot's link on the host, and of no
// other link: the host's rules match it.
const hostLinkPrefix = "cove"

// A Slot is a network namespace prepared for one sandbox. Its exported fields do
// not change.
type Slot struct {
	Index     int          // unique on the host while the slot exists
	NetNS     string       // path of the namespace
	Interface string       // link in NetNS that carries the sandbox's frames
	Inside    netip.Prefix // the sandbox's own address
	Gateway   netip.Addr   // the sandbox's gateway and name server
	Address   netip.Addr   // where the host reaches the sandbox
	MTU       int          // bytes

	host     netip.Addr  // the host's end of the link
	hostLink string      // its name
	internet atomic.Bool // the policy as DNS sees it
	dns      *dnsServer  // set before the slot is handed out; closed by Release or Run

	denied []netip.Prefix // in its rules; guarded by Pool.mu once the slot is live
}

// slotAt describes the slot of an index; it need not exist.
func (p *Pool) slotAt(index int) *Slot {
	base := p.cfg.Prefix.Addr().As4()
	n := uint32(base[0])<<24 | uint32(base[1])<<16 | uint32(base[2])<<8 | uint32(base[3])
	n += uint32(index) << (32 - slotBits)
	host := netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}).Next()
	return &Slot{
		Index:     index,
		NetNS:     filepath.Join(p.cfg.LockDir, strconv.Itoa(index)+netnsSuffix),
		Interface: insideLink,
		Inside:    netip.PrefixFrom(insideAddr, insideBits),
		Gateway:   gatewayAddr,
		Address:   host.Next(),
		host:      host,
		hostLink:  hostLinkPrefix + strconv.Itoa(index),
	}
}

// capacity is how many slots Config.Prefix has addresses for.
func (p *Pool) capacity() int { return 1 << (slotBits - p.cfg.Prefix.Bits()) }

// Dial connects to a TCP port of the sandbox. The sandbox sees the connection
// come from its gateway.
func (s *Slot) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp4", netip.AddrPortFrom(s.Address, port).String())
	if err != nil {
		return nil, fmt.Errorf("dialing port %d of slot %d: %w", port, s.Index, err)
	}
	return conn, nil
}
