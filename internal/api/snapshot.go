package api

import (
	"fmt"
	"net/http"

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
	if f.Limit, err = pageLimit(p.Limit); err != nil {
		return f, err
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

// toSnapshot says how to make sandboxes from n.
func toSnapshot(owner cove.Team, n cove.NamedSnapshot) wire.SnapshotInfo {
	if !n.Template.Named() {
		return wire.SnapshotInfo{SnapshotID: string(n.Template.ID) + ":" + n.Tag, Names: []string{}}
	}
	name := owner.Slug() + "/" + n.Template.Alias + ":" + n.Tag
	return wire.SnapshotInfo{SnapshotID: name, Names: []string{name}}
}

func formatSnapshotPos(p cove.SnapshotPos) string {
	return formatToken(p.TaggedAt, string(p.Template), p.Tag)
}

func parseSnapshotPos(token string) (cove.SnapshotPos, error) {
	at, parts, err := parseToken(token, 2)
	if err != nil {
		return cove.SnapshotPos{}, err
	}
	return cove.SnapshotPos{TaggedAt: at, Template: cove.TemplateID(parts[0]), Tag: parts[1]}, nil
}
