package api

import (
	"fmt"
	"net/http"
	"time"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// maxSandboxIDs is how many sandboxes may be asked about at once.
const maxSandboxIDs = 100

// maxSeconds is the last second of the year 9999. Later ones are milliseconds
// that were taken for seconds.
const maxSeconds = 253402300799

// GetSandboxMetrics answers GET /sandboxes/{sandboxID}/metrics.
func (s *server) GetSandboxMetrics(w http.ResponseWriter, r *http.Request, sandboxID string, params wire.GetSandboxMetricsParams) {
	s.forSandbox(w, r, sandboxID, func(team cove.TeamID, id cove.SandboxID) error {
		if err := checkQuery(r, "start", "end"); err != nil {
			return err
		}
		from, to, err := parseSpan(params.Start, params.End)
		if err != nil {
			return err
		}
		metrics, err := s.control.SandboxMetrics(r.Context(), team, id, from, to)
		if err != nil {
			return fmt.Errorf("get metrics: %w", err)
		}
		list := make([]wire.SandboxMetric, 0, len(metrics))
		for _, m := range metrics {
			list = append(list, toMetric(m))
		}
		return writeJSON(w, http.StatusOK, list)
	})
}

// parseSpan reads a span of time in seconds. All of its last second is in it.
func parseSpan(start, end *int64) (from, to time.Time, err error) {
	const op = "api.parseSpan"
	first, last := int64(0), int64(maxSeconds)
	if start != nil {
		first = *start
	}
	if end != nil {
		last = *end
	}
	switch {
	case first < 0 || last < 0:
		err = cove.E(cove.Invalid, op, nil, `"start" and "end" must not be negative`)
	case first > maxSeconds || last > maxSeconds:
		err = cove.E(cove.Invalid, op, nil, `"start" and "end" are seconds since 1970, not milliseconds`)
	case first > last:
		err = cove.E(cove.Invalid, op, nil, `"start" must not be after "end"`)
	}
	return time.Unix(first, 0), time.Unix(last+1, 0).Add(-time.Microsecond), err
}

// GetLatestMetrics answers GET /sandboxes/metrics.
func (s *server) GetLatestMetrics(w http.ResponseWriter, r *http.Request, params wire.GetLatestMetricsParams) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		if err := checkQuery(r, "sandbox_ids"); err != nil {
			return err
		}
		if n := len(params.SandboxIds); n > maxSandboxIDs {
			return cove.E(cove.Invalid, "api.GetLatestMetrics", nil, `"sandbox_ids" has %d sandboxes; %d are allowed`, n, maxSandboxIDs)
		}
		var ids []cove.SandboxID
		for _, raw := range params.SandboxIds {
			if id, err := parseSandboxID(raw); err == nil { // one that cannot be is one that is not
				ids = append(ids, id)
			}
		}
		latest, err := s.control.LatestMetrics(r.Context(), team, ids)
		if err != nil {
			return fmt.Errorf("get latest metrics: %w", err)
		}
		body := wire.LatestMetrics{Sandboxes: make(map[string]wire.SandboxMetric, len(latest))}
		for id, m := range latest {
			body.Sandboxes[string(id)] = toMetric(m)
		}
		return writeJSON(w, http.StatusOK, body)
	})
}

func toMetric(m cove.Metric) wire.SandboxMetric {
	return wire.SandboxMetric{
		Timestamp: m.At.UTC(), TimestampUnix: m.At.Unix(), CpuCount: int32(m.CPUs), CpuUsedPct: m.CPUPercent,
		MemUsed: m.MemoryUsed, MemTotal: m.MemoryTotal, MemCache: m.MemoryCache, DiskUsed: m.DiskUsed, DiskTotal: m.DiskTotal,
	}
}
