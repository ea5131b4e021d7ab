package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// Instances names the servers that have something on this host, running or not:
// claimed slots, links or a table of rules. They are sorted. lockDir is as in
// Config; empty means the default.
func Instances(lockDir string) ([]string, error) {
	if lockDir == "" {
		lockDir = defaultLockDir
	}
	var names []string
	entries, err := os.ReadDir(lockDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing the slots: %w", err)
	}
	for _, entry := range entries {
		if owner, err := os.Readlink(filepath.Join(lockDir, entry.Name())); err == nil {
			names = append(names, owner)
		}
	}
	links, err := list(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing the host's links: %w", err)
	}
	for _, link := range links {
		if strings.HasPrefix(link.Attrs().Name, hostLinkPrefix) {
			names = append(names, strings.TrimPrefix(link.Attrs().Alias, tablePrefix))
		}
	}
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := list(func() ([]*nftables.Table, error) { return conn.ListTablesOfFamily(nftables.TableFamilyINet) })
	if err != nil {
		return nil, notPermitted("network.Instances", fmt.Errorf("listing the host's tables: %w", err))
	}
	for _, t := range tables {
		if name, ours := strings.CutPrefix(t.Name, tablePrefix); ours {
			names = append(names, name)
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !instancePattern.MatchString(name) })
	slices.Sort(names)
	return slices.Compact(names), nil
}

// removeStrayLinks removes the links of this server's slots whose claims are
// gone.
func (p *Pool) removeStrayLinks() error {
	links, err := list(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("listing the host's links: %w", err)
	}
	var errs []error
	for _, link := range links {
		if name := link.Attrs().Name; strings.HasPrefix(name, hostLinkPrefix) && link.Attrs().Alias == p.tableName() {
			errs = append(errs, deleteLink(name))
		}
	}
	return errors.Join(errs...)
}
