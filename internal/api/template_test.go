package api_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	cove "github.com/cove-sandbox/cove"
)

// The identifiers of builds that the fake has.
const (
	readyBuild   = cove.BuildID("11111111-2222-4333-8444-555555555555")
	waitingBuild = cove.BuildID("66666666-7777-4888-9999-aaaaaaaaaaaa")
)

// fakeTemplates is the part of fakeControl that is about templates.
type fakeTemplates struct {
	templates []cove.TemplateInfo // newest first
	builds    []cove.Build        // of every template, newest first

	after     cove.TemplatePos
	public    bool
	requested cove.NewBuild
	build     cove.BuildID
	order     cove.BuildOrder
	log       []cove.BuildLine // oldest first
	reads     []cove.BuildLineFilter

	hash    string
	present bool
	token   string
	stored  string

	tags  []string
	given []cove.TemplateTag
}

func (f *fakeControl) template(name string) (cove.TemplateInfo, error) {
	f.name = name
	for _, t := range f.templates {
		if name == string(t.ID) || name == t.Alias {
			return t, nil
		}
	}
	return cove.TemplateInfo{}, cove.E(cove.NotFound, "fake", nil, "template '%s' not found", name)
}

func (f *fakeControl) ListTemplates(_ context.Context, team cove.TeamID, after cove.TemplatePos, limit int) ([]cove.TemplateInfo, error) {
	f.after = after
	if err := f.call("templates", team, ""); err != nil {
		return nil, err
	}
	page := f.templates
	for i, t := range page {
		if t.ID == after.ID && t.CreatedAt.Equal(after.CreatedAt) {
			page = page[i+1:]
			break
		}
	}
	return page[:min(limit, len(page))], nil
}

func (f *fakeControl) TemplateBuilds(_ context.Context, team cove.TeamID, template string, after cove.BuildPos, limit int) (cove.TemplateInfo, []cove.Build, error) {
	if err := f.call("template", team, ""); err != nil {
		return cove.TemplateInfo{}, nil, err
	}
	page := f.builds
	for i, b := range page {
		if b.ID == after.ID && b.CreatedAt.Equal(after.CreatedAt) {
			page = page[i+1:]
			break
		}
	}
	t, err := f.template(template)
	return t, page[:min(limit, len(page))], err
}

func (f *fakeControl) TemplateByAlias(_ context.Context, team cove.TeamID, alias string) (cove.Template, error) {
	if err := f.call("alias", team, ""); err != nil {
		return cove.Template{}, err
	}
	t, err := f.template(alias)
	return t.Template, err
}

func (f *fakeControl) PublishTemplate(_ context.Context, team cove.TeamID, template string, public bool) (cove.Template, error) {
	f.public = public
	if err := f.call("publish", team, ""); err != nil {
		return cove.Template{}, err
	}
	t, err := f.template(template)
	return t.Template, err
}

func (f *fakeControl) DeleteTemplate(_ context.Context, team cove.TeamID, name string) error {
	f.name = name
	return f.call("delete", team, "")
}

func (f *fakeControl) RequestBuild(_ context.Context, team cove.TeamID, req cove.NewBuild) (cove.Template, cove.Build, error) {
	f.requested = req
	return f.templates[0].Template, f.builds[0], f.call("request", team, "")
}

func (f *fakeControl) BeginBuild(_ context.Context, team cove.TeamID, template string, build cove.BuildID, order cove.BuildOrder) error {
	f.name, f.build, f.order = template, build, order
	return f.call("begin", team, "")
}

func (f *fakeControl) BuildStatus(_ context.Context, team cove.TeamID, template string, build cove.BuildID, filter cove.BuildLineFilter) (cove.Build, []cove.BuildLine, error) {
	f.name, f.reads = template, append(f.reads, filter)
	if err := f.call("status", team, ""); err != nil {
		return cove.Build{}, nil, err
	}
	i := slices.IndexFunc(f.builds, func(b cove.Build) bool { return b.ID == build })
	if i < 0 {
		return cove.Build{}, nil, cove.E(cove.NotFound, "fake", nil, "there is no build '%s'", build)
	}
	lines := slices.DeleteFunc(slices.Clone(f.log), func(l cove.BuildLine) bool { return l.Level < filter.Level })
	if filter.Newest {
		slices.Reverse(lines)
	}
	lines = lines[min(filter.Offset, len(lines)):]
	return f.builds[i], lines[:min(filter.Limit, len(lines))], nil
}

func (f *fakeControl) FilesUpload(_ context.Context, team cove.TeamID, template, hash string) (bool, string, error) {
	f.name, f.hash = template, hash
	return f.present, f.token, f.call("files", team, "")
}

func (f *fakeControl) StoreFiles(_ context.Context, token string, body io.Reader) error {
	if token != f.token {
		return cove.E(cove.Forbidden, "fake", nil, "the address is not valid any more")
	}
	all, err := io.ReadAll(body)
	f.stored = string(all)
	return err
}

func (f *fakeControl) AssignTags(_ context.Context, team cove.TeamID, target string, tags []string) (cove.BuildID, error) {
	f.name, f.tags = target, tags
	return readyBuild, f.call("assign", team, "")
}

func (f *fakeControl) RemoveTags(_ context.Context, team cove.TeamID, name string, tags []string) error {
	f.name, f.tags = name, tags
	return f.call("untag", team, "")
}

func (f *fakeControl) TemplateTags(_ context.Context, team cove.TeamID, template string) ([]cove.TemplateTag, error) {
	f.name = template
	return f.given, f.call("tags", team, "")
}

// templateFixture is a fixture whose team has a template with a build that is
// ready and one that waits, one without a name, and the installation's.
func templateFixture(t *testing.T) *fixture {
	f := newFixture(t)
	resources := cove.Resources{CPUs: 2, MemoryMB: 512, DiskMB: 1024}
	ready := cove.Build{ID: readyBuild, Template: "t1", Status: cove.BuildReady, Resources: resources, Envd: "0.6.13", CreatedAt: started, EndedAt: started.Add(time.Minute)}
	waiting := cove.Build{ID: waitingBuild, Template: "t1", Status: cove.BuildWaiting, Resources: resources, Tags: []string{"v1"}, CreatedAt: started.Add(time.Hour)}
	f.control.builds = []cove.Build{waiting, ready}
	f.control.templates = []cove.TemplateInfo{
		{
			Template: cove.Template{ID: "t1", Team: team, Alias: "web", Source: cove.FromRecipe, CreatedAt: started},
			Build:    ready, Builds: 2, Spawned: 3, SpawnedAt: started.Add(time.Hour), UpdatedAt: started.Add(time.Minute),
		},
		{Template: cove.Template{ID: "t2", Team: team, Alias: "t2", CreatedAt: started, Public: true}, Build: waiting, UpdatedAt: started},
		{Template: cove.Template{ID: "t3", Alias: "base", Public: true, CreatedAt: started}, Build: ready, Builds: 9, Spawned: 9, SpawnedAt: started, UpdatedAt: started},
	}
	return f
}

// wantTemplate is what the wire says of the fixture's first template.
func wantTemplate() map[string]any {
	return map[string]any{
		"templateID": "t1", "buildID": string(readyBuild), "cpuCount": 2.0, "memoryMB": 512.0, "diskSizeMB": 1024.0, "public": false,
		"aliases": []any{"web"}, "names": []any{"my-team/web"}, "createdAt": "2026-03-01T12:00:00.123456Z", "updatedAt": "2026-03-01T12:01:00.123456Z",
		"createdBy": nil, "lastSpawnedAt": "2026-03-01T13:00:00.123456Z", "spawnCount": 3.0, "buildCount": 2.0, "envdVersion": "0.6.13",
		"buildStatus": "ready", "isDefault": false,
	}
}

// objects decodes a JSON list of objects.
func objects(t *testing.T, w *httptest.ResponseRecorder) []map[string]any {
	t.Helper()
	var got []map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got == nil || w.Code != 200 {
		t.Fatalf("%d %q: %v", w.Code, w.Body, err)
	}
	return got
}

func TestListTemplates(t *testing.T) {
	unnamed := wantTemplate()
	for k, v := range map[string]any{
		"templateID": "t2", "buildID": string(waitingBuild), "public": true, "aliases": []any{}, "names": []any{}, "lastSpawnedAt": nil,
		"spawnCount": 0.0, "buildCount": 0.0, "envdVersion": "0.9.9", "buildStatus": "waiting", "updatedAt": "2026-03-01T12:00:00.123456Z",
	} {
		unnamed[k] = v
	}
	for _, path := range []string{"/templates", "/v2/templates", "/templates?teamID=" + string(team), "/v2/templates?teamID=" + string(team)} {
		f := templateFixture(t)
		f.control.templates = f.control.templates[:2]
		if diff := cmp.Diff([]map[string]any{wantTemplate(), unnamed}, objects(t, f.do("GET", path, ""))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
		if f.control.team != team {
			t.Errorf("%s: of team %q", path, f.control.team)
		}
		f.control.templates = nil
		if w := f.do("GET", path, ""); w.Body.String() != "[]" {
			t.Errorf("%s: an empty list: %s", path, w.Body)
		}
		f.control.err = cove.E(cove.Unavailable, "fake", nil, "try later")
		wantError(t, f.do("GET", path, ""), 503, "try later")
	}
}

// manyTemplates fills the fixture with n templates of the same moment.
func manyTemplates(f *fixture, n int) (ids []string) {
	f.control.templates = nil
	for i := range n {
		id := "t" + string(rune('a'+i/26)) + string(rune('a'+i%26))
		f.control.templates = append(f.control.templates, cove.TemplateInfo{Template: cove.Template{ID: cove.TemplateID(id), Team: team, CreatedAt: started}})
		ids = append(ids, id)
	}
	return ids
}

func TestPagesOfTemplates(t *testing.T) {
	for path, n := range map[string]int{"/templates": 250, "/v2/templates?limit=3": 6, "/v2/templates?limit=4": 6, "/v2/templates": 100} {
		f := templateFixture(t)
		want := manyTemplates(f, n)
		u, _ := url.Parse(path)
		var got []string
		for {
			w := f.do("GET", u.String(), "")
			for _, item := range objects(t, w) {
				got = append(got, item["templateID"].(string))
			}
			token := w.Header().Get("X-Next-Token")
			if token == "" {
				break
			}
			query := u.Query()
			query.Set("nextToken", token)
			u.RawQuery = query.Encode()
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	f := templateFixture(t)
	for query, words := range map[string]string{
		"/v2/templates?limit=0": `"limit"`, "/v2/templates?limit=101": "100", "/v2/templates?limit=x": `"limit"`, "/v2/templates?nextToken=x": "Invalid next token",
		"/v2/templates?teamID=other": `"teamID"`, "/templates?teamID=other": `"teamID"`, "/templates?limit=1": `"limit"`, "/v2/templates?team=x": `"team"`,
	} {
		wantError(t, f.do("GET", query, ""), 400, words)
	}
}

func TestGetTemplate(t *testing.T) {
	f := templateFixture(t)
	want := wantTemplate()
	second := map[string]any{
		"buildID": string(readyBuild), "status": "ready", "createdAt": "2026-03-01T12:00:00.123456Z", "updatedAt": "2026-03-01T12:01:00.123456Z",
		"finishedAt": "2026-03-01T12:01:00.123456Z", "cpuCount": 2.0, "memoryMB": 512.0, "diskSizeMB": 1024.0, "envdVersion": "0.6.13",
	}
	want["builds"] = []any{map[string]any{
		"buildID": string(waitingBuild), "status": "waiting", "createdAt": "2026-03-01T13:00:00.123456Z", "updatedAt": "2026-03-01T13:00:00.123456Z",
		"cpuCount": 2.0, "memoryMB": 512.0, "diskSizeMB": 1024.0, "envdVersion": "0.9.9",
	}, second}
	w := f.do("GET", "/templates/web", "")
	if diff := cmp.Diff(want, fields(t, w)); diff != "" || w.Code != 200 || w.Header().Get("X-Next-Token") != "" {
		t.Errorf("%d %v (-want +got):\n%s", w.Code, w.Header(), diff)
	}
	w = f.do("GET", "/templates/t1?limit=1", "")
	w = f.do("GET", "/templates/t1?limit=1&nextToken="+url.QueryEscape(w.Header().Get("X-Next-Token")), "")
	if diff := cmp.Diff([]any{second}, fields(t, w)["builds"]); diff != "" || w.Header().Get("X-Next-Token") != "" {
		t.Errorf("the second page: %v (-want +got):\n%s", w.Header(), diff)
	}
	got := fields(t, f.do("GET", "/templates/base", ""))
	for k, v := range map[string]any{"isDefault": true, "spawnCount": 0.0, "buildCount": 0.0, "lastSpawnedAt": nil, "names": []any{"base"}, "aliases": []any{"base"}} {
		if !cmp.Equal(got[k], v) {
			t.Errorf("of the installation's: %s = %v, want %v", k, got[k], v)
		}
	}
	wantError(t, f.do("GET", "/templates/my-team%2Fnone%3Av1", ""), 404, "template 'my-team/none:v1' not found")
	for query, words := range map[string]string{"limit=0": `"limit"`, "limit=101": "100", "nextToken=x": "Invalid next token", "teamID=x": `"teamID"`} {
		wantError(t, f.do("GET", "/templates/web?"+query, ""), 400, words)
	}
}

func TestTemplateByAlias(t *testing.T) {
	f := templateFixture(t)
	w := f.do("GET", "/templates/aliases/t2", "")
	if diff := cmp.Diff(map[string]any{"templateID": "t2", "public": true}, fields(t, w)); diff != "" || w.Code != 200 {
		t.Errorf("%d (-want +got):\n%s", w.Code, diff)
	}
	for path, want := range map[string]string{"/templates/aliases/other%2Fweb": "other/web", "/templates/aliases/tags": "tags"} {
		wantError(t, f.do("GET", path, ""), 404, want)
		if f.control.name != want {
			t.Errorf("%s asks for %q", path, f.control.name)
		}
	}
	f.control.err = cove.E(cove.Forbidden, "fake", nil, "it is another team's")
	wantError(t, f.do("GET", "/templates/aliases/web", ""), 403, "another team's")
}

func TestUpdateTemplate(t *testing.T) {
	f := templateFixture(t)
	for _, public := range []bool{true, false} {
		body := map[bool]string{true: `{"public":true}`, false: `{"public":false}`}[public]
		if w := f.do("PATCH", "/templates/my-team%2Fweb", body); w.Code != 404 || f.control.name != "my-team/web" {
			t.Errorf("%d %s of %q", w.Code, w.Body, f.control.name)
		}
		if w := f.do("PATCH", "/templates/web", body); w.Code != 200 || w.Body.Len() != 0 || f.control.public != public {
			t.Errorf("%d %s, public %v", w.Code, w.Body, f.control.public)
		}
		for name, want := range map[string][]any{"web": {"my-team/web"}, "t2": {}} {
			w := f.do("PATCH", "/v2/templates/"+name, body)
			if diff := cmp.Diff(map[string]any{"names": want}, fields(t, w)); diff != "" || w.Code != 200 || f.control.public != public {
				t.Errorf("%s: %d, public %v (-want +got):\n%s", name, w.Code, f.control.public, diff)
			}
		}
	}
	for _, path := range []string{"/templates/web", "/v2/templates/web"} {
		wantError(t, f.do("PATCH", path, `{}`), 400, `"public" is required`)
		wantError(t, f.do("PATCH", path, `{"public":1}`), 400, `"public"`)
		wantError(t, f.do("PATCH", path, `{"public":true,"alias":"x"}`), 400, `unknown field "alias"`)
		wantError(t, f.do("PATCH", path+"x", `{"public":true}`), 404, "webx")
	}
}

func TestDeleteTemplate(t *testing.T) {
	for path, want := range map[string]string{
		"/templates/t1":                     "t1",
		"/templates/my-team%2Fsnap%3Av2":    "my-team/snap:v2",
		"/templates/my-team%2Fsnap:default": "my-team/snap:default",
		"/templates/my-team/snap:v2":        "my-team/snap:v2",
		"/templates/aliases/snap":           "aliases/snap",
	} {
		f := templateFixture(t)
		if w := f.do("DELETE", path, ""); w.Code != 204 || f.control.name != want {
			t.Errorf("%s: %d %s, of %q", path, w.Code, w.Body, f.control.name)
		}
	}
	f := templateFixture(t)
	f.control.err = cove.E(cove.NotFound, "fake", nil, "template 't1' not found")
	wantError(t, f.do("DELETE", "/templates/t1", ""), 404, "template 't1' not found")
}
