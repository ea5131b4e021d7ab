package network

import (
	"errors"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is the host's table of this server, and the alias of its links.
func (p *Pool) tableName() string { return "cove-" + p.cfg.Instance }

// specialRanges are the IPv4 ranges that are not the public internet: this
// network, private use (RFC 1918), shared address space, loopback, link-local
// and with it metadata services, protocol assignments, benchmarking, multicast,
// reserved and broadcast.
func specialRanges() []netip.Prefix {
	var ranges []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
	} {
		ranges = append(ranges, netip.MustParsePrefix(s))
	}
	return ranges
}

// installHostRules replaces the host's table in one step. Connections survive
// that: their translations are not in the table. It works in the namespace of
// the process.
func (p *Pool) installHostRules(denied []netip.Prefix) error {
	r, err := newRuleset()
	if err != nil {
		return err
	}
	t := r.replaceTable(nftables.TableFamilyINet, p.tableName())
	filter := func(at *nftables.ChainHook) *hook {
		return &hook{nftables.ChainTypeFilter, at, nftables.ChainPriorityFilter, nftables.ChainPolicyAccept, ""}
	}
	var deny [][]expr.Any
	for _, prefix := range denied {
		deny = append(deny, rule(destination(prefix), drop()))
	}
	r.chain(t, "denied", nil, deny...)
	r.chain(t, "from-slots", nil,
		rule(ipv6(), drop()),
		rule(known(), accept()),
		rule(invalid(), drop()),
		rule(jump("denied")),
		rule(clampMSS()),
		rule(accept()))
	r.chain(t, "forward", filter(nftables.ChainHookForward),
		rule(outSlot(), known(), accept()),
		rule(outSlot(), drop()), // from other slots as from elsewhere
		rule(inSlot(), jump("from-slots")))
	r.chain(t, "input", filter(nftables.ChainHookInput),
		rule(inSlot(), known(), accept()),
		rule(inSlot(), drop()))
	r.chain(t, "postrouting",
		&hook{nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, nftables.ChainPolicyAccept, ""},
		rule(source(p.cfg.Prefix), outNotSlot(), masquerade()))
	return r.commit("network.installHostRules")
}

// removeHostRules removes the host's table; it is not an error if there is none.
func (p *Pool) removeHostRules() error {
	r, err := newRuleset()
	if err != nil {
		return err
	}
	r.conn.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: p.tableName()})
	if err := r.conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return notPermitted("network.removeHostRules", err)
	}
	return nil
}

// closedForwarding names the tables of other programs that drop forwarded
// packets unless told otherwise. An accept of ours does not overrule them.
func closedForwarding() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, err
	}
	var tables []string
	for _, c := range chains {
		v4 := c.Table.Family == nftables.TableFamilyIPv4 || c.Table.Family == nftables.TableFamilyINet
		if v4 && c.Type == nftables.ChainTypeFilter && c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward &&
			c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			tables = append(tables, c.Table.Name)
		}
	}
	return tables, nil
}
