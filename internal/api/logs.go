package api

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"time"
	"unicode/utf8"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// Limits of what a log is asked for.
const (
	maxLogPage = 1000 // lines, and the usual number
	maxSearch  = 256  // letters
)

// GetSandboxLogs answers GET /sandboxes/{sandboxID}/logs.
func (s *server) GetSandboxLogs(w http.ResponseWriter, r *http.Request, sandboxID string, params wire.GetSandboxLogsParams) {
	s.forSandbox(w, r, sandboxID, func(team cove.TeamID, id cove.SandboxID) error {
		if err := checkQuery(r, "start", "limit"); err != nil {
			return err
		}
		f := cove.LogFilter{Limit: maxLogPage}
		if err := parseLimit(params.Limit, &f); err != nil {
			return err
		}
		if err := parseMoment("start", params.Start, &f.From); err != nil {
			return err
		}
		lines, err := s.control.SandboxLogs(r.Context(), team, id, f)
		if err != nil {
			return fmt.Errorf("get logs: %w", err)
		}
		body := wire.SandboxLogs{Logs: make([]wire.Log, 0, len(lines)), LogEntries: toEntries(lines)}
		for _, l := range lines {
			text, err := toText(l)
			if err != nil {
				return fmt.Errorf("get logs: %w", err)
			}
			body.Logs = append(body.Logs, wire.Log{Timestamp: l.At.UTC(), Line: text})
		}
		return writeJSON(w, http.StatusOK, body)
	})
}

// GetSandboxLogsV2 answers GET /v2/sandboxes/{sandboxID}/logs.
func (s *server) GetSandboxLogsV2(w http.ResponseWriter, r *http.Request, sandboxID string, params wire.GetSandboxLogsV2Params) {
	s.forSandbox(w, r, sandboxID, func(team cove.TeamID, id cove.SandboxID) error {
		if err := checkQuery(r, "cursor", "limit", "direction", "level", "search"); err != nil {
			return err
		}
		f, err := parseLogFilter(params)
		if err != nil {
			return err
		}
		lines, err := s.control.SandboxLogs(r.Context(), team, id, f)
		if err != nil {
			return fmt.Errorf("get logs: %w", err)
		}
		return writeJSON(w, http.StatusOK, wire.SandboxLogsV2{Logs: toEntries(lines)})
	})
}

// parseLogFilter checks the parameters of a log and says them in words of the
// domain.
func parseLogFilter(p wire.GetSandboxLogsV2Params) (cove.LogFilter, error) {
	f := cove.LogFilter{Limit: maxLogPage}
	var err error
	if f.Backward, err = parseDirection(p.Direction); err != nil {
		return f, err
	}
	if f.Level, err = parseLevel(p.Level); err != nil {
		return f, err
	}
	if p.Search != nil {
		if utf8.RuneCountInString(*p.Search) > maxSearch {
			return f, invalid(`"search" may have at most %d letters`, maxSearch)
		}
		f.Search = *p.Search
	}
	if err := parseLimit(p.Limit, &f); err != nil {
		return f, err
	}
	bound := &f.From
	if f.Backward {
		bound = &f.To
	}
	return f, parseMoment("cursor", p.Cursor, bound)
}

func parseDirection(direction *wire.LogDirection) (backward bool, err error) {
	if direction == nil || *direction == "" {
		return false, nil
	}
	if !direction.Valid() {
		return false, invalid(`unknown direction %q; use "forward" or "backward"`, clip(string(*direction)))
	}
	return *direction == wire.Backward, nil
}

// parseLevel returns the least level of lines that are asked for.
func parseLevel(name *wire.LogLevel) (cove.LogLevel, error) {
	if name == nil || *name == "" {
		return cove.LogDebug, nil
	}
	level, ok := cove.ParseLogLevel(string(*name))
	if !ok {
		return level, invalid(`unknown level %q; use "debug", "info", "warn" or "error"`, clip(string(*name)))
	}
	return level, nil
}

func parseLimit(limit *int32, f *cove.LogFilter) error {
	if limit == nil {
		return nil
	}
	if *limit < 0 || *limit > maxLogPage {
		return cove.E(cove.Invalid, "api.parseLimit", nil, `"limit" must be from 0 to %d`, maxLogPage)
	}
	f.Limit = int(*limit)
	return nil
}

// parseMoment reads a moment in milliseconds.
func parseMoment(name string, ms *int64, at *time.Time) error {
	if ms == nil {
		return nil
	}
	if *ms < 0 || *ms > maxSeconds*1000 {
		return cove.E(cove.Invalid, "api.parseMoment", nil, `%q must be milliseconds since 1970`, name)
	}
	*at = time.UnixMilli(*ms)
	return nil
}

func toEntries(lines []cove.LogLine) []wire.LogEntry {
	entries := make([]wire.LogEntry, 0, len(lines))
	for _, l := range lines {
		fields := wire.Strings{}
		maps.Copy(fields, l.Fields)
		fields["logger"] = l.Logger
		entries = append(entries, wire.LogEntry{
			Timestamp: l.At.UTC(), Message: l.Message, Level: wire.LogLevel(l.Level.String()), Fields: fields,
		})
	}
	return entries
}

// toText says a line as older clients parse it.
func toText(l cove.LogLine) (string, error) {
	all := map[string]string{}
	maps.Copy(all, l.Fields)
	all["level"], all["logger"], all["message"] = l.Level.String(), l.Logger, l.Message
	all["timestamp"] = l.At.UTC().Format(time.RFC3339Nano)
	text, err := json.Marshal(all)
	return string(text), err
}
