package control_test

import (
	"context"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/control"
)

func TestPublicTemplates(t *testing.T) {
	b := buildBench(t, nil)
	if err := b.store.CreateTeam(t.Context(), cove.Team{ID: rival, Name: "Rival", CreatedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	b.templates.does(func(ctx context.Context, job control.BuildJob) error { return saveInNode(ctx, b, job) })
	template, _ := built(t, b, "web")
	use := func() error {
		req := request()
		req.Template = "acme/web"
		_, err := b.CreateSandbox(t.Context(), rival, req)
		return err
	}
	wantKind(t, "a private one", use(), cove.NotFound)
	wantKind(t, "publishing another's", second2(b.PublishTemplate(t.Context(), rival, string(template.ID), true)), cove.NotFound)
	if got, err := b.PublishTemplate(t.Context(), team, "web", true); err != nil || !got.Public {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := use(); err != nil {
		t.Errorf("a public one: %v", err)
	}
	wantKind(t, "deleting another's", b.DeleteTemplate(t.Context(), rival, "acme/web"), cove.Forbidden)
	if _, err := b.TemplateByAlias(t.Context(), rival, "acme/web"); err != nil {
		t.Error(err)
	}
	wantKind(t, "its alias alone", second2(b.TemplateByAlias(t.Context(), rival, "web")), cove.NotFound)
	if _, err := b.PublishTemplate(t.Context(), team, "web", false); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "one that is private again", use(), cove.NotFound)
}

func TestListTemplates(t *testing.T) {
	b := buildBench(t, nil)
	built(t, b, "one")
	built(t, b, "two")
	built(t, b, "two")
	all, err := b.ListTemplates(t.Context(), team, cove.TemplatePos{}, 10)
	if err != nil || len(all) != 2 || all[0].Alias != "two" || all[0].Builds != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	info, builds, err := b.TemplateBuilds(t.Context(), team, "two", cove.BuildPos{}, 10)
	if err != nil || len(builds) != 2 || info.Build.ID != builds[0].ID {
		t.Errorf("%+v, %+v, %v", info, builds, err)
	}
	if all, err = b.ListTemplates(t.Context(), rival, cove.TemplatePos{}, 10); err != nil || len(all) != 0 {
		t.Errorf("another's: %+v, %v", all, err)
	}
}
