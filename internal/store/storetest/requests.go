package storetest

import (
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/store"
)

func requests(t *testing.T, s store.Store) {
	claim := func(owner cove.TeamID, key string, id cove.SandboxID, at time.Time) (cove.KeyedRequest, bool) {
		t.Helper()
		earlier, claimed, err := s.ClaimRequest(t.Context(), cove.KeyedRequest{Team: owner, Key: key, Digest: "d", Sandbox: id, ClaimedAt: at})
		must(t, err)
		return earlier, claimed
	}
	wantClaimed := func(what string, got, want bool) {
		t.Helper()
		if got != want {
			t.Errorf("%s: claimed %v", what, got)
		}
	}
	_, claimed := claim(team, "k1", "i1", day)
	wantClaimed("the first", claimed, true)
	earlier, claimed := claim(team, "k1", "i2", day.Add(time.Hour))
	wantClaimed("the same key", claimed, false)
	same(t, "the earlier one", earlier, cove.KeyedRequest{Team: team, Key: "k1", Digest: "d", Sandbox: "i1", ClaimedAt: day})
	_, claimed = claim(rival, "k1", "i3", day.Add(time.Hour))
	wantClaimed("another team's", claimed, true)

	must(t, s.ForgetRequest(t.Context(), "i1"))
	must(t, s.ForgetRequest(t.Context(), "i1"))
	_, claimed = claim(team, "k1", "i4", day)
	wantClaimed("a forgotten one", claimed, true)

	// Only one whose sandbox was made, or is on record as more than starting,
	// is known after a crash.
	must(t, s.FinishRequest(t.Context(), "i3"))
	_, _ = claim(team, "k2", "i001", day.Add(time.Hour))
	running(t, s, sandbox(1))
	_, _ = claim(team, "k3", "i002", day.Add(time.Hour))
	must(t, s.CreateSandbox(t.Context(), sandbox(2)))
	must(t, s.ForgetUnfinished(t.Context()))
	for key, want := range map[string]bool{"k1": true, "k2": false, "k3": true} {
		_, claimed = claim(team, key, cove.SandboxID("i9"+key), day.Add(time.Hour))
		wantClaimed(key+" after a crash", claimed, want)
	}
	_, claimed = claim(rival, "k1", "i99", day)
	wantClaimed("the finished one", claimed, false)

	must(t, s.ForgetRequests(t.Context(), day.Add(2*time.Hour)))
	_, claimed = claim(rival, "k1", "i99", day)
	wantClaimed("an old one", claimed, true)
}
