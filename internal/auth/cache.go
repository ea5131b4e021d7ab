package auth

import (
	"sync"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// maxCached bounds the memory of a cache; a server with more keys in use at
// once asks the store more often.
const maxCached = 1024

// cache remembers keys that were found. Failures are not remembered: a key must
// work as soon as it has been made.
type cache struct {
	ttl time.Duration // not positive: remembers nothing
	now func() time.Time

	mu      sync.Mutex
	entries map[string]cached // by hash; guarded by mu
}

type cached struct {
	key   cove.Key
	until time.Time
}

func newCache(ttl time.Duration, now func() time.Time) *cache {
	return &cache{ttl: ttl, now: now, entries: make(map[string]cached)}
}

func (c *cache) get(hash string) (cove.Key, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[hash]
	if !ok || !c.now().Before(e.until) {
		return cove.Key{}, false
	}
	return e.key, true
}

func (c *cache) put(hash string, key cove.Key) {
	if c.ttl <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.entries) >= maxCached {
		c.shrink()
	}
	c.entries[hash] = cached{key: key, until: c.now().Add(c.ttl)}
}

// shrink drops what has expired and, if that is nothing, one entry or another.
// The caller holds mu.
func (c *cache) shrink() {
	now := c.now()
	for hash, e := range c.entries {
		if !now.Before(e.until) {
			delete(c.entries, hash)
		}
	}
	for hash := range c.entries {
		if len(c.entries) < maxCached {
			return
		}
		delete(c.entries, hash)
	}
}
