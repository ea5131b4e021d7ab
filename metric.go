package cove

import "time"

// Metric is what a sandbox used at one moment. Sizes are in bytes.
type Metric struct {
	Sandbox     SandboxID
	At          time.Time // microsecond precision, UTC
	CPUs        int
	CPUPercent  float64 // how busy all of them together were since the metric before, from 0 to 100
	MemoryUsed  int64   // by the processes inside, and their files in memory
	MemoryTotal int64
	MemoryCache int64 // pages of its files on disk that the host keeps in memory
	DiskUsed    int64 // of its writable layer
	DiskTotal   int64
}

// Max returns a metric of m's moment with the larger of every figure: what two
// moments were at most.
func (m Metric) Max(o Metric) Metric {
	m.CPUs = max(m.CPUs, o.CPUs)
	m.CPUPercent = max(m.CPUPercent, o.CPUPercent)
	m.MemoryUsed, m.MemoryTotal = max(m.MemoryUsed, o.MemoryUsed), max(m.MemoryTotal, o.MemoryTotal)
	m.MemoryCache = max(m.MemoryCache, o.MemoryCache)
	m.DiskUsed, m.DiskTotal = max(m.DiskUsed, o.DiskUsed), max(m.DiskTotal, o.DiskTotal)
	return m
}
