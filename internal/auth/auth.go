// Package auth turns what a request carries into a team, and derives what a
// sandbox is opened with: API keys, access tokens and signed file URLs.
//
// It is not a user directory and keeps no records: keys live in the store,
// hashed, and tokens are computed from one server secret, so that nothing has to
// be stored or handed from host to host. Engines, surfaces and package server
// may import it. It starts no goroutines.
package auth

import (
	"context"
	"crypto/subtle"
	"fmt"
	"net/http"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// Keys finds API keys.
type Keys interface {
	// KeyByHash returns the key whose hash is the given one. If there is none
	// the error is NotFound.
	KeyByHash(ctx context.Context, hash string) (cove.Key, error)
}

// Config is what an Authenticator is made of.
type Config struct {
	Keys Keys // required

	// CacheFor is how long a key that was found is believed without asking
	// again, and so how long a deleted key may still work. 0: 5s; negative: not
	// at all.
	CacheFor time.Duration
	Now      func() time.Time // nil: time.Now
}

// Authenticator tells which team a request comes from. It may be used by many
// goroutines at once.
type Authenticator struct {
	keys  Keys
	cache *cache
}

// New returns an Authenticator.
func New(cfg Config) *Authenticator {
	if cfg.CacheFor == 0 {
		cfg.CacheFor = 5 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Authenticator{keys: cfg.Keys, cache: newCache(cfg.CacheFor, cfg.Now)}
}

// maxKeyLen bounds what is hashed for someone who has not shown a key yet.
const maxKeyLen = 512

const (
	missingKey = `API key is missing: send it in the X-API-Key header; "cove env" prints it, and the server keeps it in credentials.env in its data directory`
	invalidKey = `Invalid API key: use the one that "cove env" prints, which the server keeps in credentials.env in its data directory`
)

// Authenticate returns the key that the headers of a request carry, in
// X-API-Key or, as older clients send it, in Authorization as a bearer token.
// The error is Unauthorized if there is no key or nobody has it.
func (a *Authenticator) Authenticate(ctx context.Context, h http.Header) (cove.Key, error) {
	const op = "auth.Authenticate"
	plain := presented(h)
	if plain == "" {
		return cove.Key{}, cove.E(cove.Unauthorized, op, nil, missingKey)
	}
	if len(plain) > maxKeyLen {
		return cove.Key{}, cove.E(cove.Unauthorized, op, nil, invalidKey)
	}
	hash := HashKey(plain)
	if key, ok := a.cache.get(hash); ok {
		return key, nil
	}
	key, err := a.keys.KeyByHash(ctx, hash)
	switch {
	case cove.Is(err, cove.NotFound):
		return cove.Key{}, cove.E(cove.Unauthorized, op, err, invalidKey)
	case err != nil:
		return cove.Key{}, fmt.Errorf("find API key: %w", err)
	// A store that compares loosely, say without case, must not open a door.
	case subtle.ConstantTimeCompare([]byte(key.Hash), []byte(hash)) != 1:
		return cove.Key{}, cove.E(cove.Unauthorized, op, nil, invalidKey)
	}
	a.cache.put(hash, key)
	return key, nil
}

// presented returns the key in h as it was sent, empty if there is none.
func presented(h http.Header) string {
	if key := strings.TrimSpace(h.Get("X-API-Key")); key != "" {
		return key
	}
	scheme, key, ok := strings.Cut(h.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(key)
}
