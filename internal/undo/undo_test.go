package undo_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cove-sandbox/cove/internal/undo"
)

func TestUnwindRunsNewestFirstThroughErrorsAndCancellation(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var order []string
	var s undo.Stack
	s.Add("first", func(ctx context.Context) error {
		order = append(order, "first")
		return ctx.Err()
	})
	s.Add("second", func(context.Context) error {
		order = append(order, "second")
		return errors.New("stuck")
	})
	err := s.Unwind(ctx)
	if want := []string{"second", "first"}; !slices.Equal(order, want) {
		t.Errorf("order = %v, want %v", order, want)
	}
	if err == nil || !strings.Contains(err.Error(), "undo second: stuck") || strings.Contains(err.Error(), "first") {
		t.Errorf("err = %v, want only the second step's", err)
	}
	if err := s.Unwind(ctx); err != nil || len(order) != 2 {
		t.Errorf("a second Unwind ran steps again: %v %v", order, err)
	}
}

func TestKeepMovesTheSteps(t *testing.T) {
	ran := 0
	var s undo.Stack
	s.Add("step", func(context.Context) error { ran++; return nil })
	kept := s.Keep()
	if err := s.Unwind(t.Context()); err != nil || ran != 0 {
		t.Fatalf("the emptied stack ran %d steps: %v", ran, err)
	}
	if err := kept.Unwind(t.Context()); err != nil || ran != 1 {
		t.Fatalf("the kept stack ran %d steps: %v", ran, err)
	}
}
