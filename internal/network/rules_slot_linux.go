package network

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	slotTable   = "slot"
	egressChain = "egress" // drops what the sandbox may not send of its own accord
	deniedChain = "denied" // drops what goes to an address no sandbox reaches
	dnsPort     = 53
)

// slotRules is what the rules of a slot depend on besides the slot.
type slotRules struct {
	denied []netip.Prefix
	limits flowLimits
	policy Policy
}

// installSlotRules puts a slot's own rules in force, in place of those it may
// have from an earlier server. It runs in the slot's namespace.
func installSlotRules(s *Slot, rules slotRules) error {
	r, err := newRuleset()
	if err != nil {
		return err
	}
	frames := r.replaceTable(nftables.TableFamilyNetdev, slotTable)
	ingress := func(link string) *hook {
		return &hook{nftables.ChainTypeFilter, nftables.ChainHookIngress, nftables.ChainPriorityFilter, nftables.ChainPolicyDrop, link}
	}
	// The sandbox's packet socket sees frames before this does. The
	// namespace's own stack must not, or it handles each one as well.
	r.chain(frames, "to-sandbox", ingress(insideLink))
	r.chain(frames, "from-sandbox", ingress(gatewayLink),
		rule(frame(unix.ETH_P_IP, ipSource, insideAddr), accept()),
		rule(frame(unix.ETH_P_ARP, arpSender, insideAddr), accept()))

	t := r.replaceTable(nftables.TableFamilyINet, slotTable)
	slotUntracked(r, t)
	slotFilter(r, t, s, rules)
	slotNAT(r, t, s)
	return r.commit("network.installSlotRules")
}

// slotUntracked keeps DNS out of the slot's table of connections: it needs no
// translation, and every query would stay there for half a minute.
func slotUntracked(r *ruleset, t *nftables.Table) {
	raw := func(at *nftables.ChainHook) *hook {
		return &hook{nftables.ChainTypeFilter, at, nftables.ChainPriorityRaw, nftables.ChainPolicyAccept, ""}
	}
	query := func(proto byte) []expr.Any {
		return rule(in(gatewayLink), destination(single(gatewayAddr)), protocol(proto), toPort(dnsPort), notrack())
	}
	reply := func(proto byte) []expr.Any {
		return rule(out(gatewayLink), source(single(gatewayAddr)), protocol(proto), fromPort(dnsPort), notrack())
	}
	r.chain(t, "untracked-in", raw(nftables.ChainHookPrerouting), query(unix.IPPROTO_UDP), query(unix.IPPROTO_TCP))
	r.chain(t, "untracked-out", raw(nftables.ChainHookOutput), reply(unix.IPPROTO_UDP), reply(unix.IPPROTO_TCP))
}

func slotFilter(r *ruleset, t *nftables.Table, s *Slot, rules slotRules) {
	closed := func(at *nftables.ChainHook) *hook {
		return &hook{nftables.ChainTypeFilter, at, nftables.ChainPriorityFilter, nftables.ChainPolicyDrop, ""}
	}
	dns := func(proto byte) []expr.Any {
		return rule(in(gatewayLink), source(single(insideAddr)), destination(single(gatewayAddr)),
			protocol(proto), toPort(dnsPort), accept())
	}
	r.chain(t, "input", closed(nftables.ChainHookInput), dns(unix.IPPROTO_UDP), dns(unix.IPPROTO_TCP))

	r.chain(t, egressChain, nil, egress(rules.policy)...)
	// The host's table has the same list. It is here too because anybody may
	// flush the host's rules, and then this is the wall that stands.
	r.chain(t, deniedChain, nil, denials(rules.denied)...)
	inward := rule(in(uplink), out(gatewayLink))
	outward := rule(in(gatewayLink), out(uplink), source(single(insideAddr)))
	limits := rules.limits
	r.chain(t, "forward", closed(nftables.ChainHookForward),
		rule(invalid(), drop()),
		rule(inward, known(), accept()),
		rule(inward, source(single(s.host)), accept()),
		// By direction, so that closing egress also ends what the sandbox has open.
		rule(outward, reply(), known(), accept()),
		rule(outward, jump(egressChain)),
		rule(outward, confirmed(), accept()),
		// Only the first packet of a flow comes this far. The rate first: it is
		// cheap, and what it drops does not have to be counted.
		rule(outward, jump(deniedChain)),
		rule(outward, faster(limits.perSecond, limits.burst), drop()),
		rule(outward, moreThan(limits.concurrent), drop()),
		rule(outward, accept()))
}

func slotNAT(r *ruleset, t *nftables.Table, s *Slot) {
	nat := func(at *nftables.ChainHook, priority *nftables.ChainPriority) *hook {
		return &hook{nftables.ChainTypeNAT, at, priority, nftables.ChainPolicyAccept, ""}
	}
	// Only what comes from the host: a packet for an earlier user of this
	// address must not reach the present one.
	forward := func(proto byte) []expr.Any {
		return rule(in(uplink), source(single(s.host)), protocol(proto), dnat(insideAddr))
	}
	r.chain(t, "prerouting", nat(nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest),
		forward(unix.IPPROTO_TCP), forward(unix.IPPROTO_UDP))
	// Towards the sandbox too: the host's address differs between slots.
	r.chain(t, "postrouting", nat(nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource),
		rule(out(uplink), masquerade()),
		rule(out(gatewayLink), masquerade()))
}

func egress(policy Policy) [][]expr.Any {
	if policy.Internet {
		return nil
	}
	return [][]expr.Any{rule(drop())}
}

// installPolicy opens or closes egress. Closing adds a rule to a chain that is
// empty in a fresh slot: a removal makes the caller wait for a grace period. It
// runs in the slot's namespace.
func installPolicy(policy Policy) error {
	return refillChain("network.installPolicy", egressChain, egress(policy))
}

// installDenied replaces what no sandbox reaches. What is open stays open, as
// on the host. It runs in the slot's namespace.
func installDenied(denied []netip.Prefix) error {
	return refillChain("network.installDenied", deniedChain, denials(denied))
}

// refillChain replaces the rules of a chain of the slot in one step.
func refillChain(op, name string, rules [][]expr.Any) error {
	r, err := newRuleset()
	if err != nil {
		return err
	}
	c := &nftables.Chain{Table: &nftables.Table{Family: nftables.TableFamilyINet, Name: slotTable}, Name: name}
	r.conn.FlushChain(c)
	r.fill(c, rules...)
	return r.commit(op)
}
