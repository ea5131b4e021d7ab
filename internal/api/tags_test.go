package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	cove "github.com/cove-sandbox/cove"
)

func TestAssignTags(t *testing.T) {
	f := templateFixture(t)
	w := f.do("POST", "/templates/tags", `{"target":"my-team/web:v1","tags":["V2","default","v2"]}`)
	want := map[string]any{"tags": []any{"v2", "default"}, "buildID": string(readyBuild)}
	if diff := cmp.Diff(want, fields(t, w)); diff != "" || w.Code != http.StatusCreated {
		t.Errorf("%d (-want +got):\n%s", w.Code, diff)
	}
	if diff := cmp.Diff([]string{"v2", "default"}, f.control.tags); diff != "" || f.control.name != "my-team/web:v1" || f.control.team != team {
		t.Errorf("asked by %s for %s (-want +got):\n%s", f.control.team, f.control.name, diff)
	}
	f.control.err = cove.E(cove.NotFound, "fake", nil, "template 'web' not found")
	wantError(t, f.do("POST", "/templates/tags", `{"target":"web","tags":["a"]}`), 404, "template 'web' not found")
}

func TestRemoveTags(t *testing.T) {
	f := templateFixture(t)
	w := f.do("DELETE", "/templates/tags", `{"name":"my-team/web","tags":["V1","v2"]}`)
	if w.Code != http.StatusNoContent || w.Body.Len() != 0 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if diff := cmp.Diff([]string{"v1", "v2"}, f.control.tags); diff != "" || f.control.name != "my-team/web" || f.control.team != team {
		t.Errorf("asked by %s for %s (-want +got):\n%s", f.control.team, f.control.name, diff)
	}
	wantError(t, f.do("DELETE", "/templates/tags", `{"name":"web","tags":["v1","Default"]}`), 400, "Cannot delete the 'default' tag")
	f.control.err = cove.E(cove.NotFound, "fake", nil, "template 'web' not found")
	wantError(t, f.do("DELETE", "/templates/tags", `{"name":"web","tags":["a"]}`), 404, "template 'web' not found")
}

func TestTagsRefused(t *testing.T) {
	f := templateFixture(t)
	for method, field := range map[string]string{"POST": "target", "DELETE": "name"} {
		for tags, words := range map[string]string{
			`[]`: `"tags" is empty`, `["a",":b"]`: `invalid tag ":b"`, `["b:"]`: `invalid tag "b:"`, `["a b"]`: "invalid tag", `[1]`: "must be a string", `null`: `"tags" is required`,
			`["` + string(readyBuild) + `"]`: "identifier of a build", `[` + strings.Repeat(`"a",`, 100) + `"a"]`: "101",
		} {
			wantError(t, f.do(method, "/templates/tags", `{"`+field+`":"web","tags":`+tags+`}`), 400, words)
		}
		wantError(t, f.do(method, "/templates/tags", `{"tags":["a"]}`), 400, `"`+field+`" is required`)
		wantError(t, f.do(method, "/templates/tags", `{"`+field+`":"web"}`), 400, `"tags" is required`)
		wantError(t, f.do(method, "/templates/tags", `{"`+field+`":"web","tags":["a"],"tag":"b"}`), 400, `unknown field "tag"`)
		wantError(t, f.do(method, "/templates/tags", ``), 400, "empty")
	}
	for query, words := range map[string]string{"": `"tag" is required`, "?tag=": "invalid tag", "?tag=a%3Ab": "invalid tag", "?tag=a&name=b": `"name"`} {
		wantError(t, f.do("GET", "/templates/web/tags/exists"+query, ""), 400, words)
	}
	if len(f.control.calls) != 0 {
		t.Errorf("calls: %v", f.control.calls)
	}
}

func TestTagsOfTemplate(t *testing.T) {
	f := templateFixture(t)
	f.control.given = []cove.TemplateTag{{Tag: "v1", Build: waitingBuild, CreatedAt: started}, {Tag: "default", Build: readyBuild, CreatedAt: started}}
	want := []map[string]any{
		{"tag": "v1", "buildID": string(waitingBuild), "createdAt": "2026-03-01T12:00:00.123456Z"},
		{"tag": "default", "buildID": string(readyBuild), "createdAt": "2026-03-01T12:00:00.123456Z"},
	}
	if diff := cmp.Diff(want, objects(t, f.do("GET", "/templates/my-team%2Fweb/tags", ""))); diff != "" || f.control.name != "my-team/web" {
		t.Errorf("of %s (-want +got):\n%s", f.control.name, diff)
	}
	for path, want := range map[string]map[string]any{
		"/count":          {"total": 2.0},
		"/exists?tag=V1":  {"exists": true, "normalizedTag": "v1"},
		"/exists?tag=v1.": {"exists": false, "normalizedTag": "v1."},
	} {
		w := f.do("GET", "/templates/my-team%2Fweb/tags"+path, "")
		if diff := cmp.Diff(want, fields(t, w)); diff != "" || w.Code != 200 || f.control.name != "my-team/web" {
			t.Errorf("%s: %d (-want +got):\n%s", path, w.Code, diff)
		}
	}
	f.control.given = nil
	if w := f.do("GET", "/templates/web/tags", ""); w.Body.String() != "[]" {
		t.Errorf("without any: %s", w.Body)
	}
	f.control.err = cove.E(cove.Forbidden, "fake", nil, "it is another team's")
	for _, path := range []string{"", "/count", "/exists?tag=a"} {
		wantError(t, f.do("GET", "/templates/web/tags"+path, ""), 403, "another team's")
	}
}
