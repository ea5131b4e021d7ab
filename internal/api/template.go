package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// ListTemplates answers GET /templates: all of them.
func (s *server) ListTemplates(w http.ResponseWriter, r *http.Request, p wire.ListTemplatesParams) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		if err := checkQuery(r, "teamID"); err != nil {
			return err
		}
		if err := checkTeam(team, p.TeamID); err != nil {
			return err
		}
		var all []cove.TemplateInfo
		for after := (cove.TemplatePos{}); ; {
			page, err := s.control.ListTemplates(r.Context(), team, after, maxPage)
			if err != nil {
				return fmt.Errorf("list templates: %w", err)
			}
			all = append(all, page...)
			if len(page) < maxPage {
				return s.writeTemplates(w, r, team, all)
			}
			after = templatePos(page[len(page)-1])
		}
	})
}

// ListTemplatesV2 answers GET /v2/templates.
func (s *server) ListTemplatesV2(w http.ResponseWriter, r *http.Request, p wire.ListTemplatesV2Params) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		if err := checkQuery(r, "teamID", "nextToken", "limit"); err != nil {
			return err
		}
		if err := checkTeam(team, p.TeamID); err != nil {
			return err
		}
		limit, err := pageLimit(p.Limit)
		if err != nil {
			return err
		}
		var after cove.TemplatePos
		if p.NextToken != nil && *p.NextToken != "" {
			at, parts, err := parseToken(*p.NextToken, 1)
			if err != nil {
				return err
			}
			after = cove.TemplatePos{CreatedAt: at, ID: cove.TemplateID(parts[0])}
		}
		// One more tells whether there is another page.
		page, err := s.control.ListTemplates(r.Context(), team, after, limit+1)
		if err != nil {
			return fmt.Errorf("list templates: %w", err)
		}
		if len(page) > limit {
			page = page[:limit]
			last := templatePos(page[limit-1])
			w.Header().Set("X-Next-Token", formatToken(last.CreatedAt, string(last.ID)))
		}
		return s.writeTemplates(w, r, team, page)
	})
}

func templatePos(info cove.TemplateInfo) cove.TemplatePos {
	return cove.TemplatePos{CreatedAt: info.CreatedAt, ID: info.ID}
}

// writeTemplates answers with templates of the team.
func (s *server) writeTemplates(w http.ResponseWriter, r *http.Request, team cove.TeamID, infos []cove.TemplateInfo) error {
	owner, err := s.control.Team(r.Context(), team)
	if err != nil {
		return fmt.Errorf("list templates: %w", err)
	}
	items := make([]wire.Template, 0, len(infos))
	for _, info := range infos {
		items = append(items, s.toTemplate(owner, info))
	}
	return writeJSON(w, http.StatusOK, items)
}

// GetTemplate answers GET /templates/{templateID}.
func (s *server) GetTemplate(w http.ResponseWriter, r *http.Request, name string, p wire.GetTemplateParams) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		if err := checkQuery(r, "nextToken", "limit"); err != nil {
			return err
		}
		limit, err := pageLimit(p.Limit)
		if err != nil {
			return err
		}
		var after cove.BuildPos
		if p.NextToken != nil && *p.NextToken != "" {
			at, parts, err := parseToken(*p.NextToken, 1)
			if err != nil {
				return err
			}
			after = cove.BuildPos{CreatedAt: at, ID: cove.BuildID(parts[0])}
		}
		info, builds, err := s.control.TemplateBuilds(r.Context(), team, name, after, limit+1)
		if err != nil {
			return fmt.Errorf("get template: %w", err)
		}
		owner, err := s.ownerOf(r.Context(), info.Template)
		if err != nil {
			return fmt.Errorf("get template: %w", err)
		}
		if info.Team != team {
			// What others do with theirs is not this team's business.
			info.Builds, info.Spawned, info.SpawnedAt = 0, 0, time.Time{}
		}
		if len(builds) > limit {
			builds = builds[:limit]
			last := builds[limit-1]
			w.Header().Set("X-Next-Token", formatToken(last.CreatedAt, string(last.ID)))
		}
		return writeJSON(w, http.StatusOK, withBuilds(s.toTemplate(owner, info), s.toBuilds(builds)))
	})
}

// GetTemplateByAlias answers GET /templates/aliases/{alias}.
func (s *server) GetTemplateByAlias(w http.ResponseWriter, r *http.Request, alias string) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		t, err := s.control.TemplateByAlias(r.Context(), team, alias)
		if err != nil {
			return fmt.Errorf("get template by alias: %w", err)
		}
		return writeJSON(w, http.StatusOK, wire.TemplateAlias{TemplateID: string(t.ID), Public: t.Public})
	})
}

// UpdateTemplate answers PATCH /templates/{templateID}.
func (s *server) UpdateTemplate(w http.ResponseWriter, r *http.Request, name string) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		if _, err := s.update(w, r, team, name); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	})
}

// UpdateTemplateV2 answers PATCH /v2/templates/{templateID}.
func (s *server) UpdateTemplateV2(w http.ResponseWriter, r *http.Request, name string) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		t, err := s.update(w, r, team, name)
		if err != nil {
			return err
		}
		owner, err := s.ownerOf(r.Context(), t)
		if err != nil {
			return fmt.Errorf("update template: %w", err)
		}
		return writeJSON(w, http.StatusOK, wire.TemplateNames{Names: namesOf(owner, t)})
	})
}

// update changes what a request says of a template: so far, who may use it.
func (s *server) update(w http.ResponseWriter, r *http.Request, team cove.TeamID, name string) (cove.Template, error) {
	var body wire.TemplateUpdate
	if err := decode(w, r, &body, "public"); err != nil {
		return cove.Template{}, err
	}
	t, err := s.control.PublishTemplate(r.Context(), team, name, body.Public)
	if err != nil {
		return cove.Template{}, fmt.Errorf("update template: %w", err)
	}
	return t, nil
}

// DeleteTemplate answers DELETE /templates/{templateID}, where the identifier
// may be any way to name a template.
func (s *server) DeleteTemplate(w http.ResponseWriter, r *http.Request, name string) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		if err := s.control.DeleteTemplate(r.Context(), team, name); err != nil {
			return fmt.Errorf("delete template: %w", err)
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

// DeleteNamespacedTemplate answers DELETE /templates/{namespace}/{templateID}:
// older clients do not encode the slash in a name.
func (s *server) DeleteNamespacedTemplate(w http.ResponseWriter, r *http.Request, namespace, name string) {
	s.DeleteTemplate(w, r, namespace+"/"+name)
}

// checkTeam refuses a request that names a team other than its key's.
func checkTeam(team cove.TeamID, asked *string) error {
	if asked == nil || *asked == "" || *asked == string(team) {
		return nil
	}
	return cove.E(cove.Invalid, "api.checkTeam", nil, `"teamID" is not the team of the API key: leave it out`)
}

// ownerOf returns the team whose template t is; nobody, if the installation
// offers it.
func (s *server) ownerOf(ctx context.Context, t cove.Template) (cove.Team, error) {
	if t.Team == "" {
		return cove.Team{}, nil
	}
	return s.control.Team(ctx, t.Team)
}
