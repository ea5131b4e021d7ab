package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/auth"
)

// fakeKeys is a store of keys that counts how often it is asked.
type fakeKeys struct {
	byHash map[string]cove.Key
	err    error
	asked  int
}

func (f *fakeKeys) KeyByHash(_ context.Context, hash string) (cove.Key, error) {
	f.asked++
	if f.err != nil {
		return cove.Key{}, f.err
	}
	key, ok := f.byHash[hash]
	if !ok {
		return cove.Key{}, cove.E(cove.NotFound, "fake", nil, "no such key")
	}
	return key, nil
}

func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

func TestAuthenticate(t *testing.T) {
	plain, record := auth.NewKey("team1", "first", time.Now())
	other, _ := auth.NewKey("team1", "unknown", time.Now())
	keys := &fakeKeys{byHash: map[string]cove.Key{record.Hash: record}}
	a := auth.New(auth.Config{Keys: keys})
	tests := []struct {
		name    string
		headers http.Header
		want    string // part of the message; empty: accepted
	}{
		{"key", headers("X-API-Key", plain), ""},
		{"any case of the header", headers("x-api-KEY", plain), ""},
		{"spaces around", headers("X-API-Key", " "+plain+" "), ""},
		{"bearer", headers("Authorization", "Bearer "+plain), ""},
		{"bearer in lower case", headers("Authorization", "bearer  "+plain), ""},
		{"key goes before bearer", headers("X-API-Key", plain, "Authorization", "Bearer nonsense"), ""},
		{"nothing", headers(), "API key is missing"},
		{"empty", headers("X-API-Key", ""), "API key is missing"},
		{"basic", headers("Authorization", "Basic "+plain), "API key is missing"},
		{"unknown", headers("X-API-Key", other), "Invalid API key"},
		{"a bad key is not saved by a good bearer", headers("X-API-Key", other, "Authorization", "Bearer "+plain), "Invalid API key"},
		{"upper case", headers("X-API-Key", strings.ToUpper(plain)), "Invalid API key"},
		{"the hash is not the key", headers("X-API-Key", record.Hash), "Invalid API key"},
		{"endless", headers("X-API-Key", strings.Repeat("a", 10_000)), "Invalid API key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := a.Authenticate(t.Context(), tt.headers)
			if tt.want == "" {
				if err != nil || got.Team != "team1" {
					t.Errorf("Authenticate = team %q, %v", got.Team, err)
				}
				return
			}
			if kind, msg := cove.Describe(err); kind != cove.Unauthorized || !strings.Contains(msg, tt.want) {
				t.Errorf("Describe(err) = %v, %q, want unauthorized, %q", kind, msg, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), plain) {
				t.Errorf("the error holds the key: %v", err)
			}
		})
	}
}

func TestAuthenticateWhenTheStoreFails(t *testing.T) {
	broken := errors.New("disk on fire")
	a := auth.New(auth.Config{Keys: &fakeKeys{err: broken}})
	_, err := a.Authenticate(t.Context(), headers("X-API-Key", "k"))
	if !errors.Is(err, broken) || cove.Is(err, cove.Unauthorized) {
		t.Errorf("err = %v, want the store's, and not Unauthorized", err)
	}
}

func TestAuthenticateDistrustsAStoreThatComparesLoosely(t *testing.T) {
	plain, record := auth.NewKey("team1", "", time.Now())
	hash := record.Hash
	record.Hash = strings.ToLower(record.Hash)
	a := auth.New(auth.Config{Keys: &fakeKeys{byHash: map[string]cove.Key{hash: record}}})
	if _, err := a.Authenticate(t.Context(), headers("X-API-Key", plain)); !cove.Is(err, cove.Unauthorized) {
		t.Errorf("err = %v, want Unauthorized", err)
	}
}

func TestCacheBelievesAKeyForAWhile(t *testing.T) {
	plain, record := auth.NewKey("team1", "", time.Now())
	keys := &fakeKeys{byHash: map[string]cove.Key{record.Hash: record}}
	now := time.Unix(1000, 0)
	a := auth.New(auth.Config{Keys: keys, CacheFor: time.Second, Now: func() time.Time { return now }})
	authenticate := func() error {
		_, err := a.Authenticate(t.Context(), headers("X-API-Key", plain))
		return err
	}
	for range 3 {
		if err := authenticate(); err != nil {
			t.Fatal(err)
		}
	}
	if keys.asked != 1 {
		t.Errorf("asked %d times, want 1", keys.asked)
	}
	delete(keys.byHash, record.Hash)
	now = now.Add(time.Second - 1)
	if err := authenticate(); err != nil {
		t.Errorf("just before the end: %v", err)
	}
	now = now.Add(1)
	if err := authenticate(); !cove.Is(err, cove.Unauthorized) {
		t.Errorf("at the end: %v, want Unauthorized", err)
	}
	keys.byHash[record.Hash] = record
	if err := authenticate(); err != nil {
		t.Errorf("failures must not be remembered: %v", err)
	}
}

func TestCacheIsBounded(t *testing.T) {
	keys := &fakeKeys{byHash: map[string]cove.Key{}}
	a := auth.New(auth.Config{Keys: keys, CacheFor: time.Hour})
	const n = 1500
	for round := range 2 {
		for i := range n {
			plain := fmt.Sprintf("key %d", i)
			record := auth.RecordOf(plain, "team1", "", time.Now())
			keys.byHash[record.Hash] = record
			if _, err := a.Authenticate(t.Context(), headers("X-API-Key", plain)); err != nil {
				t.Fatalf("round %d, key %d: %v", round, i, err)
			}
		}
	}
	// 1,024 of them at most can be known in the second round.
	if least := 2*n - 1024; keys.asked < least {
		t.Errorf("asked %d times, want at least %d", keys.asked, least)
	}
}

func TestCacheCanBeOff(t *testing.T) {
	plain, record := auth.NewKey("team1", "", time.Now())
	keys := &fakeKeys{byHash: map[string]cove.Key{record.Hash: record}}
	a := auth.New(auth.Config{Keys: keys, CacheFor: -1})
	for range 2 {
		if _, err := a.Authenticate(t.Context(), headers("X-API-Key", plain)); err != nil {
			t.Fatal(err)
		}
	}
	if keys.asked != 2 {
		t.Errorf("asked %d times, want 2", keys.asked)
	}
}
