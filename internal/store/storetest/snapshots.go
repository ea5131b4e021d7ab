package storetest

import (
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/store"
)

// kept returns a snapshot to keep: the n-th build, under a template's alias.
func kept(alias, tag string, n int) cove.NamedSnapshot {
	number := string(rune('0' + n))
	at := day.Add(time.Duration(n) * time.Second)
	return cove.NamedSnapshot{
		Template: cove.Template{ID: cove.TemplateID("t" + number), Team: team, Alias: alias, Source: cove.FromSandbox, CreatedAt: at},
		Build: cove.Build{ID: cove.BuildID("b" + number), Status: cove.BuildReady, Envd: "1.0.0", Setup: cove.Setup{User: "user", Workdir: "/w"},
			Resources: cove.Resources{CPUs: 1, MemoryMB: 2, DiskMB: 3}, CreatedAt: at, EndedAt: at,
			Snapshot: cove.SnapshotID("s" + number), FilesOnly: n == 2, SnapshotBytes: int64(n) << 30, Origin: "i001"},
		Tag: tag, TaggedAt: at,
	}
}

func keep(t *testing.T, s store.Store, n cove.NamedSnapshot) (cove.NamedSnapshot, []cove.Build) {
	t.Helper()
	got, superseded, err := s.KeepSnapshot(t.Context(), n)
	must(t, err)
	return got, superseded
}

func keepSnapshot(t *testing.T, s store.Store) {
	first, superseded := keep(t, s, kept("snap", "default", 1))
	want := kept("snap", "default", 1)
	want.Build.Template = "t1"
	same(t, "first", first, want)
	same(t, "superseded by the first", len(superseded), 0)

	// A second of that name is another build of the same template.
	second, superseded := keep(t, s, kept("snap", "v2", 2))
	want = kept("snap", "v2", 2)
	want.Template, want.Build.Template = first.Template, "t1"
	same(t, "second", second, want)
	same(t, "superseded by another tag", len(superseded), 0)

	// One of the same tag takes the tag's place.
	third, superseded := keep(t, s, kept("snap", "default", 3))
	same(t, "superseded", superseded, []cove.Build{first.Build})
	for tag, want := range map[string]cove.Build{"default": third.Build, "v2": second.Build} {
		got, err := s.TaggedBuild(t.Context(), "t1", tag)
		must(t, err)
		same(t, "build of "+tag, got, want)
	}
	_, err := s.TaggedBuild(t.Context(), "t1", "nosuch")
	wantKind(t, err, cove.NotFound)
	_, err = s.Build(t.Context(), "b1")
	wantKind(t, err, cove.NotFound)
	snapshots, err := s.KeptSnapshots(t.Context())
	must(t, err)
	same(t, "kept", snapshots, []cove.SnapshotID{"s2", "s3"})
}

func keepSnapshotConflict(t *testing.T, s store.Store) {
	must(t, s.CreateTemplate(t.Context(), cove.Template{ID: "t9", Team: team, Alias: "mine", Source: cove.FromRecipe, CreatedAt: day}))
	_, _, err := s.KeepSnapshot(t.Context(), kept("mine", "default", 1))
	wantKind(t, err, cove.Conflict)
	_, err = s.Build(t.Context(), "b1")
	wantKind(t, err, cove.NotFound)
}

func listSnapshots(t *testing.T, s store.Store) {
	foreign := kept("snap", "default", 4)
	foreign.Template.Team = rival
	other := kept("other", "default", 3)
	other.Build.Origin = "i002"
	var all []cove.NamedSnapshot // newest first
	for _, n := range []cove.NamedSnapshot{kept("snap", "default", 1), kept("snap", "v2", 2), other} {
		got, _ := keep(t, s, n)
		all = append([]cove.NamedSnapshot{got}, all...)
	}
	keep(t, s, foreign)
	for name, c := range map[string]struct {
		filter cove.SnapshotFilter
		want   []cove.NamedSnapshot
	}{
		"all":          {cove.SnapshotFilter{}, all},
		"by origin":    {cove.SnapshotFilter{Origin: "i002"}, all[:1]},
		"by name":      {cove.SnapshotFilter{Name: "snap"}, all[1:]},
		"by template":  {cove.SnapshotFilter{Name: "t3"}, all[:1]},
		"by tag":       {cove.SnapshotFilter{Name: "snap", Tag: "v2"}, all[1:2]},
		"unknown name": {cove.SnapshotFilter{Name: "nosuch"}, nil},
	} {
		c.filter.Limit = 10
		page, err := s.ListSnapshots(t.Context(), team, c.filter)
		must(t, err)
		same(t, name, page, cove.SnapshotPage{Snapshots: c.want})
	}
	var paged []cove.NamedSnapshot
	f := cove.SnapshotFilter{Limit: 1}
	for range all {
		page, err := s.ListSnapshots(t.Context(), team, f)
		must(t, err)
		paged = append(paged, page.Snapshots...)
		f.After = page.Next
	}
	same(t, "page by page", paged, all)
	same(t, "after the last page", f.After, cove.SnapshotPos{})
}

func dropSnapshot(t *testing.T, s store.Store) {
	one, _ := keep(t, s, kept("snap", "default", 1))
	two, _ := keep(t, s, kept("snap", "v2", 2))
	_, err := s.DropSnapshot(t.Context(), rival, "t1", "")
	wantKind(t, err, cove.NotFound)
	_, err = s.DropSnapshot(t.Context(), team, "t1", "nosuch")
	wantKind(t, err, cove.NotFound)

	dropped, err := s.DropSnapshot(t.Context(), team, "t1", "v2")
	must(t, err)
	same(t, "dropped", dropped, []cove.Build{two.Build})
	_, err = s.TemplateByName(t.Context(), team, "snap")
	must(t, err)

	dropped, err = s.DropSnapshot(t.Context(), team, "t1", "")
	must(t, err)
	same(t, "dropped at last", dropped, []cove.Build{one.Build})
	_, err = s.TemplateByName(t.Context(), team, "snap")
	wantKind(t, err, cove.NotFound)
	_, err = s.DropSnapshot(t.Context(), team, "t1", "")
	wantKind(t, err, cove.NotFound)
}

func teamUsage(t *testing.T, s store.Store) {
	keep(t, s, kept("snap", "default", 1))
	running(t, s, sandbox(1))
	must(t, s.CreateSandbox(t.Context(), sandbox(2)))
	sb := running(t, s, sandbox(3))
	_, err := s.Transition(t.Context(), sb.ID, sb.Execution, store.Change{To: cove.Pausing})
	must(t, err)
	_, err = s.Transition(t.Context(), sb.ID, sb.Execution, store.Change{To: cove.Paused, Snapshot: &store.SnapshotChange{ID: "s9", Bytes: 5}})
	must(t, err)
	got, err := s.Usage(t.Context(), team)
	must(t, err)
	same(t, "usage", got, cove.Usage{Sandboxes: 2, SnapshotBytes: 1<<30 + 5})
	got, err = s.Usage(t.Context(), rival)
	must(t, err)
	same(t, "usage of one that has nothing", got, cove.Usage{})
}
