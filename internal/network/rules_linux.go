package network

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	cove "github.com/cove-sandbox/cove"
)

// Offsets of addresses in their headers.
const (
	ipSource      = 12
	ipDestination = 16
	arpSender     = 14 // of the sender's protocol address, in ARP for IPv4 over Ethernet
)

// match is a part of a rule: all its expressions must hold.
type match []expr.Any

// rule joins the parts of a rule.
func rule(parts ...match) []expr.Any { return slices.Concat(parts...) }

func equal(reg uint32, data []byte) *expr.Cmp {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data}
}

func meta(key expr.MetaKey, data []byte) match {
	return match{&expr.Meta{Key: key, Register: 1}, equal(1, data)}
}

// linkName pads a name as the kernel compares it.
func linkName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func in(link string) match  { return meta(expr.MetaKeyIIFNAME, linkName(link)) }
func out(link string) match { return meta(expr.MetaKeyOIFNAME, linkName(link)) }

// inSlot and outSlot match the links of all slots, of all servers, by the
// beginning of their names.
func inSlot() match  { return meta(expr.MetaKeyIIFNAME, []byte(hostLinkPrefix)) }
func outSlot() match { return meta(expr.MetaKeyOIFNAME, []byte(hostLinkPrefix)) }

func outNotSlot() match { return outNot([]byte(hostLinkPrefix)) }

func outNot(name []byte) match {
	return match{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: name},
	}
}

func ipv6() match { return meta(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV6}) }

// source and destination match IPv4 packets of an inet table.
func source(p netip.Prefix) match      { return ipAddr(ipSource, p) }
func destination(p netip.Prefix) match { return ipAddr(ipDestination, p) }

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func ipAddr(offset uint32, p netip.Prefix) match {
	return append(meta(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV4}), networkHeader(offset, p)...)
}

func networkHeader(offset uint32, p netip.Prefix) match {
	m := match{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}}
	if p.Bits() < 32 {
		m = append(m, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: net.CIDRMask(p.Bits(), 32), Xor: make([]byte, 4)})
	}
	return append(m, equal(1, p.Masked().Addr().AsSlice()))
}

// frame matches what a netdev chain sees: a protocol and the sender's address.
func frame(etherType uint16, offset uint32, sender netip.Addr) match {
	return append(
		meta(expr.MetaKeyPROTOCOL, binary.BigEndian.AppendUint16(nil, etherType)),
		networkHeader(offset, single(sender))...)
}

func protocol(proto byte) match { return meta(expr.MetaKeyL4PROTO, []byte{proto}) }

// toPort and fromPort match TCP and UDP.
func toPort(port uint16) match   { return portAt(2, port) }
func fromPort(port uint16) match { return portAt(0, port) }

func portAt(offset uint32, port uint16) match {
	return match{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		equal(1, binary.BigEndian.AppendUint16(nil, port)),
	}
}

// tracked matches packets whose connection has one of the bits set.
func tracked(key expr.CtKey, bits uint32) match {
	return match{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func invalid() match { return tracked(expr.CtKeySTATE, expr.CtStateBitINVALID) }
func known() match {
	return tracked(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

// confirmed matches every packet of a flow but those until the first has left:
// unlike known it does not wait for a reply, which some protocols never send.
func confirmed() match {
	const ipsConfirmed = 1 << 3 // enum ip_conntrack_status, linux/netfilter/nf_conntrack_common.h
	return tracked(expr.CtKeySTATUS, ipsConfirmed)
}

// faster matches packets in excess of a rate.
func faster(perSecond, burst int) match {
	return match{&expr.Limit{
		Type: expr.LimitTypePkts, Rate: uint64(perSecond), Unit: expr.LimitTimeSecond, Burst: uint32(burst), Over: true,
	}}
}

// moreThan counts the flow of a packet, until that flow has ended, and matches
// if there are too many.
func moreThan(flows int) match {
	return match{&expr.Connlimit{Count: uint32(flows), Flags: expr.NFT_CONNLIMIT_F_INV}}
}

func notrack() match { return match{&expr.Notrack{}} }

// reply matches packets that go against the direction their connection was
// opened in.
func reply() match {
	return match{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}, equal(1, []byte{1})}
}

// clampMSS keeps TCP segments within the path's size where the route's is
// smaller than the slot's, without relying on ICMP to come through.
func clampMSS() match {
	const kindMSS, mssAt, mssLen = 2, 2, 2 // RFC 9293, 3.2
	return append(protocol(unix.IPPROTO_TCP),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{0x02}, Xor: []byte{0}}, // SYN
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0}},
		&expr.Rt{Register: 1, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: mssLen, Size: mssLen},
		&expr.Exthdr{SourceRegister: 1, Type: kindMSS, Offset: mssAt, Len: mssLen, Op: expr.ExthdrOpTcpopt},
	)
}

func verdict(kind expr.VerdictKind, chain string) match {
	return match{&expr.Verdict{Kind: kind, Chain: chain}}
}

func accept() match           { return verdict(expr.VerdictAccept, "") }
func drop() match             { return verdict(expr.VerdictDrop, "") }
func jump(chain string) match { return verdict(expr.VerdictJump, chain) }
func masquerade() match       { return match{&expr.Masq{}} }

func dnat(to netip.Addr) match {
	return match{
		&expr.Immediate{Register: 1, Data: to.AsSlice()},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
	}
}

// denials are the rules of a chain that drops what goes to one of the prefixes.
func denials(prefixes []netip.Prefix) [][]expr.Any {
	var rules [][]expr.Any
	for _, p := range prefixes {
		rules = append(rules, rule(destination(p), drop()))
	}
	return rules
}

// ruleset collects changes that the kernel makes all at once or not at all.
type ruleset struct {
	conn  *nftables.Conn
	rules int // how many were added
}

func newRuleset() (*ruleset, error) {
	conn, err := nftables.New()
	return &ruleset{conn: conn}, err
}

// replaceTable empties the table of that name and creates it if need be.
func (r *ruleset) replaceTable(family nftables.TableFamily, name string) *nftables.Table {
	t := &nftables.Table{Family: family, Name: name}
	r.conn.AddTable(t)
	r.conn.DelTable(t)
	return r.conn.AddTable(t)
}

// hook describes where a chain is entered.
type hook struct {
	kind     nftables.ChainType
	at       *nftables.ChainHook
	priority *nftables.ChainPriority
	policy   nftables.ChainPolicy
	device   string // for ingress
}

// chain adds a chain with its rules; a nil hook means that others jump to it.
func (r *ruleset) chain(t *nftables.Table, name string, h *hook, rules ...[]expr.Any) {
	c := &nftables.Chain{Table: t, Name: name}
	if h != nil {
		c.Type, c.Hooknum, c.Priority, c.Policy, c.Device = h.kind, h.at, h.priority, &h.policy, h.device
	}
	r.conn.AddChain(c)
	r.fill(c, rules...)
}

// fill adds rules to a chain.
func (r *ruleset) fill(c *nftables.Chain, rules ...[]expr.Any) {
	r.rules += len(rules)
	for _, exprs := range rules {
		r.conn.AddRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: exprs})
	}
}

// commit makes the changes in the calling thread's namespace.
func (r *ruleset) commit(op string) error {
	err := r.conn.Flush()
	for _, missing := range []error{unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.ENOENT, unix.EAFNOSUPPORT} {
		if errors.Is(err, missing) {
			return cove.E(cove.Unavailable, op, err, "sandbox networking needs nftables with connection tracking, connection limits and NAT, which this kernel lacks")
		}
	}
	return notPermitted(op, err)
}
