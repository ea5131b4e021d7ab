// Package undo rolls back work that was begun and not finished, and tears down
// work that was.
//
// It is not a transaction: a step that fails is reported and the others still
// run. Every package of the module may import it; it starts no goroutines.
package undo

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// A Stack holds the steps that take back what has been done so far. The zero
// Stack is ready to use. It is not safe for concurrent use.
type Stack struct{ steps []step }

type step struct {
	name string
	do   func(context.Context) error
}

// Add puts a step on top. The name labels its error.
func (s *Stack) Add(name string, do func(context.Context) error) {
	s.steps = append(s.steps, step{name, do})
}

// Unwind runs the steps, newest first, even if ctx is done, and empties s. It
// returns the errors of all steps that failed.
func (s *Stack) Unwind(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, step := range slices.Backward(s.steps) {
		if err := step.do(ctx); err != nil {
			errs = append(errs, fmt.Errorf("undo %s: %w", step.name, err))
		}
	}
	s.steps = nil
	return errors.Join(errs...)
}

// Keep moves the steps to a new Stack, which the caller now owns, and empties s.
func (s *Stack) Keep() *Stack {
	kept := &Stack{steps: s.steps}
	s.steps = nil
	return kept
}
