// Package settings holds what the host tells the daemon about its sandbox: the
// variables of every process, the access token, the default user and directory.
//
// It is not configuration: it changes while the daemon runs. Only the packages
// of the daemon import it; it starts no goroutines.
package settings

import (
	"crypto/subtle"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Settings are the values at one moment. Nobody changes a Settings or its map
// once it is in a Store.
type Settings struct {
	Env     map[string]string // global variables, the protected ones included
	Token   string            // access token; empty: the daemon is open
	User    string            // of calls that name none
	Workdir string            // of calls that name none; empty: the user's home
}

// Authorized reports whether token opens the daemon.
func (s Settings) Authorized(token string) bool {
	return s.Token == "" || subtle.ConstantTimeCompare([]byte(token), []byte(s.Token)) == 1
}

// Change is a new state of the settings.
type Change struct {
	Env       map[string]string // replaces the variables that are not protected
	Protected map[string]string // added to, or replacing, the protected ones
	Token     string            // replaces; empty: no token from now on
	User      string            // empty: as before
	Workdir   string            // empty: as before
	At        time.Time         // when it was decided; zero: now
}

// A Store holds the settings. It is safe for concurrent use.
type Store struct {
	now atomic.Pointer[Settings]

	mu        sync.Mutex
	protected map[string]string // guarded by mu
	at        time.Time         // guarded by mu; when the newest change was decided
}

// New returns a Store with the default user root. Protected are variables that
// a Change's Env cannot replace.
func New(protected map[string]string) *Store {
	s := &Store{protected: maps.Clone(protected)}
	if s.protected == nil {
		s.protected = map[string]string{}
	}
	s.now.Store(&Settings{Env: maps.Clone(s.protected), User: "root"})
	return s
}

// Get returns the settings as they are now.
func (s *Store) Get() Settings { return *s.now.Load() }

// Apply makes c the present state and reports whether it did: a change that was
// decided before the last one arrived too late and is dropped.
func (s *Store) Apply(c Change) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.At.IsZero() {
		if c.At.Before(s.at) {
			return false
		}
		s.at = c.At
	}
	maps.Copy(s.protected, c.Protected)
	next := s.Get()
	next.Env = make(map[string]string, len(c.Env)+len(s.protected))
	maps.Copy(next.Env, c.Env)
	maps.Copy(next.Env, s.protected)
	next.Token = c.Token
	if c.User != "" {
		next.User = c.User
	}
	if c.Workdir != "" {
		next.Workdir = c.Workdir
	}
	s.now.Store(&next)
	return true
}
