package orchestrator

import (
	"context"
	"sync"
)

// An audience is told things of one kind.
type audience[T any] struct {
	mu  sync.Mutex
	all map[*hearer[T]]struct{} // guarded by mu; nil: nobody yet
}

type hearer[T any] struct {
	mu   sync.Mutex // one call at a time
	tell func(T)
}

// join calls tell for everything that is told from now on until ctx is done.
func (a *audience[T]) join(ctx context.Context, tell func(T)) {
	h := &hearer[T]{tell: tell}
	a.mu.Lock()
	if a.all == nil {
		a.all = map[*hearer[T]]struct{}{}
	}
	a.all[h] = struct{}{}
	a.mu.Unlock()
	context.AfterFunc(ctx, func() {
		a.mu.Lock()
		delete(a.all, h)
		a.mu.Unlock()
	})
}

// tell tells everybody, and returns when they know.
func (a *audience[T]) tell(what T) {
	a.mu.Lock()
	present := make([]*hearer[T], 0, len(a.all))
	for h := range a.all {
		present = append(present, h)
	}
	a.mu.Unlock()
	for _, h := range present {
		h.mu.Lock()
		h.tell(what)
		h.mu.Unlock()
	}
}
