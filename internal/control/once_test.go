package control_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
)

func keyed(key string) cove.NewSandbox {
	req := request()
	req.Key = key
	return req
}

func TestRepeatedRequestMakesOneSandbox(t *testing.T) {
	b := fresh(t)
	var crowd sync.WaitGroup
	var mu sync.Mutex
	ids := map[cove.SandboxID]bool{}
	for range 10 {
		crowd.Go(func() {
			sb, err := b.CreateSandbox(t.Context(), team, keyed("k1"))
			if err != nil || sb.State != cove.Running {
				t.Errorf("%+v, %v", sb, err)
			}
			mu.Lock()
			ids[sb.ID] = true
			mu.Unlock()
		})
	}
	crowd.Wait()
	if len(ids) != 1 || len(recorded(t, b)) != 1 {
		t.Errorf("sandboxes %v, %d records", ids, len(recorded(t, b)))
	}
	for name, other := range map[string]cove.SandboxID{
		"another key":  mustCreate(t, b, team, keyed("k2")),
		"another team": mustCreate(t, b, rival, keyed("k1")),
	} {
		if ids[other] {
			t.Errorf("%s made the same sandbox", name)
		}
	}
	different := keyed("k1")
	different.Timeout = time.Hour
	_, err := b.CreateSandbox(t.Context(), team, different)
	wantKind(t, "another request with that key", err, cove.Conflict)
}

func mustCreate(t *testing.T, b *bench, team cove.TeamID, req cove.NewSandbox) cove.SandboxID {
	t.Helper()
	sb, err := b.CreateSandbox(t.Context(), team, req)
	if err != nil {
		t.Fatal(err)
	}
	return sb.ID
}

func TestFailedRequestMayBeRepeated(t *testing.T) {
	b := fresh(t)
	cause := errors.New("broken on purpose")
	b.node.Fail = func(cove.Spec) error { return cause }
	if _, err := b.CreateSandbox(t.Context(), team, keyed("k1")); !errors.Is(err, cause) {
		t.Errorf("err = %v", err)
	}
	b.node.Fail = nil
	id := mustCreate(t, b, team, keyed("k1"))
	if err := b.KillSandbox(t.Context(), team, id); err != nil {
		t.Fatal(err)
	}
	_, err := b.CreateSandbox(t.Context(), team, keyed("k1"))
	wantKind(t, "after its sandbox ended", err, cove.Conflict)
}

func TestRepeatedRequestAfterARestart(t *testing.T) {
	b := fresh(t)
	made := mustCreate(t, b, team, keyed("k1"))
	b.stop()
	// As if killed just after the claim, and just after the record.
	for i, name := range []string{"k2", "k3"} {
		req := cove.KeyedRequest{Team: team, Key: name, Digest: "d", Sandbox: cove.SandboxID("i" + name), ClaimedAt: time.Now()}
		if _, _, err := b.store.ClaimRequest(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			sb := cove.Sandbox{ID: req.Sandbox, Execution: "x1", Team: team, Node: cove.LocalNode, State: cove.Starting, StartedAt: time.Now(), EndAt: time.Now()}
			if err := b.store.CreateSandbox(context.Background(), sb); err != nil {
				t.Fatal(err)
			}
		}
	}
	again := open(t, b.store, b.node, b.base, nil)
	if got := mustCreate(t, again, team, keyed("k1")); got != made {
		t.Errorf("the finished one made another sandbox")
	}
	mustCreate(t, again, team, keyed("k2"))
	mustCreate(t, again, team, keyed("k3"))
}
