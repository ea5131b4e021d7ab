package network

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const tablePrefix = "cove-"

// tableName is the host's table of this server, and the alias of its links.
func (p *Pool) tableName() string { return tablePrefix + p.cfg.Instance }

// SpecialRanges are the ranges that are not the public internet: those of
// specialRanges, and for IPv6 loopback, unique local, link-local, site-local and
// multicast addresses, and those that stand for IPv4 ones.
func SpecialRanges() []netip.Prefix {
	ranges := specialRanges()
	for _, s := range []string{"::/127", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"} {
		ranges = append(ranges, netip.MustParsePrefix(s))
	}
	return ranges
}

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
// that: their translations are not in the table. It returns the fingerprint of
// what is in force now. It works in the namespace of the process.
func (p *Pool) installHostRules(state hostState) (fingerprint string, err error) {
	r, err := newRuleset()
	if err != nil {
		return "", err
	}
	t := r.replaceTable(nftables.TableFamilyINet, p.tableName())
	filter := func(at *nftables.ChainHook) *hook {
		return &hook{nftables.ChainTypeFilter, at, nftables.ChainPriorityFilter, nftables.ChainPolicyAccept, ""}
	}
	r.chain(t, deniedChain, nil, denials(state.denied)...)
	r.chain(t, "from-slots", nil,
		rule(ipv6(), drop()),
		rule(known(), accept()),
		rule(invalid(), drop()),
		rule(jump(deniedChain)),
		rule(clampMSS()),
		rule(accept()))
	forward := [][]expr.Any{
		rule(outSlot(), known(), accept()),
		rule(outSlot(), drop()), // from other slots as from elsewhere
		rule(inSlot(), jump("from-slots")),
	}
	for _, name := range state.guarded {
		// Out by the way it came in is no routing: so it looks when the
		// interface is a bridge and its ports talk to each other.
		forward = append(forward, rule(in(name), outNot(linkName(name)), drop()))
	}
	r.chain(t, "forward", filter(nftables.ChainHookForward), forward...)
	r.chain(t, "input", filter(nftables.ChainHookInput),
		rule(inSlot(), known(), accept()),
		rule(inSlot(), drop()))
	r.chain(t, "postrouting",
		&hook{nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, nftables.ChainPolicyAccept, ""},
		rule(source(p.cfg.Prefix), outNotSlot(), masquerade()))
	if err := r.commit("network.installHostRules"); err != nil {
		return "", err
	}
	fingerprint, rules, err := p.readHostRules()
	if err != nil {
		return "", err
	}
	if rules != r.rules {
		return "", fmt.Errorf("the host's rules were changed at once: %d of %d are there", rules, r.rules)
	}
	return fingerprint, nil
}

// readHostRules tells one state of the host's table from others: the kernel
// numbers the rules of a table as they come. The fingerprint is empty if there
// is no table.
func (p *Pool) readHostRules() (fingerprint string, rules int, err error) {
	conn, err := nftables.New()
	if err != nil {
		return "", 0, err
	}
	chains, err := list(func() ([]*nftables.Chain, error) { return conn.ListChainsOfTableFamily(nftables.TableFamilyINet) })
	if err != nil {
		return "", 0, fmt.Errorf("listing the host's chains: %w", err)
	}
	var b strings.Builder
	for _, c := range chains {
		if c.Table.Name != p.tableName() {
			continue
		}
		fmt.Fprintf(&b, "%s %s", c.Name, c.Type)
		if c.Hooknum != nil && c.Policy != nil {
			fmt.Fprintf(&b, " %d %d", *c.Hooknum, *c.Policy)
		}
		found, err := conn.GetRules(c.Table, c)
		if err != nil {
			return "", 0, fmt.Errorf("listing the host's rules: %w", err)
		}
		for _, r := range found {
			fmt.Fprintf(&b, " %d/%d", r.Handle, len(r.Exprs))
		}
		rules += len(found)
		b.WriteString("\n")
	}
	return b.String(), rules, nil
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
