package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cove-sandbox/cove/internal/cgroup"
	"github.com/cove-sandbox/cove/internal/network"
)

// Uninstall ends the sandboxes of the server on a data directory and removes
// what it has on the host: cgroups, network, control sockets. The directory
// itself is removed only if purge is set, and may be gone already; its path is
// enough then, if no part of it is a symbolic link. It fails if the server runs.
func Uninstall(ctx context.Context, log *slog.Logger, dataDir string, purge bool) error {
	unlock := func() error { return nil }
	real, err := filepath.EvalSymlinks(dataDir)
	switch {
	case err == nil:
		dataDir = real
		if unlock, err = lock(filepath.Join(dataDir, lockFile)); err != nil {
			return err
		}
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("the data directory cannot be found: %w", err)
	}
	instance := InstanceOf(dataDir)
	err = errors.Join(
		removeGroups(ctx, instance),
		removeNetwork(ctx, log, instance),
		os.RemoveAll(stateDir(instance)),
	)
	if err == nil && purge {
		err = os.RemoveAll(dataDir)
	}
	return errors.Join(err, unlock())
}

// removeGroups kills what is in the server's cgroups and removes them.
func removeGroups(ctx context.Context, instance string) error {
	groups, err := cgroup.New(cgroup.Config{Parent: "cove-" + instance})
	if err != nil {
		return err
	}
	pids, err := groups.Procs(ctx)
	for _, pid := range pids {
		if kerr := unix.Kill(pid, unix.SIGKILL); kerr != nil && !errors.Is(kerr, unix.ESRCH) {
			err = errors.Join(err, kerr)
		}
	}
	return errors.Join(err, groups.RemoveAll(ctx))
}

func removeNetwork(ctx context.Context, log *slog.Logger, instance string) error {
	pool, err := network.New(network.Config{Instance: instance, Log: log})
	if err != nil {
		return err
	}
	return pool.RemoveHost(ctx)
}

// stateDir is where a server's control sockets are.
func stateDir(instance string) string { return filepath.Join("/run/cove", instance) }
