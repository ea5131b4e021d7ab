package network_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/network"
)

// leftovers describes what slots consist of, and what a process may leak.
type leftovers struct {
	Links, Mounts, Claims []string
	Files                 int
}

func survey(t *testing.T, lockDir string) leftovers {
	t.Helper()
	var l leftovers
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		l.Links = append(l.Links, link.Attrs().Name)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.HasPrefix(line, "nsfs "+lockDir+"/") { // others of this machine come and go
			l.Mounts = append(l.Mounts, line)
		}
	}
	l.Claims = entries(t, lockDir)
	l.Files = len(entries(t, "/proc/self/fd"))
	return l
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func tables(t *testing.T) []string {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	list, err := conn.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, table := range list {
		names = append(names, table.Name)
	}
	return names
}

func TestNothingIsLeft(t *testing.T) {
	cfg := config(t)
	goroutines := runtime.NumGoroutine()
	p, stop := start(t, cfg)
	if err := p.Release(t.Context(), acquire(t, p, network.Policy{})); err != nil { // opens what stays open
		t.Fatal(err)
	}
	before := survey(t, cfg.LockDir)
	for i := range 50 {
		s := acquire(t, p, network.Policy{Internet: i%2 == 0})
		if err := p.Release(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if err := p.Release(t.Context(), s); err != nil {
			t.Fatalf("a second Release: %v", err)
		}
	}
	var after leftovers
	eventually(t, "no more files are open than before", func() bool {
		after = survey(t, cfg.LockDir)
		return after.Files <= before.Files
	})
	after.Files = before.Files
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("after 50 slots (-before +after):\n%s", diff)
	}
	if got := tables(t); !cmp.Equal(got, []string{"cove-test"}) {
		t.Errorf("tables of a running server = %v", got)
	}
	stop()
	if got := tables(t); len(got) != 0 {
		t.Errorf("tables after Run = %v: nothing is left that needs them", got)
	}
	if err := p.RemoveHost(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(cfg.LockDir); !os.IsNotExist(err) {
		t.Errorf("the lock directory is still there: %v", err)
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
}

func TestWarmSlots(t *testing.T) {
	cfg := config(t)
	cfg.Warm = 3
	p, stop := start(t, cfg)
	full := func() bool { return len(entries(t, cfg.LockDir)) == 2*cfg.Warm }
	eventually(t, "warm slots", full)
	begun := time.Now()
	s := acquire(t, p, network.Policy{Internet: true})
	t.Logf("warm: %v", time.Since(begun))
	begun = time.Now()
	closed := acquire(t, p, network.Policy{})
	t.Logf("warm, without internet: %v", time.Since(begun))
	begun = time.Now()
	for _, s := range []*network.Slot{s, closed} {
		if err := p.Release(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("two released: %v", time.Since(begun))
	eventually(t, "warm slots again", full)
	used := acquire(t, p, network.Policy{})
	stop()
	if got := tables(t); !cmp.Equal(got, []string{"cove-test"}) {
		t.Errorf("tables after Run = %v, want the server's own: a sandbox still runs", got)
	}
	want := []string{strconv.Itoa(used.Index), strconv.Itoa(used.Index) + ".net"}
	if got := entries(t, cfg.LockDir); !cmp.Equal(got, want) {
		t.Errorf("after Run there are %v, want the slot in use", got)
	}
	if _, err := p.Acquire(t.Context(), network.Policy{}); !cove.Is(err, cove.Unavailable) {
		t.Errorf("Acquire after Run: %v", err)
	}
	if err := p.Release(t.Context(), used); err != nil {
		t.Errorf("Release after Run: %v", err)
	}
	if got := entries(t, cfg.LockDir); len(got) != 0 {
		t.Errorf("after Release there are %v", got)
	}
	if got := tables(t); len(got) != 0 {
		t.Errorf("tables after the last slot = %v", got)
	}
}

const crashEnv = "COVE_NETWORK_TEST_CRASH" // lock directory of the server that will be killed

// TestServerThatIsKilled is the other process of
// TestSlotsSurviveTheServer: it takes two slots and waits for its end.
func TestServerThatIsKilled(t *testing.T) {
	dir := os.Getenv(crashEnv)
	if dir == "" {
		return // a test of its own it is not
	}
	cfg := config(t)
	cfg.LockDir, cfg.Warm = dir, 1
	p, _ := start(t, cfg)
	a := acquire(t, p, network.Policy{Internet: true})
	b := acquire(t, p, network.Policy{Internet: true})
	fmt.Printf("slots %d %d\n", a.Index, b.Index)
	io.Copy(io.Discard, os.Stdin) // until it is killed, or nobody is left to do it
}

func TestSlotsSurviveTheServer(t *testing.T) {
	inet := world(t)
	echo(t, inet, internet+":80")
	nameServer(t, records)
	cfg := config(t)
	used, lost := killedServer(t, cfg.LockDir)
	// As if a version without some of the rules had made it.
	in(t, filepath.Join(cfg.LockDir, fmt.Sprint(used)+".net"), flush)

	p, stop := start(t, cfg)
	s, err := p.Adopt(t.Context(), used, network.Policy{Internet: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Adopt(t.Context(), used, network.Policy{}); !cove.Is(err, cove.Conflict) {
		t.Errorf("adopting twice: %v", err)
	}
	if _, err := p.Adopt(t.Context(), 4242, network.Policy{}); !cove.Is(err, cove.NotFound) {
		t.Errorf("adopting nothing: %v", err)
	}
	fresh := acquire(t, p, network.Policy{})
	if fresh.Index == used || fresh.Index == lost {
		t.Errorf("slot %d was handed out while it has an owner", fresh.Index)
	}
	if err := p.Sweep(t.Context(), map[int]bool{used: true}); err != nil {
		t.Fatal(err)
	}
	if n := len(entries(t, cfg.LockDir)); n != 4 {
		t.Errorf("after Sweep there are %v, want the adopted slot and the fresh one", entries(t, cfg.LockDir))
	}
	sandbox := box(t, s)
	reach(t, sandbox, internet+":80")
	if !denied(t, s.NetNS, "slot", "169.254.0.0/16") {
		t.Error("the rules of an adopted slot were not renewed")
	}
	if r := lookup(t, sandbox, "udp4", question("one.test.", 16)); len(r.Answer) != 1 {
		t.Errorf("DNS of an adopted slot: %v", r)
	}
	if s.MTU != routerMTU {
		t.Errorf("MTU = %d", s.MTU)
	}

	// The next server can close what this one had open.
	stop()
	next, _ := start(t, cfg)
	if s, err = next.Adopt(t.Context(), used, network.Policy{}); err != nil {
		t.Fatal(err)
	}
	wantUnreachable(t, attempt{"the internet", sandbox, internet + ":80"})
}

// killedServer runs a server that takes two slots and kills it.
func killedServer(t *testing.T, lockDir string) (first, second int) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestServerThatIsKilled$")
	cmd.Env = append(os.Environ(), crashEnv+"="+lockDir, "TMPDIR="+t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if n, _ := fmt.Sscanf(lines.Text(), "slots %d %d", &first, &second); n == 2 {
			break
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	if first == second {
		t.Fatal("the other server took no slots")
	}
	return first, second
}

func TestTwoServersShareAHost(t *testing.T) {
	cfg := config(t)
	p, _ := start(t, cfg)
	cfg.Instance = "other"
	q, _ := start(t, cfg)
	a, b := acquire(t, p, network.Policy{Internet: true}), acquire(t, q, network.Policy{Internet: true})
	if a.Index == b.Index {
		t.Fatalf("both have slot %d", a.Index)
	}
	// Another directory does not know of the claims, but of the links.
	cfg.Instance, cfg.LockDir = "third", filepath.Join(t.TempDir(), "slots")
	r, _ := start(t, cfg)
	c := acquire(t, r, network.Policy{Internet: true})
	if c.Index == a.Index || c.Index == b.Index {
		t.Fatalf("slot %d was handed out twice", c.Index)
	}
	abox, bbox := box(t, a), box(t, b)
	echo(t, bbox, ":8080")
	if conn, err := b.Dial(t.Context(), 8080); err != nil {
		t.Fatal(err)
	} else {
		conn.Close()
	}
	wantUnreachable(t, attempt{"the other server's sandbox", abox, b.Address.String() + ":8080"})
	if err := p.Sweep(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := q.Sweep(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*network.Slot{a, b, c} {
		if _, err := os.Stat(s.NetNS); err != nil {
			t.Errorf("Sweep took a slot in use: %v", err)
		}
	}
}

func TestAddressesInUseAreRefused(t *testing.T) {
	world(t)
	cfg := config(t)
	cfg.Prefix = netip.MustParsePrefix("198.51.100.0/24")
	p, err := network.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Run(t.Context()); !cove.Is(err, cove.Invalid) {
		t.Errorf("Run on the host's own addresses: %v", err)
	}
	if _, err := p.Acquire(t.Context(), network.Policy{}); !cove.Is(err, cove.Unavailable) {
		t.Errorf("Acquire of a pool that could not start: %v", err)
	}
}

func TestWithoutPrivileges(t *testing.T) {
	p, err := network.New(config(t))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread cannot be trusted with the other tests
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			done <- err
			return
		}
		done <- p.Run(context.Background())
	}()
	if err := <-done; !cove.Is(err, cove.Unavailable) || !strings.Contains(err.Error(), "root") {
		t.Errorf("Run without privileges: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for name, cfg := range map[string]network.Config{
		"no instance":    {Log: log},
		"odd instance":   {Log: log, Instance: "a/b"},
		"no log":         {Instance: "a"},
		"negative warm":  {Log: log, Instance: "a", Warm: -1},
		"IPv6 prefix":    {Log: log, Instance: "a", Prefix: netip.MustParsePrefix("fd00::/64")},
		"tiny prefix":    {Log: log, Instance: "a", Prefix: netip.MustParsePrefix("10.0.0.0/31")},
		"half the world": {Log: log, Instance: "a", Prefix: netip.MustParsePrefix("0.0.0.0/1")},
	} {
		if _, err := network.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A process that outlived its sandbox keeps the namespace, but not the links.
func TestReleaseOfASlotSomebodyHolds(t *testing.T) {
	cfg := config(t)
	p, _ := start(t, cfg)
	s := acquire(t, p, network.Policy{Internet: true})
	held, err := os.Open(s.NetNS)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := p.Release(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	in(t, fmt.Sprintf("/proc/self/fd/%d", held.Fd()), func() error {
		links, err := net.Interfaces()
		if err == nil && len(links) != 1 {
			t.Errorf("the namespace still has %d links, want the loopback", len(links))
		}
		return err
	})
	if _, err := os.Lstat(s.NetNS); !os.IsNotExist(err) {
		t.Errorf("the namespace is still mounted: %v", err)
	}
	if left := entries(t, cfg.LockDir); len(left) != 0 {
		t.Errorf("claims are left: %v", left)
	}
}
