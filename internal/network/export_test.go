package network

import (
	"context"
	"time"
)

// InNetNS lets tests act inside a slot and in namespaces of their own.
func InNetNS(path string, fn func() error) error { return inNetNS(path, fn) }

// CreateNetNS and RemoveNetNS make the namespaces that play the internet and
// the sandboxes.
func CreateNetNS(path string) error { return createNetNS(path) }
func RemoveNetNS(path string) error { return removeNetNS(path) }

// MaxQueries is the bound on a slot's queries in progress.
const MaxQueries = maxQueries

// QueriesPerSecond and QueryBurst are the limits of a slot's queries.
const (
	QueriesPerSecond = queriesPerSecond
	QueryBurst       = queryBurst
)

// LimitFlows replaces the limits of the slots that p will make.
func (p *Pool) LimitFlows(concurrent, perSecond, burst int) {
	p.limits = func() flowLimits { return flowLimits{concurrent, perSecond, burst} }
}

// RetryAfter replaces how long p waits after a failure.
func (p *Pool) RetryAfter(d time.Duration) { p.retry = d }

// ShareFlows returns the limits on a host that tracks size connections.
func ShareFlows(size int) (concurrent, perSecond, burst int) {
	l := shareFlows(size)
	return l.concurrent, l.perSecond, l.burst
}

// LegacyFirewalls looks for old iptables with a file of tables of its own.
func LegacyFirewalls(ctx context.Context, tables string) ([]Firewall, error) {
	return legacyFirewalls(ctx, tables)
}
