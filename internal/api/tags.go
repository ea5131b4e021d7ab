package api

import (
	"fmt"
	"net/http"
	"slices"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// AssignTags answers POST /templates/tags.
func (s *server) AssignTags(w http.ResponseWriter, r *http.Request) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		var body wire.TagAssignment
		if err := decode(w, r, &body, "target", "tags"); err != nil {
			return err
		}
		tags, err := parseTags(body.Tags)
		if err != nil {
			return err
		}
		if len(tags) == 0 {
			return invalid(`"tags" is empty`)
		}
		build, err := s.control.AssignTags(r.Context(), team, body.Target, tags)
		if err != nil {
			return fmt.Errorf("assign tags: %w", err)
		}
		return writeJSON(w, http.StatusCreated, wire.AssignedTags{Tags: tags, BuildID: string(build)})
	})
}

// RemoveTags answers DELETE /templates/tags.
func (s *server) RemoveTags(w http.ResponseWriter, r *http.Request) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		var body wire.TagRemoval
		if err := decode(w, r, &body, "name", "tags"); err != nil {
			return err
		}
		tags, err := parseTags(body.Tags)
		if err != nil {
			return err
		}
		if len(tags) == 0 {
			return invalid(`"tags" is empty`)
		}
		// The words are the reference's.
		if slices.Contains(tags, cove.DefaultTag) {
			return invalid("Cannot delete the '%s' tag", cove.DefaultTag)
		}
		if err := s.control.RemoveTags(r.Context(), team, body.Name, tags); err != nil {
			return fmt.Errorf("remove tags: %w", err)
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

// ListTags answers GET /templates/{templateID}/tags.
func (s *server) ListTags(w http.ResponseWriter, r *http.Request, template string) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		tags, err := s.control.TemplateTags(r.Context(), team, template)
		if err != nil {
			return fmt.Errorf("list tags: %w", err)
		}
		items := make([]wire.TemplateTag, 0, len(tags))
		for _, t := range tags {
			items = append(items, wire.TemplateTag{Tag: t.Tag, BuildID: string(t.Build), CreatedAt: t.CreatedAt.UTC()})
		}
		return writeJSON(w, http.StatusOK, items)
	})
}

// CountTags answers GET /templates/{templateID}/tags/count.
func (s *server) CountTags(w http.ResponseWriter, r *http.Request, template string) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		tags, err := s.control.TemplateTags(r.Context(), team, template)
		if err != nil {
			return fmt.Errorf("count tags: %w", err)
		}
		return writeJSON(w, http.StatusOK, wire.TagCount{Total: int32(len(tags))})
	})
}

// FindTag answers GET /templates/{templateID}/tags/exists.
func (s *server) FindTag(w http.ResponseWriter, r *http.Request, template string, p wire.FindTagParams) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		if err := checkQuery(r, "tag"); err != nil {
			return err
		}
		tag, err := cove.ParseTag(p.Tag)
		if err != nil {
			return err
		}
		tags, err := s.control.TemplateTags(r.Context(), team, template)
		if err != nil {
			return fmt.Errorf("find tag: %w", err)
		}
		return writeJSON(w, http.StatusOK, wire.FoundTag{
			NormalizedTag: tag,
			Exists:        slices.ContainsFunc(tags, func(t cove.TemplateTag) bool { return t.Tag == tag }),
		})
	})
}
