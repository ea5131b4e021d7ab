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

// The words for the sandbox's owner, for tests.
var TooMany = tooMany

func TooLarge(p Process, wrote, total, free uint64) string {
	return tooLarge(p, wrote, state{Sample: Sample{Total: total, Free: free}, free: free})
}

func CrowdTooLarge(processes int, held, total, free uint64) string {
	return crowdTooLarge(processes, held, state{Sample: Sample{Total: total, Free: free}, free: free / 2})
}

func NobodyHolds(total, free uint64) string {
	return nobodyHolds(state{Sample: Sample{Total: total, Free: free}, free: free})
}
