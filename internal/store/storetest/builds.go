package storetest

import (
	"slices"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/store"
)

// builds is what becomes of builds and their logs.
var builds = map[string]func(*testing.T, store.Store){
	"build/latest of a status":               latestBuild,
	"build/an ended one stays as it is":      endedBuild,
	"build/round trip":                       buildRoundTrip,
	"build/requested, begun, ready":          requestBuild,
	"build/name of a snapshot conflicts":     requestBuildConflict,
	"build/tags when it is ready":            buildTags,
	"build/list pages, newest first":         listBuilds,
	"build/found by its key":                 buildByKey,
	"build/root file systems that must stay": currentBuilds,
	"build/old ones go, but not all":         pruneBuilds,
	"build/several share a snapshot":         sharedSnapshot,
	"build/log keeps the first lines":        buildLines,
	"build/log filters":                      buildLineFilters,
}

func build(id cove.BuildID, status cove.BuildStatus, n int) cove.Build {
	return cove.Build{ID: id, Template: "t1", Status: status, Reason: "why", Envd: "1.0.0", Setup: cove.Setup{User: "user", Workdir: "/w"},
		Resources: cove.Resources{CPUs: 1, MemoryMB: 2, DiskMB: 3}, CreatedAt: day.Add(time.Duration(n) * time.Second)}
}

func latestBuild(t *testing.T, s store.Store) {
	must(t, s.CreateTemplate(t.Context(), cove.Template{ID: "t1", Alias: "a", CreatedAt: day}))
	for i, b := range []cove.Build{build("b1", cove.BuildReady, 0), build("b2", cove.BuildReady, 1), build("b3", cove.BuildRunning, 2)} {
		must(t, s.CreateBuild(t.Context(), b))
		got, err := s.LatestBuild(t.Context(), "t1", cove.BuildReady)
		must(t, err)
		same(t, "latest ready", got, build(cove.BuildID([]string{"b1", "b2", "b2"}[i]), cove.BuildReady, []int{0, 1, 1}[i]))
	}
	got, err := s.LatestBuild(t.Context(), "t1", cove.BuildReady, cove.BuildRunning)
	must(t, err)
	same(t, "latest of two statuses", got, build("b3", cove.BuildRunning, 2))
	_, err = s.LatestBuild(t.Context(), "t1", cove.BuildError)
	wantKind(t, err, cove.NotFound)
	wantKind(t, s.CreateBuild(t.Context(), cove.Build{ID: "b9", Template: "nosuch"}), cove.NotFound)
	open, err := s.UnfinishedBuilds(t.Context())
	must(t, err)
	same(t, "unfinished", open, []cove.Build{build("b3", cove.BuildRunning, 2)})
	current, err := s.CurrentBuilds(t.Context())
	must(t, err)
	same(t, "current", current, []cove.BuildID{"b2", "b3"})
}

func endedBuild(t *testing.T, s store.Store) {
	must(t, s.CreateTemplate(t.Context(), cove.Template{ID: "t1", Alias: "a", CreatedAt: day}))
	b := build("b1", cove.BuildRunning, 0)
	must(t, s.CreateBuild(t.Context(), b))
	b.Status, b.EndedAt, b.Resources.CPUs = cove.BuildReady, day.Add(time.Minute), 4
	must(t, s.UpdateBuild(t.Context(), b))
	got, err := s.LatestBuild(t.Context(), "t1", cove.BuildReady)
	must(t, err)
	same(t, "updated build", got, b)
	got, err = s.Build(t.Context(), "b1")
	must(t, err)
	same(t, "build by identifier", got, b)
	_, err = s.Build(t.Context(), "nosuch")
	wantKind(t, err, cove.NotFound)
	b.Status = cove.BuildError
	wantKind(t, s.UpdateBuild(t.Context(), b), cove.Conflict)
	b.ID = "nosuch"
	wantKind(t, s.UpdateBuild(t.Context(), b), cove.NotFound)
}

func buildRoundTrip(t *testing.T, s store.Store) {
	must(t, s.CreateTemplate(t.Context(), recipe("web", 1)))
	full := build("b1", cove.BuildRunning, 1)
	full.ReasonStep, full.Tags, full.Key, full.Root, full.EndedAt = cove.FinalStep, []string{"ü", "b"}, "k", "b0", second(9)
	full.Env, full.BuildEnv = map[string]string{"A": "ü\n\""}, map[string]string{"B": ""}
	full.Start, full.Ready = "run 'it'", "curl"
	full.Snapshot, full.FilesOnly, full.SnapshotBytes, full.Origin = "s1", true, 1<<40, "i001"
	must(t, s.CreateBuild(t.Context(), full))
	got, err := s.Build(t.Context(), "b1")
	must(t, err)
	same(t, "created", got, full)

	// All but what it was requested with is replaced.
	want := build("b1", cove.BuildError, 1)
	want.Tags = full.Tags
	update := want
	update.Template, update.Tags, update.CreatedAt = "t2", []string{"other"}, second(50)
	must(t, s.UpdateBuild(t.Context(), update))
	got, err = s.Build(t.Context(), "b1")
	must(t, err)
	same(t, "updated with little", got, want)

	must(t, s.CreateBuild(t.Context(), build("b2", cove.BuildRunning, 2)))
	full.ID, full.CreatedAt, full.Tags, full.Status = "b2", second(2), nil, cove.BuildReady
	must(t, s.UpdateBuild(t.Context(), full))
	got, err = s.Build(t.Context(), "b2")
	must(t, err)
	same(t, "updated with all", got, full)
}

func requestBuild(t *testing.T, s store.Store) {
	tpl := recipe("web", 1)
	first := build("b1", cove.BuildReady, 1) // whatever it says: it waits
	first.Template = "whatever"
	got, err := s.RequestBuild(t.Context(), tpl, first)
	must(t, err)
	same(t, "the template, which is new", got, tpl)
	again := recipe("web", 2)
	again.Public = true
	got, err = s.RequestBuild(t.Context(), again, build("b2", cove.BuildWaiting, 2))
	must(t, err)
	same(t, "the template, which was there", got, tpl)
	foreign := recipe("web", 3)
	foreign.Team = rival
	got, err = s.RequestBuild(t.Context(), foreign, build("b3", cove.BuildWaiting, 3))
	must(t, err)
	same(t, "another team's", got, foreign)
	for i, want := range []cove.TemplateID{"t1", "t1", "t3"} {
		b, err := s.Build(t.Context(), cove.BuildID("b"+string(rune('1'+i))))
		must(t, err)
		if b.Template != want || b.Status != cove.BuildWaiting {
			t.Errorf("%s is %s of %s, want %s", b.ID, b.Status, b.Template, want)
		}
	}
	_, err = s.RequestBuild(t.Context(), recipe("api", 4), build("b1", cove.BuildWaiting, 4))
	wantKind(t, err, cove.Conflict)
	_, err = s.TemplateInfo(t.Context(), "t4")
	wantKind(t, err, cove.NotFound)

	wantKind(t, s.BeginBuild(t.Context(), "nosuch"), cove.NotFound)
	must(t, s.BeginBuild(t.Context(), "b1"))
	wantKind(t, s.BeginBuild(t.Context(), "b1"), cove.Conflict)
	b, err := s.LatestBuild(t.Context(), "t1", cove.BuildRunning)
	must(t, err)
	same(t, "begun", b, build("b1", cove.BuildRunning, 1))
	must(t, s.UpdateBuild(t.Context(), build("b1", cove.BuildReady, 1)))
	wantKind(t, s.BeginBuild(t.Context(), "b1"), cove.Conflict)
}

func requestBuildConflict(t *testing.T, s store.Store) {
	keep(t, s, kept("snap", "default", 1))
	_, err := s.RequestBuild(t.Context(), recipe("snap", 2), build("b2", cove.BuildWaiting, 2))
	wantKind(t, err, cove.Conflict)
	_, msg := cove.Describe(err)
	same(t, "message", msg, "Alias 'snap' is already used by a snapshot")
	_, err = s.Build(t.Context(), "b2")
	wantKind(t, err, cove.NotFound)
}

func buildTags(t *testing.T, s store.Store) {
	end := func(id cove.BuildID, status cove.BuildStatus, at int) {
		t.Helper()
		b, err := s.Build(t.Context(), id)
		must(t, err)
		b.Status, b.EndedAt = status, second(at)
		must(t, s.UpdateBuild(t.Context(), b))
	}
	for i := range 4 {
		b := build(cove.BuildID("b"+string(rune('0'+i))), cove.BuildWaiting, i)
		b.Tags = []string{"default", "v" + string(rune('0'+i))}
		_, err := s.RequestBuild(t.Context(), recipe("web", 1), b)
		must(t, err)
	}
	wantTags(t, s, "requested", "t1", "")
	end("b1", cove.BuildReady, 10)
	wantTags(t, s, "ready", "t1", "default=b1@10 v1=b1@10 ")
	end("b0", cove.BuildReady, 12) // requested before, ready after: it is given the tag later
	wantTags(t, s, "another one", "t1", "default=b0@12 v0=b0@12 v1=b1@10 ")
	end("b2", cove.BuildError, 14)
	wantTags(t, s, "failed", "t1", "default=b0@12 v0=b0@12 v1=b1@10 ")
	must(t, s.AssignTags(t.Context(), "t1", "b1", []string{"default"}, second(20)))
	end("b3", cove.BuildReady, 16)
	wantTags(t, s, "assigned meanwhile", "t1", "default=b1@20 v3=b3@16 v0=b0@12 v1=b1@10 ")
}

func listBuilds(t *testing.T, s store.Store) {
	must(t, s.CreateTemplate(t.Context(), recipe("web", 1)))
	must(t, s.CreateTemplate(t.Context(), recipe("api", 2)))
	var all []cove.Build // newest first
	for i := range 5 {
		b := build(cove.BuildID("b"+string(rune('0'+i))), cove.BuildReady, i/2) // two of one moment: the identifier decides
		must(t, s.CreateBuild(t.Context(), b))
		all = append([]cove.Build{b}, all...)
	}
	other := build("b9", cove.BuildReady, 9)
	other.Template = "t2"
	must(t, s.CreateBuild(t.Context(), other))
	var paged []cove.Build
	var after cove.BuildPos
	for {
		page, err := s.ListBuilds(t.Context(), "t1", after, 2)
		must(t, err)
		if len(page) == 0 {
			break
		}
		paged = append(paged, page...)
		last := page[len(page)-1]
		after = cove.BuildPos{CreatedAt: last.CreatedAt, ID: last.ID}
	}
	same(t, "page by page", paged, all)
}

func buildByKey(t *testing.T, s store.Store) {
	foreign := recipe("web", 3)
	foreign.Team = rival
	for _, tpl := range []cove.Template{recipe("web", 1), recipe("api", 2), foreign} {
		must(t, s.CreateTemplate(t.Context(), tpl))
	}
	add := func(id cove.BuildID, template cove.TemplateID, status cove.BuildStatus, key string, n int) cove.Build {
		b := build(id, status, n)
		b.Template, b.Key = template, key
		must(t, s.CreateBuild(t.Context(), b))
		return b
	}
	add("b1", "t1", cove.BuildReady, "k", 1)
	newest := add("b2", "t2", cove.BuildReady, "k", 5) // of whichever template
	add("b3", "t1", cove.BuildReady, "k", 3)
	add("b4", "t1", cove.BuildRunning, "k", 6)
	add("b5", "t1", cove.BuildError, "k", 7)
	theirs := add("b6", "t3", cove.BuildReady, "k", 8)
	add("b7", "t1", cove.BuildReady, "", 9)
	add("b8", "t3", cove.BuildReady, "theirs", 9)
	for owner, want := range map[cove.TeamID]cove.Build{team: newest, rival: theirs} {
		got, err := s.BuildByKey(t.Context(), owner, "k")
		must(t, err)
		same(t, "newest", got, want)
	}
	for _, key := range []string{"", "nosuch", "theirs"} {
		_, err := s.BuildByKey(t.Context(), team, key)
		wantKind(t, err, cove.NotFound)
	}
}

func currentBuilds(t *testing.T, s store.Store) {
	must(t, s.CreateTemplate(t.Context(), recipe("web", 1)))
	add := func(id cove.BuildID, status cove.BuildStatus, n int, root cove.BuildID, snapshot cove.SnapshotID, tags ...string) {
		b := build(id, status, n)
		b.Root, b.Snapshot, b.Tags, b.EndedAt = root, snapshot, tags, second(n)
		must(t, s.CreateBuild(t.Context(), b))
	}
	add("b1", cove.BuildReady, 1, "r1", "", "v1")
	add("b2", cove.BuildReady, 2, "r2", "") // superseded
	add("b3", cove.BuildReady, 3, "", "")   // the newest that starts afresh
	add("b4", cove.BuildReady, 4, "r4", "s4", "default")
	add("b5", cove.BuildError, 5, "r5", "")
	add("b6", cove.BuildRunning, 6, "r6", "")
	add("b7", cove.BuildWaiting, 7, "r6", "")
	got, err := s.CurrentBuilds(t.Context())
	must(t, err)
	same(t, "current", slices.Sorted(slices.Values(got)), []cove.BuildID{"b1", "b3", "b6", "b7", "r1", "r6"})
}

func pruneBuilds(t *testing.T, s store.Store) {
	for _, tpl := range []cove.Template{recipe("web", 1), recipe("api", 2), {ID: "t3", Alias: "base", CreatedAt: day}} {
		must(t, s.CreateTemplate(t.Context(), tpl))
	}
	add := func(id cove.BuildID, template cove.TemplateID, status cove.BuildStatus, requested, ended int, tags ...string) {
		b := build(id, status, requested)
		b.Template, b.Tags, b.EndedAt = template, tags, time.Time{}
		if ended > 0 {
			b.EndedAt = second(ended)
		}
		must(t, s.CreateBuild(t.Context(), b))
	}
	add("unfinished", "t1", cove.BuildRunning, 1, 0)
	add("waiting", "t1", cove.BuildWaiting, 1, 0)
	add("tagged", "t1", cove.BuildReady, 2, 3, "v1")
	add("used", "t1", cove.BuildReady, 3, 4)
	add("old", "t1", cove.BuildReady, 4, 5)
	add("failed", "t1", cove.BuildError, 5, 9)
	add("young", "t1", cove.BuildReady, 6, 10)
	add("newest that is ready", "t1", cove.BuildReady, 7, 8)
	add("failed again", "t1", cove.BuildError, 8, 9)
	add("newest", "t1", cove.BuildError, 9, 9)
	add("only one", "t2", cove.BuildReady, 1, 2)
	add("base, superseded", "t3", cove.BuildReady, 1, 2)
	add("base", "t3", cove.BuildReady, 2, 3)
	must(t, s.AddBuildLines(t.Context(), "old", []cove.BuildLine{{At: day, Message: "a"}}, 10))
	sb := sandbox(1)
	sb.Build = "used"
	must(t, s.CreateSandbox(t.Context(), sb))
	snapshot, _ := keep(t, s, kept("snap", "default", 4))
	keep(t, s, kept("snap", "v2", 5))

	must(t, s.PruneBuilds(t.Context(), second(10)))
	for _, id := range []cove.BuildID{"unfinished", "waiting", "tagged", "used", "young", "newest that is ready", "newest",
		"only one", "base, superseded", "base", snapshot.Build.ID} {
		if _, err := s.Build(t.Context(), id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	for _, id := range []cove.BuildID{"old", "failed", "failed again"} {
		_, err := s.Build(t.Context(), id)
		wantKind(t, err, cove.NotFound)
	}
	lines, err := s.BuildLines(t.Context(), "old", cove.BuildLineFilter{Limit: 1})
	must(t, err)
	same(t, "its log", len(lines), 0)

	must(t, s.DeleteSandbox(t.Context(), sb.ID, sb.Execution))
	must(t, s.RemoveTags(t.Context(), "t1", []string{"v1"}))
	must(t, s.PruneBuilds(t.Context(), second(10)))
	for _, id := range []cove.BuildID{"used", "tagged"} { // nothing holds them any more
		_, err := s.Build(t.Context(), id)
		wantKind(t, err, cove.NotFound)
	}
}

func sharedSnapshot(t *testing.T, s store.Store) {
	share := func(n int, tag string, snapshot cove.SnapshotID) cove.NamedSnapshot {
		k := kept("snap", tag, n)
		k.Build.Snapshot, k.Build.SnapshotBytes = snapshot, 100
		k, _ = keep(t, s, k)
		return k
	}
	drop := func(tag string) []cove.Build {
		t.Helper()
		dropped, err := s.DropSnapshot(t.Context(), team, "t1", tag)
		must(t, err)
		return dropped
	}
	share(1, "a", "s1")
	share(2, "b", "s1")
	share(3, "c", "s3")
	recipes := recipe("web", 9)
	must(t, s.CreateTemplate(t.Context(), recipes))
	heir := build("b9", cove.BuildReady, 9)
	heir.Template, heir.Snapshot, heir.SnapshotBytes = recipes.ID, "s1", 100
	must(t, s.CreateBuild(t.Context(), heir))
	must(t, s.KeepLayer(t.Context(), cove.Layer{Team: team, Key: "k", Snapshot: "s3", Bytes: 100, UsedAt: day}))
	usage, err := s.Usage(t.Context(), team)
	must(t, err)
	same(t, "usage", usage.SnapshotBytes, int64(200))

	same(t, "needed by two builds", len(drop("a")), 0)
	_, superseded := keep(t, s, kept("snap", "b", 4))
	same(t, "needed by another template's build", len(superseded), 0)
	same(t, "needed by a layer", len(drop("c")), 0)
	for _, id := range []cove.BuildID{"b1", "b2", "b3"} { // gone nevertheless
		_, err := s.Build(t.Context(), id)
		wantKind(t, err, cove.NotFound)
	}
	snapshots, err := s.KeptSnapshots(t.Context())
	must(t, err)
	same(t, "kept", snapshots, []cove.SnapshotID{"s1", "s3", "s4"})
	must(t, s.DeleteTemplate(t.Context(), team, recipes.ID))
	last := share(5, "d", "s1")
	same(t, "needed by nothing", drop("d"), []cove.Build{last.Build})
}

func buildLine(second int, level cove.LogLevel, message string) cove.BuildLine {
	return cove.BuildLine{At: midnight.Add(time.Duration(second) * time.Second), Level: level, Message: message, Step: "1"}
}

func buildLines(t *testing.T, s store.Store) {
	must(t, s.CreateTemplate(t.Context(), recipe("web", 1)))
	must(t, s.CreateBuild(t.Context(), build("b1", cove.BuildRunning, 1)))
	must(t, s.CreateBuild(t.Context(), build("b2", cove.BuildRunning, 2)))
	wantKind(t, s.AddBuildLines(t.Context(), "nosuch", []cove.BuildLine{buildLine(0, cove.LogInfo, "a")}, 3), cove.NotFound)
	all := []cove.BuildLine{buildLine(2, cove.LogInfo, "first"), buildLine(1, cove.LogDebug, "ü\""),
		buildLine(3, cove.LogWarn, "last"), buildLine(4, cove.LogWarn, "no")}
	all[1].Step = cove.BaseStep
	must(t, s.AddBuildLines(t.Context(), "b1", nil, 3))
	must(t, s.AddBuildLines(t.Context(), "b1", all[:1], 3))
	must(t, s.AddBuildLines(t.Context(), "b2", all[3:], 3))
	must(t, s.AddBuildLines(t.Context(), "b1", all[1:], 3))
	must(t, s.AddBuildLines(t.Context(), "b1", all, 3))
	must(t, s.AddBuildLines(t.Context(), "b1", all, 2))
	for id, want := range map[cove.BuildID][]cove.BuildLine{"b1": all[:3], "b2": all[3:], "nosuch": nil} {
		got, err := s.BuildLines(t.Context(), id, cove.BuildLineFilter{Limit: 10})
		must(t, err)
		same(t, "as they were added", got, want)
	}
}

func buildLineFilters(t *testing.T, s store.Store) {
	must(t, s.CreateTemplate(t.Context(), recipe("web", 1)))
	must(t, s.CreateBuild(t.Context(), build("b1", cove.BuildRunning, 1)))
	must(t, s.AddBuildLines(t.Context(), "b1", []cove.BuildLine{
		buildLine(0, cove.LogInfo, "0"), buildLine(1, cove.LogDebug, "1"), buildLine(2, cove.LogError, "2"), buildLine(3, cove.LogWarn, "3"),
	}, 10))
	for name, c := range map[string]struct {
		filter cove.BuildLineFilter
		want   string
	}{
		"all":                        {cove.BuildLineFilter{Limit: 9}, "0 1 2 3 "},
		"limit":                      {cove.BuildLineFilter{Limit: 2}, "0 1 "},
		"offset":                     {cove.BuildLineFilter{Limit: 2, Offset: 1}, "1 2 "},
		"beyond the end":             {cove.BuildLineFilter{Limit: 2, Offset: 4}, ""},
		"newest":                     {cove.BuildLineFilter{Limit: 3, Newest: true}, "3 2 1 "},
		"newest, with an offset":     {cove.BuildLineFilter{Limit: 9, Newest: true, Offset: 3}, "0 "},
		"level":                      {cove.BuildLineFilter{Limit: 9, Level: cove.LogWarn}, "2 3 "},
		"offset of those of a level": {cove.BuildLineFilter{Limit: 9, Level: cove.LogInfo, Offset: 1}, "2 3 "},
	} {
		lines, err := s.BuildLines(t.Context(), "b1", c.filter)
		must(t, err)
		var got string
		for _, l := range lines {
			got += l.Message + " "
		}
		same(t, name, got, c.want)
	}
}
