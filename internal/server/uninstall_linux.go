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
// itself is removed only if purge is set. It fails if the server runs.
func Uninstall(ctx context.Context, log *slog.Logger, dataDir string, purge bool) error {
	dataDir, err := filepath.EvalSymlinks(dataDir)
	if err != nil {
		return fmt.Errorf("the data directory cannot be found: %w", err)
	}
	unlock, err := lock(filepath.Join(dataDir, lockFile))
	if err != nil {
		return err
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
