// Package network gives each sandbox a slot: a network namespace that is ready
// before the sandbox is, with rules that are in force before its first packet.
//
// Inside every slot the sandbox is 169.254.0.21/30 and its gateway is
// 169.254.0.22, with the same hardware addresses everywhere, so a snapshot fits
// any slot. The sandbox's own network stack sends and receives through a packet
// socket on eth0; gw0 is the other end of that wire. The slot translates to the
// one address by which the host knows it:
//
//	sandbox <-packets-> eth0 <-> gw0 [slot] uplink <-> cove<index> [host] <-> internet
//
// What a sandbox may reach is decided twice, with the same list of prefixes:
// private and special-purpose ranges, the slots' own and every network the host
// is attached to. The slot's rules drop frames with a foreign source, close the
// slot to the sandbox except for DNS at the gateway, and apply the Policy, the
// list and a limit on the flows that the host has to track. One nftables table
// on the host, shared by all slots of a server, applies the list again and keeps
// sandboxes from the host itself and from each other. Both follow the host's
// configuration, and the table is put back when somebody flushes it; until then
// the slots' rules hold. Nothing on the host may open a connection into a slot
// but the host itself. IPv6 is off.
//
// DNS at the gateway is served by this process, from a socket in each slot, and
// forwarded to the host's own name servers at a bounded rate.
//
// The host must forward packets. net.ipv4.ip_forward is left alone; forwarding
// is switched on for the slots' links and for every interface that a route with
// a gateway leaves through, and stays on. Where nobody else made the host a
// router, the table keeps it from being one between these interfaces and others
// for its neighbours. Each flow of a slot costs the host an entry in its table of
// connections and cannot do without, because the host translates its address. A
// firewall of the host that drops forwarded packets by default has to let the
// cove* interfaces pass: accepting here does not overrule it. Firewalls finds
// such.
//
// Slots outlive the server, as sandboxes do: a slot is a symbolic link
// <LockDir>/<index>, whose target is the name of the owning server, and a
// mounted namespace <LockDir>/<index>.net, which therefore has to be in the
// mount namespace the next server runs in too. Both are enough to adopt the
// slot or to remove it.
//
// This package is not a runtime: it does not know what a sandbox is. Engines,
// the composition root and the commands that look at a host may import it.
// Pool.Run owns its goroutines; a slot's DNS goroutines end with Release, or
// with Run.
package network
