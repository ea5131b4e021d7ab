package guard

import (
	"context"
	"time"
)

// Look looks once, as Run does.
func (g *Guard) Look(ctx context.Context) time.Duration { return g.look(ctx) }

// The decisions, for tests.
var (
	Reserve      = reserve
	MaxProcesses = maxProcesses
	ParseStat    = parseStat
)

// Interval is what interval says of this much free memory.
func Interval(total, free uint64) time.Duration {
	return interval(state{Sample: Sample{Total: total}, free: free})
}

// Effective is what effective says.
func Effective(s Sample, processes int) uint64 { return effective(s, processes) }
