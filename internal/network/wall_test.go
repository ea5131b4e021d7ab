package network_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cove-sandbox/cove/internal/network"
)

// flush is what nft flush ruleset does.
func flush() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	conn.FlushRuleset()
	return conn.Flush()
}

// rulesOf lists the rules of a chain in a namespace ("" is the host); none if
// there is no such chain.
func rulesOf(t *testing.T, ns, table, chain string) (rules []*nftables.Rule) {
	t.Helper()
	list := func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		of := &nftables.Table{Name: table, Family: nftables.TableFamilyINet}
		rules, _ = conn.GetRules(of, &nftables.Chain{Name: chain, Table: of})
		return nil
	}
	if ns != "" {
		in(t, ns, list)
	} else if err := list(); err != nil {
		t.Fatal(err)
	}
	return rules
}

// denied reports whether a prefix is on a table's list of what sandboxes do not
// reach.
func denied(t *testing.T, ns, table, prefix string) bool {
	t.Helper()
	want := fmt.Sprintf("Data:%v", netip.MustParsePrefix(prefix).Addr().AsSlice())
	for _, r := range rulesOf(t, ns, table, "denied") {
		for _, e := range r.Exprs {
			if strings.Contains(fmt.Sprintf("%+v", e), want) {
				return true
			}
		}
	}
	return false
}

// logbook keeps what is logged.
type logbook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// The slot's own rules hold when nobody is there to put the host's back.
func TestSlotsStayClosedWithoutTheHostsRules(t *testing.T) {
	inet := world(t)
	p, stop := start(t, config(t))
	s, other := acquire(t, p, network.Policy{Internet: true}), acquire(t, p, network.Policy{Internet: true})
	sandbox, otherBox := box(t, s), box(t, other)
	echo(t, "", ":8080")
	echo(t, inet, ":8080")
	echo(t, otherBox, ":8080")
	reach(t, sandbox, internet+":8080")
	stop()
	if err := flush(); err != nil {
		t.Fatal(err)
	}
	// The way back, for want of the host's translation.
	in(t, inet, func() error {
		return netlink.RouteAdd(&netlink.Route{
			Dst: &net.IPNet{IP: net.IPv4(10, 213, 0, 0), Mask: net.CIDRMask(16, 32)}, Gw: net.ParseIP(hostAddr),
		})
	})
	reach(t, sandbox, internet+":8080")
	wantUnreachable(t,
		attempt{"the host", sandbox, hostAddr + ":8080"},
		attempt{"the host's end of the slot", sandbox, s.Address.Prev().String() + ":8080"},
		attempt{"the host's neighbour", sandbox, neighbour + ":8080"},
		attempt{"a private network", sandbox, privateNet + ":8080"},
		attempt{"the metadata service", sandbox, metadata + ":8080"},
		attempt{"another slot", sandbox, other.Address.String() + ":8080"},
		attempt{"another slot's host end", sandbox, other.Address.Prev().String() + ":8080"},
	)
}

func TestTheHostsRulesAreReinstalled(t *testing.T) {
	inet := world(t)
	cfg := config(t)
	var log logbook
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	p, _ := start(t, cfg, func(p *network.Pool) { p.RetryAfter(50 * time.Millisecond) })
	sandbox := box(t, acquire(t, p, network.Policy{Internet: true}))
	echo(t, inet, internet+":80")
	whole := len(rulesOf(t, "", "cove-test", "from-slots"))
	if whole == 0 || strings.Contains(log.String(), "put back") {
		t.Fatalf("%d rules, log: %s", whole, log.String())
	}
	restored := func() bool {
		return len(rulesOf(t, "", "cove-test", "from-slots")) == whole && strings.Contains(log.String(), "level=WARN")
	}
	if err := flush(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the flushed rules are put back", restored)
	reach(t, sandbox, internet+":80")

	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := &nftables.Table{Name: "cove-test", Family: nftables.TableFamilyINet}
	conn.FlushChain(&nftables.Chain{Name: "from-slots", Table: table})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the chain is filled again", restored)
}

func TestTheHostsNewNetworksAreDenied(t *testing.T) {
	world(t)
	p, _ := start(t, config(t))
	s := acquire(t, p, network.Policy{})
	for _, where := range []struct{ ns, table string }{{"", "cove-test"}, {s.NetNS, "slot"}} {
		if !denied(t, where.ns, where.table, "198.51.100.0/24") || denied(t, where.ns, where.table, "192.88.99.0/24") {
			t.Errorf("the host's networks are not what table %s denies", where.table)
		}
	}
	link, err := netlink.LinkByName("wan0")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr("192.88.99.1/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new network is denied", func() bool { return denied(t, "", "cove-test", "192.88.99.0/24") })
	eventually(t, "the new network is denied in the slot", func() bool { return denied(t, s.NetNS, "slot", "192.88.99.0/24") })
}

// What keeps a refresh from working may go away without a word.
func TestAFailedRefreshIsTriedAgain(t *testing.T) {
	world(t)
	cfg := config(t)
	var log logbook
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	start(t, cfg, func(p *network.Pool) { p.RetryAfter(50 * time.Millisecond) })

	const setting = "/proc/sys/net/ipv4/conf/wan0/forwarding"
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.WriteFile(closed, []byte("0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(closed, setting, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	mounted := true
	t.Cleanup(func() {
		if mounted {
			unix.Unmount(setting, unix.MNT_DETACH)
		}
	})
	if err := unix.Mount("", setting, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := flush(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a failure", func() bool { return strings.Contains(log.String(), "will be tried again") })
	if got := tables(t); len(got) != 0 {
		t.Fatalf("there are tables already: %v", got)
	}
	if err := unix.Unmount(setting, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	mounted = false
	eventually(t, "another try", func() bool { return len(tables(t)) == 1 })
}

// Forwarding is on for the uplink, but not for the host's neighbours.
func TestTheHostIsNoRouterForItsNeighbours(t *testing.T) {
	inet := world(t)
	lan := space(t)
	f, err := os.Open(lan)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	link := netlink.NewVeth(netlink.LinkAttrs{Name: "lan0", TxQLen: -1})
	link.PeerName, link.PeerNamespace = "inner", netlink.NsFd(f.Fd())
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(link); err != nil {
			t.Error(err)
		}
	})
	if err := configure("lan0", "", "192.0.2.1/24"); err != nil {
		t.Fatal(err)
	}
	in(t, lan, func() error { return configure("inner", "192.0.2.1", "192.0.2.2/24") })
	in(t, inet, func() error {
		return netlink.RouteAdd(&netlink.Route{
			Dst: &net.IPNet{IP: net.IPv4(192, 0, 2, 0), Mask: net.CIDRMask(24, 32)}, Gw: net.ParseIP(hostAddr),
		})
	})
	p, _ := start(t, config(t))
	echo(t, inet, internet+":80")
	reach(t, box(t, acquire(t, p, network.Policy{Internet: true})), internet+":80")

	var server net.PacketConn
	in(t, lan, func() (err error) { server, err = net.ListenPacket("udp4", ":9"); return err })
	defer server.Close()
	arrives := func(within time.Duration) bool {
		c, err := dial(inet, "udp4", "192.0.2.2:9", bound)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		server.SetReadDeadline(time.Now().Add(within))
		_, _, err = server.ReadFrom(make([]byte, 10))
		return err == nil
	}
	if arrives(refusal) {
		t.Error("the host forwards what its neighbours send")
	}
	// Unless somebody wants it to.
	t.Cleanup(func() { os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0) })
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the router routes", func() bool { return arrives(50 * time.Millisecond) })
}

// Random addresses are replaced by udev while the link is in use.
func TestUplinksHaveAddressesOfTheirOwn(t *testing.T) {
	p, _ := start(t, config(t))
	seen := map[string]bool{}
	for range 2 {
		s := acquire(t, p, network.Policy{})
		hostLink, err := netlink.LinkByName(fmt.Sprint("cove", s.Index))
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("c0:7e:00:00:%02x", s.Index)
		if got := hostLink.Attrs().HardwareAddr.String(); got != "06:"+want {
			t.Errorf("slot %d has %s on the host", s.Index, got)
		}
		seen[hostLink.Attrs().HardwareAddr.String()] = true
		in(t, s.NetNS, func() error {
			link, err := netlink.LinkByName("uplink")
			if err == nil {
				seen[link.Attrs().HardwareAddr.String()] = true
				if got := link.Attrs().HardwareAddr.String(); got != "0a:"+want {
					t.Errorf("slot %d has %s inside", s.Index, got)
				}
			}
			return err
		})
	}
	if len(seen) != 4 {
		t.Errorf("of four addresses there are %v", seen)
	}
}
