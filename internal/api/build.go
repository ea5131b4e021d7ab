package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// maxBuildLines is how many lines of a build's log one answer has at most, and
// the usual number.
const maxBuildLines = 100

// BeginBuild answers POST /v2/templates/{templateID}/builds/{buildID}.
func (s *server) BeginBuild(w http.ResponseWriter, r *http.Request, template, buildID string) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		build, err := parseBuildID(buildID)
		if err != nil {
			return err
		}
		var body wire.BuildOrder
		if err := decodeUpTo(w, r, maxOrder, &body); err != nil {
			return err
		}
		order, err := buildOrder(body)
		if err != nil {
			return err
		}
		if err := s.control.BeginBuild(r.Context(), team, template, build, order); err != nil {
			return fmt.Errorf("begin build: %w", err)
		}
		w.WriteHeader(http.StatusAccepted)
		return nil
	})
}

// GetBuildStatus answers GET /templates/{templateID}/builds/{buildID}/status.
func (s *server) GetBuildStatus(w http.ResponseWriter, r *http.Request, template, buildID string, p wire.GetBuildStatusParams) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		if err := checkQuery(r, "logsOffset", "limit", "level"); err != nil {
			return err
		}
		id, err := parseBuildID(buildID)
		if err != nil {
			return err
		}
		offset := 0
		if p.LogsOffset != nil {
			offset = int(*p.LogsOffset)
		}
		if offset < 0 {
			return invalid(`"logsOffset" must not be negative`)
		}
		limit, level, err := parseLines(p.Limit, p.Level)
		if err != nil {
			return err
		}
		f := cove.BuildLineFilter{Offset: offset, Limit: max(1, limit), Level: level}
		build, lines, err := s.control.BuildStatus(r.Context(), team, template, id, f)
		if err != nil {
			return fmt.Errorf("get build status: %w", err)
		}
		return writeJSON(w, http.StatusOK, toBuildInfo(build, lines[:min(limit, len(lines))]))
	})
}

// GetBuildLogs answers GET /templates/{templateID}/builds/{buildID}/logs.
func (s *server) GetBuildLogs(w http.ResponseWriter, r *http.Request, template, buildID string, p wire.GetBuildLogsParams) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		if err := checkQuery(r, "cursor", "limit", "direction", "level", "source"); err != nil {
			return err
		}
		id, err := parseBuildID(buildID)
		if err != nil {
			return err
		}
		page, err := parseBuildPage(p)
		if err != nil {
			return err
		}
		lines, err := page.lines(func(f cove.BuildLineFilter) ([]cove.BuildLine, error) {
			_, lines, err := s.control.BuildStatus(r.Context(), team, template, id, f)
			return lines, err
		})
		if err != nil {
			return fmt.Errorf("get build logs: %w", err)
		}
		return writeJSON(w, http.StatusOK, wire.BuildLogs{Logs: toBuildEntries(lines)})
	})
}

// parseBuildID reads the identifier in a path.
func parseBuildID(raw string) (cove.BuildID, error) {
	id := cove.BuildID(strings.ToLower(raw))
	if !id.Valid() {
		return "", cove.E(cove.Invalid, "api.parseBuildID", nil, "invalid build ID %q: it must be a UUID", clip(raw))
	}
	return id, nil
}

// parseLines checks which lines of a build's log are asked for.
func parseLines(asked *int32, name *wire.LogLevel) (limit int, level cove.LogLevel, err error) {
	limit = maxBuildLines
	if asked != nil {
		limit = int(*asked)
	}
	if limit < 0 || limit > maxBuildLines {
		return 0, 0, invalid(`"limit" must be from 0 to %d`, maxBuildLines)
	}
	level, err = parseLevel(name)
	return limit, level, err
}

// parseBuildPage checks the parameters of a log.
func parseBuildPage(p wire.GetBuildLogsParams) (page buildPage, err error) {
	if page.limit, page.level, err = parseLines(p.Limit, p.Level); err != nil {
		return page, err
	}
	if page.backward, err = parseDirection(p.Direction); err != nil {
		return page, err
	}
	if p.Source != nil && *p.Source != "" && !p.Source.Valid() {
		return page, invalid(`unknown source %q; use "temporary" or "persistent"`, clip(string(*p.Source)))
	}
	return page, parseMoment("cursor", p.Cursor, &page.cursor)
}

// buildPage is what somebody wants to read of a build's log.
type buildPage struct {
	limit    int
	level    cove.LogLevel
	backward bool      // newest first
	cursor   time.Time // forward, lines from then on; backward, lines before then
}

// lines reads the page. The log of a build is bounded and hardly ever read from
// a moment on, so that is looked for from the log's beginning.
func (p buildPage) lines(read func(cove.BuildLineFilter) ([]cove.BuildLine, error)) ([]cove.BuildLine, error) {
	const chunk = 1000
	if p.backward && p.cursor.IsZero() {
		lines, err := read(cove.BuildLineFilter{Limit: max(1, p.limit), Level: p.level, Newest: true})
		return lines[:min(p.limit, len(lines))], err
	}
	var found []cove.BuildLine
	for f := (cove.BuildLineFilter{Limit: chunk, Level: p.level}); ; f.Offset += chunk {
		lines, err := read(f)
		if err != nil {
			return nil, err
		}
		for _, l := range lines {
			if l.At.Before(p.cursor) == p.backward {
				found = append(found, l)
			}
		}
		if len(lines) < chunk || !p.backward && len(found) >= p.limit {
			break
		}
	}
	if p.backward {
		slices.Reverse(found)
	}
	return found[:min(p.limit, len(found))], nil
}

// toBuildInfo says how far a build is.
func toBuildInfo(b cove.Build, lines []cove.BuildLine) wire.BuildInfo {
	info := wire.BuildInfo{
		Logs:       []string{},
		LogEntries: toBuildEntries(lines),
		TemplateID: string(b.Template),
		BuildID:    string(b.ID),
		Status:     wire.BuildStatus(b.Status),
	}
	if b.Status == cove.BuildError {
		info.Reason = &wire.BuildReason{Message: b.Reason, Step: optional(b.ReasonStep)}
	}
	return info
}

func toBuildEntries(lines []cove.BuildLine) []wire.BuildLogEntry {
	entries := make([]wire.BuildLogEntry, 0, len(lines))
	for _, l := range lines {
		entries = append(entries, wire.BuildLogEntry{
			Timestamp: l.At.UTC(), Message: l.Message, Level: wire.LogLevel(l.Level.String()), Step: optional(l.Step),
		})
	}
	return entries
}
