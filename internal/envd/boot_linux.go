package envd

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Boot is what a sandbox's files are made of before anything runs in it.
type Boot struct {
	Etc        string // where hosts, hostname and resolv.conf go; empty: /etc
	Run        string // where the marker files go; empty: /run/e2b
	Hostname   string
	Nameserver string            // an address; empty: resolv.conf stays as it is
	Env        map[string]string // what the marker files say
}

// Prepare writes the files. They replace what the image holds: an image cannot
// know the name and the network of the sandbox it becomes.
func (b Boot) Prepare() error {
	defaultTo(&b.Etc, "/etc")
	if err := os.MkdirAll(b.Etc, 0o755); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	if b.Hostname != "" {
		hosts += "127.0.1.1\t" + b.Hostname + "\n"
	}
	files := map[string]string{"hosts": hosts, "hostname": b.Hostname + "\n"}
	if b.Nameserver != "" {
		addr, err := netip.ParseAddr(b.Nameserver)
		if err != nil {
			return fmt.Errorf("prepare: nameserver: %w", err)
		}
		files["resolv.conf"] = "nameserver " + addr.String() + "\n"
	}
	for name, content := range files {
		if err := replace(filepath.Join(b.Etc, name), content); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	return b.Mark(b.Env)
}

// Mark writes the marker files by which programs tell that, and in which,
// sandbox they run.
func (b Boot) Mark(env map[string]string) error {
	defaultTo(&b.Run, "/run/e2b")
	if err := os.MkdirAll(b.Run, 0o755); err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	for _, name := range []string{envSandbox, envSandboxID, envTemplateID} {
		if value, ok := env[name]; ok {
			if err := replace(filepath.Join(b.Run, "."+name), value); err != nil {
				return fmt.Errorf("mark: %w", err)
			}
		}
	}
	return nil
}

// replace writes a file where there may be a link: to write through one would
// change something else, or nothing at all if it leads nowhere.
func replace(path, content string) error {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		// A mount cannot be removed, but can be written.
		if err := os.Remove(path); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// protect makes the daemon the last to go when memory ends, and reports whether
// the kernel agreed. Niceness is left alone: it belongs to threads, of which Go
// starts its own, and gVisor's scheduler does not look at it.
func protect() bool {
	return os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0o644) == nil
}

// setClock sets the sandbox's clock.
func setClock(now time.Time) error {
	tv := unix.NsecToTimeval(now.UnixNano())
	return unix.Settimeofday(&tv)
}

// limitSharedMemory lets /dev/shm take half of the memory, as it is elsewhere.
// gVisor allows it half of the host's, and files in memory belong to nobody who
// could be ended when they are too many.
func limitSharedMemory(total uint64) error {
	options := fmt.Sprintf("mode=1777,size=%dk", total>>11)
	err := unix.Mount("shm", "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options)
	if err != nil && !errors.Is(err, unix.ENOENT) { // an image need not have one
		return fmt.Errorf("limit shared memory: %w", err)
	}
	return nil
}
