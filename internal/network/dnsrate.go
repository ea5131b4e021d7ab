package network

import (
	"context"
	"sync"
	"time"
)

// Each query that is forwarded is a flow of the host's own for half a minute:
// without a limit, a sandbox could fill the host's table of connections by
// asking for names. A page full of links or an install asks for a few hundred.
const (
	queriesPerSecond = 300
	queryBurst       = 1000
)

// A queryRate lets through the queries of one slot at a bounded rate. It may be
// used from any goroutine.
type queryRate struct {
	mu   sync.Mutex
	left float64 // queries that may come now
	at   time.Time
}

func newQueryRate() *queryRate { return &queryRate{left: queryBurst, at: time.Now()} }

// take returns zero if a query may be answered now, or else how long until it
// may be.
func (q *queryRate) take() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	q.left = min(q.left+now.Sub(q.at).Seconds()*queriesPerSecond, queryBurst)
	q.at = now
	if q.left >= 1 {
		q.left--
		return 0
	}
	return time.Duration((1 - q.left) / queriesPerSecond * float64(time.Second))
}

// wait takes when it may. It reports whether that came before the end of ctx.
func (q *queryRate) wait(ctx context.Context) bool {
	for {
		pause := q.take()
		if pause == 0 {
			return true
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
	}
}
