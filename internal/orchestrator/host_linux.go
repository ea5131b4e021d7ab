package orchestrator

import (
	"bufio"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// cpuFeatures returns what the host's processors can do, in the kernel's words
// and in order. Programs inside ask once and remember: a snapshot goes on only
// where all of it is there.
func cpuFeatures() ([]string, error) {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if name = strings.TrimSpace(name); name == "flags" || name == "Features" {
			features := strings.Fields(value)
			slices.Sort(features)
			return features, nil
		}
	}
	return nil, lines.Err()
}

// allocated returns how many bytes of disk a file takes.
func allocated(path string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, err
	}
	return st.Blocks * 512, nil
}

// freeBytes returns the room that is left on the disk of a directory.
func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}
