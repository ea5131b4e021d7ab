package api

import (
	"fmt"
	"net/http"
	"slices"
	"unicode/utf8"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// Limits of what a build is asked for. What this installation can give may be
// less; the control plane knows.
const (
	maxName     = 128 // letters
	maxTags     = 100
	maxCPUs     = 64
	minMemoryMB = 128
	maxMemoryMB = 1 << 20
	maxDiskMB   = 1 << 24
)

// RequestBuild answers POST /v3/templates.
func (s *server) RequestBuild(w http.ResponseWriter, r *http.Request) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		var body wire.BuildRequest
		if err := decode(w, r, &body); err != nil {
			return err
		}
		if err := checkTeam(team, body.TeamID); err != nil {
			return err
		}
		req, err := newBuild(body)
		if err != nil {
			return err
		}
		owner, err := s.control.Team(r.Context(), team)
		if err != nil {
			return fmt.Errorf("request build: %w", err)
		}
		t, build, err := s.control.RequestBuild(r.Context(), team, req)
		if err != nil {
			return fmt.Errorf("request build: %w", err)
		}
		return writeJSON(w, http.StatusAccepted, wire.RequestedBuild{
			TemplateID: string(t.ID),
			BuildID:    string(build.ID),
			Public:     t.Public,
			Names:      namesOf(owner, t),
			Aliases:    aliasesOf(t),
			Tags:       append([]string{}, build.Tags...),
		})
	})
}

// RequestBuildV2 answers POST /v2/templates.
func (s *server) RequestBuildV2(w http.ResponseWriter, r *http.Request) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		var body wire.BuildRequestV2
		if err := decode(w, r, &body, "alias"); err != nil {
			return err
		}
		if err := checkTeam(team, body.TeamID); err != nil {
			return err
		}
		req, err := newBuild(wire.BuildRequest{Alias: &body.Alias, CpuCount: body.CpuCount, MemoryMB: body.MemoryMB})
		if err != nil {
			return err
		}
		t, build, err := s.control.RequestBuild(r.Context(), team, req)
		if err != nil {
			return fmt.Errorf("request build: %w", err)
		}
		info, _, err := s.control.TemplateBuilds(r.Context(), team, string(t.ID), cove.BuildPos{}, 1)
		if err != nil {
			return fmt.Errorf("request build: %w", err)
		}
		info.Build = build // the client goes on with this one
		return writeJSON(w, http.StatusAccepted, s.toLegacy(info))
	})
}

// RequestBuildV1 answers POST /templates.
func (s *server) RequestBuildV1(w http.ResponseWriter, r *http.Request) { s.refuseV1(w, r) }

// RebuildV1 answers POST /templates/{templateID}.
func (s *server) RebuildV1(w http.ResponseWriter, r *http.Request, _ string) { s.refuseV1(w, r) }

// BeginBuildV1 answers POST /templates/{templateID}/builds/{buildID}.
func (s *server) BeginBuildV1(w http.ResponseWriter, r *http.Request, _, _ string) { s.refuseV1(w, r) }

// refuseV1 refuses a step of a build of the first generation. There the client
// makes the image and pushes it to a registry, which this server has not.
func (s *server) refuseV1(w http.ResponseWriter, r *http.Request) {
	s.forTeam(w, r, func(cove.TeamID) error {
		return cove.E(cove.Unimplemented, "api.refuseV1", nil,
			"this server does not build templates from images that clients push: "+
				"use Template.build of an SDK of version 2 or newer, or `template create` of its command line, which reads Dockerfiles too")
	})
}

// newBuild checks a request and says it in words of the domain.
func newBuild(body wire.BuildRequest) (cove.NewBuild, error) {
	name, err := templateName(body)
	if err != nil {
		return cove.NewBuild{}, err
	}
	tags, err := parseTags(body.Tags)
	if err != nil {
		return cove.NewBuild{}, err
	}
	req := cove.NewBuild{Name: name, Tags: tags}
	for _, f := range []struct {
		name     string
		value    *int32
		min, max int32
		to       *int
	}{
		{"cpuCount", body.CpuCount, 1, maxCPUs, &req.CPUs},
		{"memoryMB", body.MemoryMB, minMemoryMB, maxMemoryMB, &req.MemoryMB},
		// 0 asks for no more than there is anyway, and so for the default.
		{"minFreeDiskMb", body.MinFreeDiskMb, 0, maxDiskMB, &req.FreeDiskMB},
	} {
		if f.value == nil {
			continue
		}
		if *f.value < f.min || *f.value > f.max {
			return cove.NewBuild{}, invalid("%q must be from %d to %d", f.name, f.min, f.max)
		}
		*f.to = int(*f.value)
	}
	return req, nil
}

// templateName returns the name in a request: "alias" is the word of older
// clients for it.
func templateName(body wire.BuildRequest) (string, error) {
	var name string
	switch {
	case body.Name != nil && body.Alias != nil && *body.Name != *body.Alias:
		return "", invalid(`"name" and "alias" are not the same: leave "alias" out`)
	case body.Name != nil:
		name = *body.Name
	case body.Alias != nil:
		name = *body.Alias
	}
	if name == "" {
		return "", invalid(`"name" is required`)
	}
	if utf8.RuneCountInString(name) > maxName {
		return "", invalid(`"name" may have at most %d letters`, maxName)
	}
	_, err := cove.ParseTemplateRef(name)
	return name, err
}

// parseTags checks tags of a request, and returns each once and as it is kept.
func parseTags(tags []string) ([]string, error) {
	if len(tags) > maxTags {
		return nil, invalid(`"tags" has %d tags; %d are allowed`, len(tags), maxTags)
	}
	var parsed []string
	for _, tag := range tags {
		p, err := cove.ParseTag(tag)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(parsed, p) {
			parsed = append(parsed, p)
		}
	}
	return parsed, nil
}
