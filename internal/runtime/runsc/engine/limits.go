package engine

import (
	"math"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// limits tells the engine how many processors and how much memory the sandbox
// has. It looks like a cgroup to the engine and changes none: the real ones
// were made and joined by the caller.
type limits struct {
	cpus   int
	memory uint64
}

func (l limits) NumCPU() (int, error)      { return l.cpus, nil }
func (l limits) CPUQuota() (int64, error)  { return -1, nil }
func (l limits) CPUPeriod() (int64, error) { return -1, nil }
func (l limits) CPUUsage() (uint64, error) { return 0, nil }
func (l limits) MemoryLimit() (uint64, error) {
	if l.memory == 0 {
		return math.MaxUint64, nil
	}
	return l.memory, nil
}
func (l limits) Install(*specs.LinuxResources) error { return nil }
func (l limits) Update(*specs.LinuxResources) error  { return nil }
func (l limits) Uninstall() error                    { return nil }
func (l limits) Join() (func(), error)               { return func() {}, nil }
func (l limits) CloneIntoCgroup() (*os.File, error)  { return nil, nil }
func (l limits) MakePath(string) string              { return "" }
