// Package run runs the long-lived parts of a process.
//
// It owns the goroutines of the actors it is given and waits for all of them.
// It is not a supervisor: nothing is restarted. Every package of the module may
// import it; package server is its main user.
package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// An Actor works until ctx is done. Returning earlier, even nil, ends the group.
type Actor struct {
	Name string
	Run  func(ctx context.Context) error
}

var errEnded = errors.New("no reason given")

// Group starts actors in order and waits for ctx, or for one of them to return.
// Then it stops them one at a time, last started first, each only once those
// started after it have returned: an actor may rely on the earlier ones to the
// end. It returns the errors of the actors that failed or ended early.
func Group(ctx context.Context, actors ...Actor) error {
	exits := make(chan error, len(actors)) // one each, so that no actor blocks
	var stops []func()
	for _, a := range actors {
		actx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan struct{}) // closed when a has returned
		stops = append(stops, func() { cancel(); <-done })
		go func() {
			defer close(done)
			exits <- outcome(actx, a)
		}()
	}
	var errs []error
	select {
	case <-ctx.Done():
	case err := <-exits:
		errs = append(errs, err)
	}
	for _, stop := range slices.Backward(stops) {
		stop()
	}
	close(exits) // every actor has sent
	for err := range exits {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func outcome(ctx context.Context, a Actor) error {
	err := a.Run(ctx)
	switch {
	case ctx.Err() == nil && err == nil:
		return fmt.Errorf("%s ended early: %w", a.Name, errEnded)
	case ctx.Err() == nil:
		return fmt.Errorf("%s: %w", a.Name, err)
	case err != nil && !errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", a.Name, err)
	}
	return nil
}
