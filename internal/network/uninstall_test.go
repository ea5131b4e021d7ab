package network_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/network"
)

func instances(t *testing.T, lockDir string) []string {
	t.Helper()
	names, err := network.Instances(lockDir)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// What a server left can be found and removed by its name alone.
func TestRemovingAServerThatIsGone(t *testing.T) {
	cfg := config(t)
	cfg.Prefix = netip.MustParsePrefix("10.200.0.0/20")
	used, _ := killedServer(t, cfg.LockDir)
	neighbour := config(t)
	neighbour.Instance, neighbour.LockDir = "neighbour", cfg.LockDir
	q, _ := start(t, neighbour)
	kept := acquire(t, q, network.Policy{})
	if got := instances(t, cfg.LockDir); !cmp.Equal(got, []string{"neighbour", "test"}) {
		t.Errorf("Instances = %v", got)
	}

	// A claim somebody removed leaves a link that only its mark betrays.
	claim := filepath.Join(cfg.LockDir, fmt.Sprint(used))
	if err := os.Remove(claim); err != nil {
		t.Fatal(err)
	}
	if err := network.RemoveNetNS(claim + ".net.gone"); err != nil { // not there: no error
		t.Fatal(err)
	}
	p, err := network.New(network.Config{Instance: "test", LockDir: cfg.LockDir, Log: cfg.Log})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.RemoveHost(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := network.RemoveNetNS(claim + ".net"); err != nil { // nobody can know whose it is
		t.Fatal(err)
	}
	if got := instances(t, cfg.LockDir); !cmp.Equal(got, []string{"neighbour"}) {
		t.Errorf("Instances after RemoveHost = %v", got)
	}
	if got := tables(t); !cmp.Equal(got, []string{"cove-neighbour"}) {
		t.Errorf("tables = %v", got)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if name := link.Attrs().Name; strings.HasPrefix(name, "cove") && name != fmt.Sprint("cove", kept.Index) {
			t.Errorf("%s is left", name)
		}
	}
}

func TestTryLeavesNothing(t *testing.T) {
	world(t)
	cfg := config(t)
	const setting = "/proc/sys/net/ipv4/conf/wan0/forwarding"
	before := survey(t, cfg.LockDir)
	for range 2 {
		if err := network.Try(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	after := survey(t, cfg.LockDir)
	before.Files, after.Files = 0, 0
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	if got := tables(t); len(got) != 0 {
		t.Errorf("tables = %v", got)
	}
	if _, err := os.Stat(cfg.LockDir); !os.IsNotExist(err) {
		t.Errorf("the lock directory: %v", err)
	}
	if text, err := os.ReadFile(setting); err != nil || strings.TrimSpace(string(text)) != "0" {
		t.Errorf("forwarding is %q, %v", text, err)
	}
	cfg.Prefix = netip.MustParsePrefix("198.51.100.0/24")
	if err := network.Try(t.Context(), cfg); !cove.Is(err, cove.Invalid) {
		t.Errorf("on the host's own addresses: %v", err)
	}
	if got := tables(t); slices.Contains(got, "cove-test") {
		t.Errorf("tables after a failure = %v", got)
	}
}
