package storetest

import (
	"fmt"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/store"
)

// templates is what becomes of templates and their tags.
var templates = map[string]func(*testing.T, store.Store){
	"template/own before the installation's":                     templateByName,
	"template/alias conflicts within a team":                     templateConflict,
	"template/public one by namespace":                           publicTemplate,
	"template/list pages, newest first":                          listTemplates,
	"template/shows its newest build that is ready":              templateBuild,
	"template/counts builds and sandboxes":                       templateCounts,
	"template/delete with all it has, unless a sandbox is of it": deleteTemplate,
	"tag/latest assignment wins":                                 assignTags,
	"tag/several go or none":                                     removeTags,
	"tag/last one of a sandbox's build":                          lastTag,
}

func templateByName(t *testing.T, s store.Store) {
	global := cove.Template{ID: "tglobal", Alias: "base", Public: true, CreatedAt: day}
	mine := cove.Template{ID: "tmine", Team: team, Alias: "base", CreatedAt: day}
	foreign := cove.Template{ID: "tforeign", Team: rival, Alias: "secret", CreatedAt: day}
	shared := cove.Template{ID: "tshared", Team: rival, Alias: "shared", Public: true, CreatedAt: day}
	for _, tpl := range []cove.Template{global, mine, foreign, shared} {
		must(t, s.CreateTemplate(t.Context(), tpl))
	}
	for _, c := range []struct {
		team cove.TeamID
		name string
		want cove.TemplateID // empty: not found
	}{
		{team, "base", "tmine"}, {rival, "base", "tglobal"}, {team, "tglobal", "tglobal"},
		{team, "secret", ""}, {team, "tforeign", ""}, {rival, "secret", "tforeign"},
		{team, "tshared", "tshared"}, {team, "shared", ""}, {team, "nosuch", ""},
	} {
		got, err := s.TemplateByName(t.Context(), c.team, c.name)
		if c.want == "" {
			wantKind(t, err, cove.NotFound)
		} else if err != nil || got.ID != c.want {
			t.Errorf("%s asks for %s: %v, %v; want %s", c.team, c.name, got.ID, err, c.want)
		}
	}
}

func templateConflict(t *testing.T, s store.Store) {
	must(t, s.CreateTemplate(t.Context(), cove.Template{ID: "t1", Team: team, Alias: "a", CreatedAt: day}))
	wantKind(t, s.CreateTemplate(t.Context(), cove.Template{ID: "t2", Team: team, Alias: "a", CreatedAt: day}), cove.Conflict)
	must(t, s.CreateTemplate(t.Context(), cove.Template{ID: "t3", Team: rival, Alias: "a", CreatedAt: day}))
}

// recipe returns the n-th template, which is made by builds.
func recipe(alias string, n int) cove.Template {
	number := string(rune('0' + n))
	return cove.Template{ID: cove.TemplateID("t" + number), Team: team, Alias: alias, Source: cove.FromRecipe, CreatedAt: second(n)}
}

func second(n int) time.Time { return day.Add(time.Duration(n) * time.Second) }

func info(t *testing.T, s store.Store, id cove.TemplateID) cove.TemplateInfo {
	t.Helper()
	got, err := s.TemplateInfo(t.Context(), id)
	must(t, err)
	return got
}

func publicTemplate(t *testing.T, s store.Store) {
	for id, name := range map[cove.TeamID]string{team: "Acme Corp.", rival: "acme-corp-", "team-3": "Other"} {
		at := day
		if id == rival {
			at = day.Add(-time.Hour)
		}
		must(t, s.CreateTeam(t.Context(), cove.Team{ID: id, Name: name, CreatedAt: at}))
	}
	add := func(n int, owner cove.TeamID, alias string) cove.Template {
		tpl := recipe(alias, n)
		tpl.Team = owner
		must(t, s.CreateTemplate(t.Context(), tpl))
		return tpl
	}
	mine, other := add(1, team, "web"), add(2, "team-3", "web")
	add(3, "", "base")
	older := add(4, rival, "web")
	ask := func(namespace, alias string, want cove.TemplateID) { // empty: not found
		t.Helper()
		got, err := s.PublicTemplate(t.Context(), namespace, alias)
		if want == "" {
			wantKind(t, err, cove.NotFound)
		} else if err != nil || got.ID != want || !got.Public {
			t.Errorf("%s/%s: %+v, %v; want %s", namespace, alias, got, err, want)
		}
	}
	ask("acme-corp-", "web", "")
	wantKind(t, s.SetPublic(t.Context(), rival, mine.ID, true), cove.NotFound)
	wantKind(t, s.SetPublic(t.Context(), team, "nosuch", true), cove.NotFound)
	must(t, s.SetPublic(t.Context(), team, mine.ID, true))
	must(t, s.SetPublic(t.Context(), "team-3", other.ID, true))
	ask("acme-corp-", "web", mine.ID)
	ask("other", "web", other.ID)
	ask("other", "api", "")
	ask("nobody", "web", "")
	ask("team", "base", "") // the installation has no namespace
	must(t, s.SetPublic(t.Context(), rival, older.ID, true))
	ask("acme-corp-", "web", older.ID)
	must(t, s.SetPublic(t.Context(), rival, older.ID, false))
	ask("acme-corp-", "web", mine.ID)
}

func listTemplates(t *testing.T, s store.Store) {
	for n := range 4 {
		tpl := recipe(string(rune('a'+n)), n)
		if n == 2 { // two of one moment: the identifier decides
			tpl.CreatedAt = second(1)
		}
		must(t, s.CreateTemplate(t.Context(), tpl))
	}
	foreign := recipe("a", 5)
	foreign.Team = rival
	must(t, s.CreateTemplate(t.Context(), foreign))
	must(t, s.CreateTemplate(t.Context(), cove.Template{ID: "t6", Alias: "base", CreatedAt: day}))
	keep(t, s, kept("snap", "default", 7))
	b := build("b1", cove.BuildReady, 9)
	b.Template = "t2"
	must(t, s.CreateBuild(t.Context(), b))

	all, err := s.ListTemplates(t.Context(), team, cove.TemplatePos{}, 10)
	must(t, err)
	var ids string
	for _, tpl := range all {
		ids += string(tpl.ID) + " "
		same(t, "as by itself", tpl, info(t, s, tpl.ID))
	}
	same(t, "all", ids, "t3 t2 t1 t0 ")
	same(t, "the build of one", all[1].Build, b)
	var paged []cove.TemplateInfo
	var after cove.TemplatePos
	for {
		page, err := s.ListTemplates(t.Context(), team, after, 3)
		must(t, err)
		if len(page) == 0 {
			break
		}
		paged = append(paged, page...)
		last := page[len(page)-1]
		after = cove.TemplatePos{CreatedAt: last.CreatedAt, ID: last.ID}
	}
	same(t, "page by page", paged, all)
	none, err := s.ListTemplates(t.Context(), "team-3", cove.TemplatePos{}, 10)
	must(t, err)
	same(t, "of one that has none", len(none), 0)
}

func templateBuild(t *testing.T, s store.Store) {
	_, err := s.TemplateInfo(t.Context(), "t1")
	wantKind(t, err, cove.NotFound)
	tpl := recipe("web", 1)
	must(t, s.CreateTemplate(t.Context(), tpl))
	same(t, "without a build", info(t, s, "t1"), cove.TemplateInfo{Template: tpl, UpdatedAt: tpl.CreatedAt})
	for i, want := range []cove.BuildID{"b0", "b1", "b2", "b2", "b4", "b4"} {
		status := []cove.BuildStatus{cove.BuildError, cove.BuildRunning, cove.BuildReady, cove.BuildError, cove.BuildReady, cove.BuildWaiting}[i]
		must(t, s.CreateBuild(t.Context(), build(cove.BuildID("b"+string(rune('0'+i))), status, i)))
		same(t, "with one more", info(t, s, "t1").Build.ID, want)
	}
}

func templateCounts(t *testing.T, s store.Store) {
	tpl := recipe("web", 1)
	want := cove.TemplateInfo{Template: tpl, Builds: 1, UpdatedAt: second(2)}
	_, err := s.RequestBuild(t.Context(), tpl, build("b1", cove.BuildWaiting, 2))
	must(t, err)
	check := func(what string) {
		t.Helper()
		got := info(t, s, "t1")
		got.Build = cove.Build{}
		same(t, what, got, want)
	}
	check("requested")
	must(t, s.BeginBuild(t.Context(), "b1"))
	check("begun")
	b := build("b1", cove.BuildError, 2)
	b.EndedAt = second(20)
	must(t, s.UpdateBuild(t.Context(), b))
	want.UpdatedAt = second(20)
	check("ended")
	must(t, s.CreateBuild(t.Context(), build("b2", cove.BuildRunning, 10)))
	want.Builds = 2
	check("another one, which was requested before that")

	of := func(n int) cove.Sandbox {
		sb := sandbox(n)
		sb.Template, sb.Build = "t1", "b9"
		return sb
	}
	for n := 3; n > 0; n-- { // the one that started last is recorded first
		running(t, s, of(n))
	}
	want.Spawned, want.SpawnedAt = 3, sandbox(3).StartedAt
	check("sandboxes")
	change := func(to cove.State) {
		t.Helper()
		_, err := s.Transition(t.Context(), "i001", "x1", store.Change{To: to, StartedAt: second(100)})
		must(t, err)
	}
	change(cove.Pausing)
	change(cove.Paused)
	change(cove.Resuming)
	change(cove.Running)
	check("one was resumed")
	wantKind(t, s.CreateSandbox(t.Context(), of(1)), cove.Conflict)
	check("one was not recorded")
	must(t, s.DeleteSandbox(t.Context(), "i001", "x1"))
	check("one ended")

	ready := build("b3", cove.BuildReady, 30)
	ready.EndedAt = second(31)
	must(t, s.CreateBuild(t.Context(), ready))
	must(t, s.PruneBuilds(t.Context(), second(1000)))
	_, err = s.Build(t.Context(), "b1")
	wantKind(t, err, cove.NotFound)
	want.Builds, want.UpdatedAt = 3, second(31)
	check("one was pruned")
}

func deleteTemplate(t *testing.T, s store.Store) {
	must(t, s.CreateTemplate(t.Context(), recipe("web", 1)))
	must(t, s.CreateTemplate(t.Context(), recipe("api", 2)))
	b := build("b1", cove.BuildReady, 1)
	b.Tags = []string{"v1"}
	must(t, s.CreateBuild(t.Context(), b))
	must(t, s.CreateBuild(t.Context(), build("b2", cove.BuildRunning, 2)))
	must(t, s.AddBuildLines(t.Context(), "b1", []cove.BuildLine{{At: day, Message: "a"}}, 10))
	other := build("b3", cove.BuildReady, 3)
	other.Template, other.Tags = "t2", []string{"v1"}
	must(t, s.CreateBuild(t.Context(), other))
	snapshot, _ := keep(t, s, kept("snap", "default", 4))

	wantKind(t, s.DeleteTemplate(t.Context(), rival, "t1"), cove.NotFound)
	wantKind(t, s.DeleteTemplate(t.Context(), team, "nosuch"), cove.NotFound)
	wantKind(t, s.DeleteTemplate(t.Context(), team, snapshot.Template.ID), cove.NotFound)
	sb := sandbox(1)
	sb.Template, sb.Team = "t1", rival
	running(t, s, sb)
	wantKind(t, s.DeleteTemplate(t.Context(), team, "t1"), cove.Conflict)
	_, err := s.TaggedBuild(t.Context(), "t1", "v1")
	must(t, err)
	must(t, s.DeleteSandbox(t.Context(), sb.ID, sb.Execution))

	must(t, s.DeleteTemplate(t.Context(), team, "t1"))
	wantKind(t, s.DeleteTemplate(t.Context(), team, "t1"), cove.NotFound)
	for _, id := range []cove.BuildID{"b1", "b2"} {
		_, err := s.Build(t.Context(), id)
		wantKind(t, err, cove.NotFound)
	}
	tags, err := s.Tags(t.Context(), "t1")
	must(t, err)
	lines, err := s.BuildLines(t.Context(), "b1", cove.BuildLineFilter{Limit: 10})
	must(t, err)
	same(t, "tags and lines that are left", len(tags)+len(lines), 0)
	wantKind(t, s.UpdateBuild(t.Context(), build("b2", cove.BuildReady, 2)), cove.NotFound)
	got, err := s.TaggedBuild(t.Context(), "t2", "v1")
	must(t, err)
	same(t, "another template's", got, other)
	must(t, s.CreateTemplate(t.Context(), recipe("web", 5))) // the name is free
}

// wantTags checks a template's tags, in their order: "tag=build@second ".
func wantTags(t *testing.T, s store.Store, what string, id cove.TemplateID, want string) {
	t.Helper()
	tags, err := s.Tags(t.Context(), id)
	must(t, err)
	var got string
	for _, tag := range tags {
		got += fmt.Sprintf("%s=%s@%v ", tag.Tag, tag.Build, tag.CreatedAt.Sub(day).Seconds())
		b, err := s.TaggedBuild(t.Context(), id, tag.Tag)
		must(t, err)
		same(t, "build of "+tag.Tag, b.ID, tag.Build)
	}
	same(t, what, got, want)
}

func assignTags(t *testing.T, s store.Store) {
	must(t, s.CreateTemplate(t.Context(), recipe("web", 1)))
	must(t, s.CreateTemplate(t.Context(), recipe("api", 2)))
	b := build("b1", cove.BuildReady, 1)
	b.Tags, b.EndedAt = []string{"v1", "default"}, second(5)
	must(t, s.CreateBuild(t.Context(), b))
	wantTags(t, s, "created ready", "t1", "default=b1@5 v1=b1@5 ")
	must(t, s.CreateBuild(t.Context(), build("b2", cove.BuildReady, 2)))
	must(t, s.CreateBuild(t.Context(), build("b3", cove.BuildRunning, 3)))
	foreign := build("b4", cove.BuildReady, 4)
	foreign.Template = "t2"
	must(t, s.CreateBuild(t.Context(), foreign))
	assign := func(id cove.BuildID, at int, tags ...string) error {
		return s.AssignTags(t.Context(), "t1", id, tags, second(at))
	}
	wantKind(t, assign("nosuch", 6, "default"), cove.NotFound)
	wantKind(t, assign("b4", 6, "default"), cove.NotFound)
	wantKind(t, assign("b3", 6, "default"), cove.Conflict)
	wantTags(t, s, "after what failed", "t1", "default=b1@5 v1=b1@5 ")

	must(t, assign("b2", 7, "default", "v2"))
	wantTags(t, s, "moved", "t1", "default=b2@7 v2=b2@7 v1=b1@5 ")
	must(t, assign("b1", 6, "default", "v0", "v1"))
	wantTags(t, s, "what was given later stays", "t1", "default=b2@7 v2=b2@7 v0=b1@6 v1=b1@6 ")
	must(t, assign("b1", 7, "default"))
	wantTags(t, s, "of two of one moment the second wins", "t1", "default=b1@7 v2=b2@7 v0=b1@6 v1=b1@6 ")
	wantTags(t, s, "another template's", "t2", "")
	for _, id := range []cove.BuildID{"b1", "b2", "b3"} { // those of recipes stay, with or without tags
		_, err := s.Build(t.Context(), id)
		must(t, err)
	}
}

func removeTags(t *testing.T, s store.Store) {
	must(t, s.CreateTemplate(t.Context(), recipe("web", 1)))
	b := build("b1", cove.BuildReady, 1)
	b.Tags, b.EndedAt = []string{"a", "b", "c"}, second(5)
	must(t, s.CreateBuild(t.Context(), b))
	wantKind(t, s.RemoveTags(t.Context(), "t1", []string{"a", "nosuch"}), cove.NotFound)
	wantKind(t, s.RemoveTags(t.Context(), "t2", []string{"a"}), cove.NotFound)
	wantTags(t, s, "after what failed", "t1", "a=b1@5 b=b1@5 c=b1@5 ")
	must(t, s.RemoveTags(t.Context(), "t1", []string{"c", "a", "c"}))
	wantTags(t, s, "two of three", "t1", "b=b1@5 ")
	must(t, s.RemoveTags(t.Context(), "t1", []string{"b"}))
	same(t, "the build", info(t, s, "t1").Build, b)
	_, err := s.TaggedBuild(t.Context(), "t1", "b")
	wantKind(t, err, cove.NotFound)
}

func lastTag(t *testing.T, s store.Store) {
	keep(t, s, kept("snap", "default", 1))
	keep(t, s, kept("snap", "v2", 2))
	must(t, s.AssignTags(t.Context(), "t1", "b2", []string{"default"}, second(9)))
	_, err := s.Build(t.Context(), "b1")
	wantKind(t, err, cove.NotFound)
	must(t, s.RemoveTags(t.Context(), "t1", []string{"default"}))
	_, err = s.Build(t.Context(), "b2")
	must(t, err)
	must(t, s.RemoveTags(t.Context(), "t1", []string{"v2"}))
	_, err = s.TemplateInfo(t.Context(), "t1")
	wantKind(t, err, cove.NotFound)
	snapshots, err := s.KeptSnapshots(t.Context())
	must(t, err)
	same(t, "kept", len(snapshots), 0)
}
