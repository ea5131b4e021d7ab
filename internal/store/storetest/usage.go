package storetest

import (
	"fmt"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/store"
)

// usage is what sandboxes used and went through.
var usage = map[string]func(*testing.T, store.Store){
	"metrics/round trip, in order, within bounds": metricsRoundTrip,
	"metrics/latest of several sandboxes":         metricsLatest,
	"metrics/thinned step by step":                metricsThin,
	"metrics/thinned into whole steps only":       metricsThinWhole,
	"metrics/dropped by age":                      metricsDrop,
	"logs/round trip in both directions":          logsRoundTrip,
	"logs/filters":                                logsFilters,
	"logs/another team's are none":                logsForeign,
	"logs/only the newest are kept":               logsKeep,
	"logs/dropped by age":                         logsDrop,
}

// midnight is a moment at which steps of all lengths begin.
var midnight = time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)

func metric(id cove.SandboxID, second int, used int64) cove.Metric {
	return cove.Metric{Sandbox: id, At: midnight.Add(time.Duration(second) * time.Second), CPUs: 2, CPUPercent: float64(used) / 2,
		MemoryUsed: used, MemoryTotal: 1 << 40, MemoryCache: used + 1, DiskUsed: used + 2, DiskTotal: 1 << 41}
}

func allMetrics(t *testing.T, s store.Store, id cove.SandboxID) []cove.Metric {
	t.Helper()
	all, err := s.Metrics(t.Context(), id, midnight.Add(-time.Hour), midnight.Add(100*24*time.Hour))
	must(t, err)
	return all
}

func metricsRoundTrip(t *testing.T, s store.Store) {
	late := metric("i1", 10, 3)
	late.At = late.At.Add(7 * time.Microsecond)
	must(t, s.AddMetrics(t.Context(), nil))
	must(t, s.AddMetrics(t.Context(), []cove.Metric{late, metric("i1", 0, 1), metric("i2", 0, 9), metric("i1", 5, 1)}))
	must(t, s.AddMetrics(t.Context(), []cove.Metric{metric("i1", 5, 2)})) // in place of the other
	same(t, "all", allMetrics(t, s, "i1"), []cove.Metric{metric("i1", 0, 1), metric("i1", 5, 2), late})
	got, err := s.Metrics(t.Context(), "i1", midnight.Add(5*time.Second), late.At)
	must(t, err)
	same(t, "both ends included", got, []cove.Metric{metric("i1", 5, 2), late})
	got, err = s.Metrics(t.Context(), "i1", midnight.Add(5*time.Second), late.At.Add(-time.Microsecond))
	must(t, err)
	same(t, "before the last", got, []cove.Metric{metric("i1", 5, 2)})
	same(t, "of nobody", len(allMetrics(t, s, "i3")), 0)
}

func metricsLatest(t *testing.T, s store.Store) {
	must(t, s.AddMetrics(t.Context(), []cove.Metric{
		metric("i1", 5, 20), metric("i1", 0, 50), metric("i2", 0, 3), metric("i3", 0, 4),
	}))
	got, err := s.LatestMetrics(t.Context(), []cove.SandboxID{"i2", "i1", "i9"})
	must(t, err)
	same(t, "latest", got, map[cove.SandboxID]cove.Metric{"i1": metric("i1", 5, 20), "i2": metric("i2", 0, 3)})
	got, err = s.LatestMetrics(t.Context(), nil)
	must(t, err)
	same(t, "of nobody", got, map[cove.SandboxID]cove.Metric{})
}

func metricsThin(t *testing.T, s store.Store) {
	var all []cove.Metric
	for second := 0; second < 120; second += 5 {
		all = append(all, metric("i1", second, int64(1000-second)))
	}
	all = append(all, metric("i2", 0, 7))
	must(t, s.AddMetrics(t.Context(), all))
	for range 2 { // the second time there is nothing to do
		must(t, s.ThinMetrics(t.Context(), midnight.Add(time.Minute), 30*time.Second))
	}
	want := []cove.Metric{metric("i1", 25, 1000), metric("i1", 55, 970)}
	same(t, "thinned in part", allMetrics(t, s, "i1"), append(want, all[12:24]...))
	same(t, "another sandbox's", allMetrics(t, s, "i2"), []cove.Metric{metric("i2", 0, 7)})
	must(t, s.ThinMetrics(t.Context(), midnight.Add(time.Hour), 30*time.Second))
	must(t, s.ThinMetrics(t.Context(), midnight.Add(time.Hour), time.Minute))
	want = []cove.Metric{metric("i1", 55, 1000), metric("i1", 115, 940)}
	same(t, "thinned again", allMetrics(t, s, "i1"), want)
	must(t, s.ThinMetrics(t.Context(), midnight.Add(time.Hour), 30*time.Second))
	same(t, "a shorter step changes nothing", allMetrics(t, s, "i1"), want)
}

func metricsThinWhole(t *testing.T, s store.Store) {
	all := []cove.Metric{metric("i1", 31, 1), metric("i1", 36, 2)}
	must(t, s.AddMetrics(t.Context(), all))
	must(t, s.ThinMetrics(t.Context(), midnight.Add(59*time.Second), 30*time.Second))
	same(t, "of a step that is not over", allMetrics(t, s, "i1"), all)
}

func metricsDrop(t *testing.T, s store.Store) {
	must(t, s.AddMetrics(t.Context(), []cove.Metric{metric("i1", 0, 1), metric("i1", 5, 2), metric("i1", 60, 3), metric("i2", 59, 3)}))
	must(t, s.ThinMetrics(t.Context(), midnight.Add(30*time.Second), 30*time.Second))
	must(t, s.DropMetrics(t.Context(), midnight.Add(5*time.Second)))
	same(t, "what is left", allMetrics(t, s, "i1"), []cove.Metric{metric("i1", 5, 2), metric("i1", 60, 3)})
	must(t, s.DropMetrics(t.Context(), midnight.Add(time.Minute)))
	same(t, "what is left", allMetrics(t, s, "i1"), []cove.Metric{metric("i1", 60, 3)})
	same(t, "another sandbox's", len(allMetrics(t, s, "i2")), 0)
}

func line(second int, level cove.LogLevel, message string) cove.LogLine {
	return cove.LogLine{Team: team, Sandbox: "i1", At: midnight.Add(time.Duration(second) * time.Second), Level: level,
		Logger: "cove", Message: message, Fields: map[string]string{"ü": "\""}}
}

// messages returns what the lines say, one word each.
func messages(t *testing.T, s store.Store, by cove.TeamID, f cove.LogFilter) string {
	t.Helper()
	lines, err := s.Logs(t.Context(), by, "i1", f)
	must(t, err)
	var all string
	for _, l := range lines {
		all += l.Message + " "
	}
	return all
}

func logsRoundTrip(t *testing.T, s store.Store) {
	bare := line(1, cove.LogError, "bare")
	bare.Fields = nil
	must(t, s.AddLogs(t.Context(), nil, 10))
	must(t, s.AddLogs(t.Context(), []cove.LogLine{line(1, cove.LogInfo, "b"), bare, line(0, cove.LogDebug, "a")}, 10))
	must(t, s.AddLogs(t.Context(), []cove.LogLine{line(2, cove.LogWarn, "c")}, 10))
	bare.Fields = map[string]string{}
	got, err := s.Logs(t.Context(), team, "i1", cove.LogFilter{Limit: 10})
	must(t, err)
	want := []cove.LogLine{line(0, cove.LogDebug, "a"), line(1, cove.LogInfo, "b"), bare, line(2, cove.LogWarn, "c")}
	same(t, "forward", got, want)
	got, err = s.Logs(t.Context(), team, "i1", cove.LogFilter{Limit: 3, Backward: true})
	must(t, err)
	same(t, "backward", got, []cove.LogLine{want[3], want[2], want[1]})
}

func logsFilters(t *testing.T, s store.Store) {
	must(t, s.AddLogs(t.Context(), []cove.LogLine{
		line(0, cove.LogInfo, "Zero"), line(1, cove.LogDebug, "ÜBER"), line(2, cove.LogError, "two%"), line(3, cove.LogWarn, "three"),
	}, 10))
	at := func(second int) time.Time { return midnight.Add(time.Duration(second) * time.Second) }
	for name, c := range map[string]struct {
		filter cove.LogFilter
		want   string
	}{
		"limit":                {cove.LogFilter{Limit: 2}, "Zero ÜBER "},
		"nothing":              {cove.LogFilter{Limit: 0}, ""},
		"from":                 {cove.LogFilter{Limit: 9, From: at(2)}, "two% three "},
		"to, exclusive":        {cove.LogFilter{Limit: 9, To: at(2)}, "Zero ÜBER "},
		"the newest before":    {cove.LogFilter{Limit: 1, To: at(2), Backward: true}, "ÜBER "},
		"level":                {cove.LogFilter{Limit: 9, Level: cove.LogWarn}, "two% three "},
		"search":               {cove.LogFilter{Limit: 9, Search: "THREE"}, "three "},
		"search beyond ASCII":  {cove.LogFilter{Limit: 9, Search: "über"}, "ÜBER "},
		"search of a wildcard": {cove.LogFilter{Limit: 9, Search: "%"}, "two% "},
		"limit of what fits":   {cove.LogFilter{Limit: 2, Search: "e"}, "Zero ÜBER "},
		"no such text":         {cove.LogFilter{Limit: 9, Search: "' OR 1=1 --"}, ""},
	} {
		same(t, name, messages(t, s, team, c.filter), c.want)
	}
}

func logsForeign(t *testing.T, s store.Store) {
	must(t, s.AddLogs(t.Context(), []cove.LogLine{line(0, cove.LogInfo, "a")}, 10))
	same(t, "the rival's", messages(t, s, rival, cove.LogFilter{Limit: 9}), "")
	same(t, "the owner's", messages(t, s, team, cove.LogFilter{Limit: 9}), "a ")
}

func logsKeep(t *testing.T, s store.Store) {
	other := line(0, cove.LogInfo, "other")
	other.Sandbox = "i2"
	must(t, s.AddLogs(t.Context(), []cove.LogLine{other}, 3))
	for n := range 5 {
		must(t, s.AddLogs(t.Context(), []cove.LogLine{line(n/2, cove.LogInfo, fmt.Sprint(n))}, 3))
	}
	same(t, "the newest", messages(t, s, team, cove.LogFilter{Limit: 9}), "2 3 4 ")
	left, err := s.Logs(t.Context(), team, "i2", cove.LogFilter{Limit: 9})
	must(t, err)
	same(t, "another sandbox's", left, []cove.LogLine{other})
}

func logsDrop(t *testing.T, s store.Store) {
	must(t, s.AddLogs(t.Context(), []cove.LogLine{line(0, cove.LogInfo, "a"), line(1, cove.LogInfo, "b")}, 10))
	must(t, s.DropLogs(t.Context(), midnight.Add(time.Second)))
	same(t, "what is left", messages(t, s, team, cove.LogFilter{Limit: 9}), "b ")
}
