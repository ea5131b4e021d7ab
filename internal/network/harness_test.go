package network_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/cove-sandbox/cove/internal/network"
)

const (
	insideEnv  = "COVE_NETWORK_TEST_HOST" // set in the process that has a host of its own
	bound      = 10 * time.Second         // for things that must happen
	refusal    = 400 * time.Millisecond   // for packets that must not arrive
	hostAddr   = "198.51.100.1"           // of the host, towards the internet
	neighbour  = "198.51.100.2"           // on a network the host is attached to
	internet   = "203.0.113.10"
	privateNet = "10.9.9.9"        // behind the same router
	metadata   = "169.254.169.254" // too
	routerMTU  = 1400
)

// TestMain runs the tests in a process with network and mount namespaces of its
// own: they play the host, and all that the tests leave goes with them.
func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) == "" {
		os.Exit(reexec())
	}
	if err := prepareHost(); err != nil {
		fmt.Fprintln(os.Stderr, "preparing the test's host:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func reexec() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	runtime.LockOSThread() // the signal is sent when the thread ends
	err := cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the tests need root:", err)
		return 1
	}
	return 0
}

func prepareHost() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	// A new namespace has this from the machine the tests run on.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// space returns the path of a new network namespace that the test's end removes.
func space(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ns")
	if err := network.CreateNetNS(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := network.RemoveNetNS(path); err != nil {
			t.Error(err)
		}
	})
	return path
}

func in(t *testing.T, ns string, fn func() error) {
	t.Helper()
	if err := network.InNetNS(ns, fn); err != nil {
		t.Fatal(err)
	}
}

// configure gives a link addresses, brings it up and may add a default route.
func configure(name, gateway string, addrs ...string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil || gateway == "" {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway)})
}

// world connects the host to a namespace that plays everything else.
func world(t *testing.T) (ns string) {
	t.Helper()
	ns = space(t)
	f, err := os.Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	link := netlink.NewVeth(netlink.LinkAttrs{Name: "wan0", MTU: routerMTU, TxQLen: -1})
	link.PeerName, link.PeerNamespace = "router", netlink.NsFd(f.Fd())
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(link); err != nil {
			t.Error(err)
		}
	})
	in(t, ns, func() error {
		if err := configure("lo", "", internet+"/32", privateNet+"/32", metadata+"/32"); err != nil {
			return err
		}
		return configure("router", hostAddr, neighbour+"/24")
	})
	if err := configure("wan0", neighbour, hostAddr+"/24"); err != nil {
		t.Fatal(err)
	}
	return ns
}

// box puts a stand-in for the sandbox's own network stack behind a slot: the
// link that the engine's packet socket would be on moves to a namespace.
func box(t *testing.T, s *network.Slot) (ns string) {
	t.Helper()
	ns = space(t)
	f, err := os.Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in(t, s.NetNS, func() error {
		link, err := netlink.LinkByName(s.Interface)
		if err != nil {
			return err
		}
		return netlink.LinkSetNsFd(link, int(f.Fd()))
	})
	in(t, ns, func() error { return configure(s.Interface, s.Gateway.String(), s.Inside.String()) })
	return ns
}

func config(t *testing.T) network.Config {
	t.Helper()
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 127.0.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return network.Config{
		Instance:   "test",
		LockDir:    filepath.Join(t.TempDir(), "slots"),
		ResolvConf: resolv,
		Log:        slog.New(slog.DiscardHandler),
	}
}

// start runs a pool; stop ends it and is called by the test's end at the latest.
// What is left on the host then is removed.
func start(t *testing.T, cfg network.Config, prepare ...func(*network.Pool)) (p *network.Pool, stop func()) {
	t.Helper()
	p, err := network.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, do := range prepare {
		do(p)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		stop()
		if err := p.RemoveHost(context.Background()); err != nil {
			t.Errorf("RemoveHost: %v", err)
		}
	})
	select {
	case <-p.Ready():
	case err := <-done:
		done <- nil
		t.Fatalf("Run: %v", err)
	case <-time.After(bound):
		t.Fatal("the pool does not become ready")
	}
	return p, stop
}

func acquire(t *testing.T, p *network.Pool, policy network.Policy) *network.Slot {
	t.Helper()
	s, err := p.Acquire(t.Context(), policy)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// echo serves TCP in a namespace ("" is the host): each connection gets the
// address it came from, a line, and then its own bytes back.
func echo(t *testing.T, ns, addr string) {
	t.Helper()
	var l net.Listener
	listen := func() (err error) { l, err = net.Listen("tcp4", addr); return err }
	if ns == "" {
		if err := listen(); err != nil {
			t.Fatal(err)
		}
	} else {
		in(t, ns, listen)
	}
	var conns sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			conns.Go(func() {
				fmt.Fprintln(c, c.RemoteAddr().(*net.TCPAddr).IP)
				io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		conns.Wait()
	})
}

// dial connects from a namespace.
func dial(ns, netw, addr string, timeout time.Duration) (c net.Conn, err error) {
	err = network.InNetNS(ns, func() error {
		d := net.Dialer{Timeout: timeout}
		c, err = d.Dial(netw, addr)
		return err
	})
	return c, err
}

// reach connects to an echo server from a namespace and returns the address
// that the server saw.
func reach(t *testing.T, ns, addr string) netip.Addr {
	t.Helper()
	c, err := dial(ns, "tcp4", addr, bound)
	if err != nil {
		t.Fatalf("%s cannot be reached: %v", addr, err)
	}
	defer c.Close()
	return greeting(t, c)
}

func greeting(t *testing.T, c net.Conn) netip.Addr {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(bound))
	var line string
	if _, err := fmt.Fscanln(c, &line); err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddr(line)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(bound)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}
