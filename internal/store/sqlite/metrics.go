package sqlite

import (
	"context"
	"database/sql"
	"time"

	cove "github.com/cove-sandbox/cove"
)

const metricColumns = `sandbox_id, at, cpus, cpu_percent, memory_used, memory_total, memory_cache, disk_used, disk_total`

func scanMetric(row scanner) (cove.Metric, error) {
	var m cove.Metric
	var at int64
	err := row.Scan(&m.Sandbox, &at, &m.CPUs, &m.CPUPercent, &m.MemoryUsed, &m.MemoryTotal, &m.MemoryCache, &m.DiskUsed, &m.DiskTotal)
	m.At = fromMicros(at)
	return m, err
}

// AddMetrics implements store.Metrics.
func (s *Store) AddMetrics(ctx context.Context, metrics []cove.Metric) error {
	if len(metrics) == 0 {
		return nil
	}
	return s.tx(ctx, "sqlite.AddMetrics", func(tx *sql.Tx) error {
		add, err := tx.PrepareContext(ctx, `INSERT OR REPLACE INTO metrics (step, `+metricColumns+`) VALUES (0, `+marks(9)+`)`)
		if err != nil {
			return err
		}
		defer add.Close()
		for _, m := range metrics {
			_, err := add.ExecContext(ctx, m.Sandbox, micros(m.At), m.CPUs, m.CPUPercent,
				m.MemoryUsed, m.MemoryTotal, m.MemoryCache, m.DiskUsed, m.DiskTotal)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Metrics implements store.Metrics.
func (s *Store) Metrics(ctx context.Context, id cove.SandboxID, from, to time.Time) ([]cove.Metric, error) {
	const op = "sqlite.Metrics"
	rows, err := s.read.QueryContext(ctx, `SELECT `+metricColumns+` FROM metrics WHERE sandbox_id = ? AND at BETWEEN ? AND ? ORDER BY at`,
		id, micros(from), micros(to))
	if err != nil {
		return nil, convert(op, err)
	}
	return collect(op, rows, scanMetric)
}

// LatestMetrics implements store.Metrics.
func (s *Store) LatestMetrics(ctx context.Context, ids []cove.SandboxID) (map[cove.SandboxID]cove.Metric, error) {
	const op = "sqlite.LatestMetrics"
	latest := map[cove.SandboxID]cove.Metric{}
	if len(ids) == 0 {
		return latest, nil
	}
	args := make([]any, 0, len(ids))
	for _, id := range ids {
		args = append(args, id)
	}
	// With a lone max, SQLite takes the other columns from the row that has it.
	rows, err := s.read.QueryContext(ctx, `SELECT sandbox_id, max(at), cpus, cpu_percent, memory_used, memory_total, memory_cache, disk_used, disk_total
		FROM metrics WHERE sandbox_id IN (`+marks(len(ids))+`) GROUP BY sandbox_id`, args...)
	if err != nil {
		return nil, convert(op, err)
	}
	all, err := collect(op, rows, scanMetric)
	for _, m := range all {
		latest[m.Sandbox] = m
	}
	return latest, err
}

// ThinMetrics implements store.Metrics.
func (s *Store) ThinMetrics(ctx context.Context, before time.Time, step time.Duration) error {
	return s.tx(ctx, "sqlite.ThinMetrics", func(tx *sql.Tx) error {
		// Whole steps only: what is one metric now gets no more.
		width := step.Microseconds()
		end := micros(before) / width * width
		_, err := tx.ExecContext(ctx, `INSERT INTO metrics (step, `+metricColumns+`)
			SELECT ?1, sandbox_id, max(at), max(cpus), max(cpu_percent), max(memory_used), max(memory_total), max(memory_cache),
				max(disk_used), max(disk_total)
			FROM metrics WHERE step < ?1 AND at < ?2 GROUP BY sandbox_id, at / ?1
			ON CONFLICT DO UPDATE SET step = excluded.step, cpus = excluded.cpus, cpu_percent = excluded.cpu_percent,
				memory_used = excluded.memory_used, memory_total = excluded.memory_total, memory_cache = excluded.memory_cache,
				disk_used = excluded.disk_used, disk_total = excluded.disk_total`, width, end)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM metrics WHERE step < ? AND at < ?`, width, end)
		return err
	})
}

// DropMetrics implements store.Metrics.
func (s *Store) DropMetrics(ctx context.Context, before time.Time) error {
	// One range per step, so that the index finds them.
	_, err := s.write.ExecContext(ctx, `DELETE FROM metrics WHERE step IN (SELECT DISTINCT step FROM metrics) AND at < ?`, micros(before))
	return convert("sqlite.DropMetrics", err)
}
