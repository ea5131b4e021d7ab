package guard

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Sysinfo measures through one system call, which is exact and costs
// microseconds. It is for gVisor, where the page cache of the disk is the
// host's; elsewhere "free" would leave out what can be reclaimed.
func Sysinfo() (Sample, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return Sample{}, fmt.Errorf("sysinfo: %w", err)
	}
	unit := uint64(max(info.Unit, 1))
	return Sample{Total: uint64(info.Totalram) * unit, Free: uint64(info.Freeram) * unit, Tasks: int(info.Procs)}, nil
}

// Sleep sleeps in the kernel, on the calling thread.
func Sleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil) // cut short by a signal is as good
}

// Needed reports whether this kernel leaves the guarding to us.
func Needed() bool {
	_, err := os.Stat("/proc/sentry-meminfo")
	return err == nil
}

// names returns the entries of /proc that are processes.
func names(proc string) []string {
	dir, err := os.Open(proc)
	if err != nil {
		return nil
	}
	defer dir.Close()
	all, _ := dir.Readdirnames(-1) // what was read before an error is better than nothing
	out := all[:0]
	for _, name := range all {
		if c := name[0]; '0' <= c && c <= '9' {
			out = append(out, name)
		}
	}
	return out
}

func count(proc string) int { return len(names(proc)) }

// list describes the processes but self and those that have ended. It calls
// meanwhile now and then.
func list(proc string, self int, meanwhile func()) []Process {
	var out []Process
	for i, name := range names(proc) {
		if i%8 == 0 {
			meanwhile()
		}
		pid, err := strconv.Atoi(name)
		if err != nil || pid == self {
			continue
		}
		data, err := read(proc + "/" + name + "/stat")
		if err != nil {
			continue // it has ended
		}
		if p, ok := parseStat(string(data)); ok && p.PID == pid {
			out = append(out, p)
		}
	}
	return out
}

// maxRead bounds what is read of a file of /proc, in bytes.
const maxRead = 4 << 10

// read reads the beginning of a file. Package os would hand the descriptor to
// the poller, which takes longer than the reading.
func read(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, maxRead)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// parseStat reads /proc/<pid>/stat. The name in it may hold anything, also what
// looks like the fields after it; the last bracket is the end. ok is false if
// the process has ended or the text is none of the kernel's.
func parseStat(text string) (p Process, ok bool) {
	open, shut := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || shut < open {
		return p, false
	}
	fields := strings.Fields(text[shut+1:]) // the third of proc(5) is the first here
	if len(fields) < 22 || strings.ContainsAny(fields[0], "ZXx") {
		return p, false
	}
	var pages int64
	for _, f := range []struct {
		text string
		to   func(int64)
	}{
		{strings.TrimSpace(text[:open]), func(n int64) { p.PID = int(n) }},
		{fields[21], func(n int64) { pages = n }},
	} {
		n, err := strconv.ParseInt(f.text, 10, 64)
		if err != nil || n < 0 {
			return p, false
		}
		f.to(n)
	}
	p.Name = text[open+1 : shut]
	p.RSS = uint64(min(pages, 1<<40)) * uint64(os.Getpagesize())
	return p, true
}

// adjustment returns the oom_score_adj of a process, 0 if it cannot be known.
func adjustment(proc string, pid int) int {
	data, err := read(proc + "/" + strconv.Itoa(pid) + "/oom_score_adj")
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(data)))
	if err != nil {
		return 0
	}
	return min(max(n, -1000), 1000)
}

// wrote returns how many bytes a process has written to files, pipes and
// whatever else.
func wrote(proc string, pid int) uint64 {
	data, err := read(proc + "/" + strconv.Itoa(pid) + "/io")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "wchar:"); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(rest), 10, 64)
			return n
		}
	}
	return 0
}
