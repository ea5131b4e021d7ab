package server

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// checkHost says in one sentence what keeps this process from running
// sandboxes.
func checkHost(cfg Config) error {
	if os.Geteuid() != 0 {
		return errors.New("cove serve needs root: it makes network namespaces and cgroups for sandboxes")
	}
	for _, program := range []string{cfg.Engine, cfg.Envd} {
		if info, err := os.Stat(program); err != nil || info.Mode()&0o111 == 0 {
			return fmt.Errorf("%s is missing or cannot be run: run \"make build\" or reinstall cove", program)
		}
	}
	return nil
}

// lock takes the data directory for this process, which gives it back when it
// ends, however it ends.
func lock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the data directory cannot be locked: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.New("another cove serve uses this data directory: stop it first, or choose another with --data-dir")
		}
		return nil, fmt.Errorf("the data directory cannot be locked: %w", err)
	}
	return f.Close, nil
}

// takeInOrphans makes this process the parent of engines whose launcher has
// left, so that it can reap them; else they would wait, as zombies, for an init
// that may not care.
func takeInOrphans() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming the parent of orphans: %w", err)
	}
	return nil
}
