package run_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cove-sandbox/cove/internal/run"
)

func TestGroupStopsInReverseOrder(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var stopped []string // written by one actor at a time
	actor := func(name string) run.Actor {
		return run.Actor{Name: name, Run: func(ctx context.Context) error {
			<-ctx.Done()
			stopped = append(stopped, name)
			return ctx.Err()
		}}
	}
	cancel()
	if err := run.Group(ctx, actor("store"), actor("node"), actor("http")); err != nil {
		t.Fatal(err)
	}
	if want := []string{"http", "node", "store"}; !slices.Equal(stopped, want) {
		t.Errorf("stopped = %v, want %v", stopped, want)
	}
}

func TestGroupEndsWhenAnActorReturns(t *testing.T) {
	cause := errors.New("port taken")
	stopped := false
	err := run.Group(t.Context(),
		run.Actor{Name: "waits", Run: func(ctx context.Context) error { <-ctx.Done(); stopped = true; return nil }},
		run.Actor{Name: "http", Run: func(context.Context) error { return cause }},
	)
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "http: ") || !stopped {
		t.Errorf("err = %v, stopped = %v", err, stopped)
	}
}
