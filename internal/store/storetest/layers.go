package storetest

import (
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/store"
)

// layers is what becomes of layers.
var layers = map[string]func(*testing.T, store.Store){
	"layer/kept, replaced, used": keepLayer,
	"layer/pruned by age":        pruneOldLayers,
	"layer/pruned to a size":     pruneBigLayers,
}

// layer returns a layer that was used last at the n-th second.
func layer(owner cove.TeamID, key string, n int) cove.Layer {
	return cove.Layer{Team: owner, Key: key, Root: "b1", Snapshot: cove.SnapshotID("s" + key), Bytes: 1 << 40, UsedAt: second(n)}
}

// wantLayers checks which of the team's layers there are: a, b, c or d.
func wantLayers(t *testing.T, s store.Store, what, want string) {
	t.Helper()
	var got string
	for _, key := range []string{"a", "b", "c", "d"} {
		if _, err := s.Layer(t.Context(), team, key); err == nil {
			got += key
		} else {
			wantKind(t, err, cove.NotFound)
		}
	}
	same(t, what, got, want)
}

func keepLayer(t *testing.T, s store.Store) {
	check := func(what string, want cove.Layer) {
		t.Helper()
		got, err := s.Layer(t.Context(), want.Team, want.Key)
		must(t, err)
		same(t, what, got, want)
	}
	first, foreign := layer(team, "a", 1), layer(rival, "a", 2)
	foreign.Snapshot = "s9"
	must(t, s.KeepLayer(t.Context(), first))
	check("kept", first)
	_, err := s.Layer(t.Context(), rival, "a")
	wantKind(t, err, cove.NotFound)
	must(t, s.KeepLayer(t.Context(), foreign))
	newer := cove.Layer{Team: team, Key: "a", Root: "b2", Snapshot: "s2", Bytes: 5, UsedAt: second(3)}
	must(t, s.KeepLayer(t.Context(), newer))
	check("in the place of the first", newer)
	check("another team's", foreign)
	snapshots, err := s.KeptSnapshots(t.Context())
	must(t, err)
	same(t, "kept snapshots", snapshots, []cove.SnapshotID{"s2", "s9"})
	usage, err := s.Usage(t.Context(), team)
	must(t, err)
	same(t, "usage", usage, cove.Usage{}) // they are a cache

	must(t, s.UseLayer(t.Context(), team, "a", day.Add(time.Hour)))
	must(t, s.UseLayer(t.Context(), team, "a", day.Add(time.Minute)))
	must(t, s.UseLayer(t.Context(), team, "nosuch", day.Add(time.Hour)))
	newer.UsedAt = day.Add(time.Hour)
	check("used", newer)
	check("another team's", foreign)
}

func pruneOldLayers(t *testing.T, s store.Store) {
	for i, key := range []string{"a", "b", "c"} {
		must(t, s.KeepLayer(t.Context(), layer(team, key, i)))
	}
	must(t, s.UseLayer(t.Context(), team, "a", second(5)))
	must(t, s.PruneLayers(t.Context(), second(2), 1<<60))
	wantLayers(t, s, "used since", "ac")
}

func pruneBigLayers(t *testing.T, s store.Store) {
	add := func(owner cove.TeamID, key string, snapshot cove.SnapshotID, bytes int64, used int) {
		l := layer(owner, key, used)
		l.Snapshot, l.Bytes = snapshot, bytes
		must(t, s.KeepLayer(t.Context(), l))
	}
	add(team, "a", "s1", 10, 1)
	add(team, "b", "s2", 30, 2)
	add(rival, "b", "s3", 5, 3)
	add(team, "c", "s4", 20, 4)
	add(team, "d", "s4", 20, 5)
	prune := func(bytes int64, want string) {
		t.Helper()
		must(t, s.PruneLayers(t.Context(), day, bytes))
		wantLayers(t, s, "what is left", want)
	}
	prune(65, "abcd") // a snapshot that two have counts once
	prune(64, "bcd")
	prune(30, "cd") // what was used least recently goes first, whatever its size
	_, err := s.Layer(t.Context(), rival, "b")
	must(t, err)
	prune(24, "cd")
	_, err = s.Layer(t.Context(), rival, "b")
	wantKind(t, err, cove.NotFound)
	prune(20, "cd")
	prune(19, "")
}
