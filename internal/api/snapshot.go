package api

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// CreateSnapshot answers POST /sandboxes/{sandboxID}/snapshots.
func (s *server) CreateSnapshot(w http.ResponseWriter, r *http.Request, sandboxID string) {
	s.forSandbox(w, r, sandboxID, func(team cove.TeamID, id cove.SandboxID) error {
		var body wire.NewSnapshot
		if err := decode(w, r, &body); err != nil {
			return err
		}
		req := cove.NewSnapshot{FilesOnly: isFalse(body.Memory)}
		if body.Name != nil {
			req.Name = *body.Name
		}
		owner, err := s.control.Team(r.Context(), team)
		if err != nil {
			return fmt.Errorf("create snapshot: %w", err)
		}
		kept, err := s.control.KeepSnapshot(r.Context(), team, id, req)
		if err != nil {
			return fmt.Errorf("create snapshot: %w", err)
		}
		return writeJSON(w, http.StatusCreated, toSnapshot(owner, kept))
	})
}

// ListSnapshots answers GET /snapshots.
func (s *server) ListSnapshots(w http.ResponseWriter, r *http.Request, p wire.ListSnapshotsParams) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		if err := checkQuery(r, "sandboxID", "name", "limit", "nextToken"); err != nil {
			return err
		}
		f, err := parseSnapshotFilter(p)
		if err != nil {
			return err
		}
		name := ""
		if p.Name != nil {
			name = *p.Name
		}
		owner, err := s.control.Team(r.Context(), team)
		if err != nil {
			return fmt.Errorf("list snapshots: %w", err)
		}
		page, err := s.control.ListSnapshots(r.Context(), team, name, f)
		if err != nil {
			return fmt.Errorf("list snapshots: %w", err)
		}
		if page.Next != (cove.SnapshotPos{}) {
			w.Header().Set("X-Next-Token", formatSnapshotPos(page.Next))
		}
		items := make([]wire.SnapshotInfo, 0, len(page.Snapshots))
		for _, n := range page.Snapshots {
			items = append(items, toSnapshot(owner, n))
		}
		return writeJSON(w, http.StatusOK, items)
	})
}

func parseSnapshotFilter(p wire.ListSnapshotsParams) (f cove.SnapshotFilter, err error) {
	f.Limit = maxPage
	if p.Limit != nil {
		if *p.Limit < 1 || *p.Limit > maxPage {
			return f, invalid(`"limit" must be from 1 to %d`, maxPage)
		}
		f.Limit = int(*p.Limit)
	}
	if p.SandboxID != nil && *p.SandboxID != "" {
		if f.Origin, err = parseSandboxID(*p.SandboxID); err != nil {
			return f, invalid(`"sandboxID" cannot be a sandbox's: %q`, clip(*p.SandboxID))
		}
	}
	if p.NextToken != nil && *p.NextToken != "" {
		f.After, err = parseSnapshotPos(*p.NextToken)
	}
	return f, err
}

// DeleteTemplate answers DELETE /templates/{templateID}, where the identifier
// may be any way to name a template.
func (s *server) DeleteTemplate(w http.ResponseWriter, r *http.Request, name string) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		if err := s.control.DropSnapshot(r.Context(), team, name); err != nil {
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

// toSnapshot says how to make sandboxes from n.
func toSnapshot(owner cove.Team, n cove.NamedSnapshot) wire.SnapshotInfo {
	if !n.Template.Named() {
		return wire.SnapshotInfo{SnapshotID: string(n.Template.ID) + ":" + n.Tag, Names: []string{}}
	}
	name := owner.Slug() + "/" + n.Template.Alias + ":" + n.Tag
	return wire.SnapshotInfo{SnapshotID: name, Names: []string{name}}
}

// A page token of a list of snapshots is the URL-safe base64 of
// "<time>__<template>__<tag>".

func formatSnapshotPos(p cove.SnapshotPos) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Join(
		[]string{p.TaggedAt.UTC().Format(time.RFC3339Nano), string(p.Template), p.Tag}, tokenSeparator)))
}

func parseSnapshotPos(token string) (cove.SnapshotPos, error) {
	bad := func(cause error) (cove.SnapshotPos, error) {
		return cove.SnapshotPos{}, cove.E(cove.Invalid, "api.parseSnapshotPos", cause, "Invalid next token")
	}
	if len(token) > 2*maxToken {
		return bad(nil)
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(token, "="))
	if err != nil {
		return bad(err)
	}
	parts := strings.SplitN(string(raw), tokenSeparator, 3)
	if len(parts) != 3 {
		return bad(nil)
	}
	at, err := time.Parse(time.RFC3339Nano, parts[0])
	if err != nil {
		return bad(err)
	}
	return cove.SnapshotPos{TaggedAt: at.UTC(), Template: cove.TemplateID(parts[1]), Tag: parts[2]}, nil
}
