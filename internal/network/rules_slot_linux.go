package network

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	slotTable   = "slot"
	egressChain = "egress" // drops what the sandbox may not send of its own accord
	dnsPort     = 53
)

// installSlotRules puts a slot's own rules in force, with egress open. It runs
// in the slot's namespace.
func installSlotRules(s *Slot) error {
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
	slotFilter(r, t, s)
	slotNAT(r, t, s)
	return r.commit("network.installSlotRules")
}

func slotFilter(r ruleset, t *nftables.Table, s *Slot) {
	closed := func(at *nftables.ChainHook) *hook {
		return &hook{nftables.ChainTypeFilter, at, nftables.ChainPriorityFilter, nftables.ChainPolicyDrop, ""}
	}
	dns := func(proto byte) []expr.Any {
		return rule(in(gatewayLink), source(single(insideAddr)), destination(single(gatewayAddr)),
			protocol(proto), toPort(dnsPort), accept())
	}
	r.chain(t, "input", closed(nftables.ChainHookInput), dns(unix.IPPROTO_UDP), dns(unix.IPPROTO_TCP))

	r.chain(t, egressChain, nil)
	inward := rule(in(uplink), out(gatewayLink))
	outward := rule(in(gatewayLink), out(uplink), source(single(insideAddr)))
	r.chain(t, "forward", closed(nftables.ChainHookForward),
		rule(invalid(), drop()),
		rule(inward, known(), accept()),
		rule(inward, source(single(s.host)), accept()),
		// By direction, so that closing egress also ends what the sandbox has open.
		rule(outward, reply(), known(), accept()),
		rule(outward, jump(egressChain)),
		rule(outward, accept()))
}

func slotNAT(r ruleset, t *nftables.Table, s *Slot) {
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

// installPolicy opens or closes egress. Closing adds a rule to a chain that is
// empty in a fresh slot: a removal makes the caller wait for a grace period. It
// runs in the slot's namespace.
func installPolicy(policy Policy) error {
	r, err := newRuleset()
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: slotTable}
	c := &nftables.Chain{Table: t, Name: egressChain}
	r.conn.FlushChain(c)
	if !policy.Internet {
		r.conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: rule(drop())})
	}
	return r.commit("network.installPolicy")
}
