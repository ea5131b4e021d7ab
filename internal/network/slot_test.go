package network_test

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/network"
)

func TestSandboxReachesTheInternetAndTheHostReachesTheSandbox(t *testing.T) {
	inet := world(t)
	p, _ := start(t, config(t))
	s := acquire(t, p, network.Policy{Internet: true})
	if s.MTU != routerMTU {
		t.Errorf("MTU = %d, want that of the default route, %d", s.MTU, routerMTU)
	}
	sandbox := box(t, s)
	echo(t, inet, internet+":80")
	if from := reach(t, sandbox, internet+":80"); from.String() != hostAddr {
		t.Errorf("the internet sees %v, want the host", from)
	}

	echo(t, sandbox, ":8080")
	c, err := s.Dial(t.Context(), 8080)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if from := greeting(t, c); from != s.Gateway {
		t.Errorf("the sandbox sees %v, want its gateway", from)
	}
}

// attempt is a connection that must not come about.
type attempt struct{ what, from, to string }

func wantUnreachable(t *testing.T, attempts ...attempt) {
	t.Helper()
	var wg sync.WaitGroup
	for _, a := range attempts {
		wg.Go(func() {
			if c, err := dial(a.from, "tcp4", a.to, refusal); err == nil {
				c.Close()
				t.Errorf("%s can be reached at %s", a.what, a.to)
			}
		})
	}
	wg.Wait()
}

func TestSandboxReachesNothingElse(t *testing.T) {
	inet := world(t)
	p, _ := start(t, config(t))
	s, other := acquire(t, p, network.Policy{Internet: true}), acquire(t, p, network.Policy{Internet: true})
	sandbox, otherBox := box(t, s), box(t, other)
	echo(t, "", ":8080")
	echo(t, inet, ":8080")
	echo(t, otherBox, ":8080")
	echo(t, s.NetNS, ":8080")
	if from := reach(t, sandbox, internet+":8080"); from.String() != hostAddr {
		t.Fatalf("the internet sees %v", from)
	}
	if c, err := other.Dial(t.Context(), 8080); err != nil {
		t.Fatal(err)
	} else {
		c.Close()
	}
	hostEnd := s.Address.Prev()
	wantUnreachable(t,
		attempt{"the host", sandbox, hostAddr + ":8080"},
		attempt{"the host's end of the slot", sandbox, hostEnd.String() + ":8080"},
		attempt{"the host's loopback", sandbox, "127.0.0.1:8080"},
		attempt{"the host's neighbour", sandbox, neighbour + ":8080"},
		attempt{"a private network", sandbox, privateNet + ":8080"},
		attempt{"the metadata service", sandbox, metadata + ":8080"},
		attempt{"another slot", sandbox, other.Address.String() + ":8080"},
		attempt{"another slot's host end", sandbox, other.Address.Prev().String() + ":8080"},
		attempt{"the slot's gateway", sandbox, s.Gateway.String() + ":8080"},
		attempt{"the slot's uplink", sandbox, s.Address.String() + ":8080"},
	)
}

func TestNobodyElseReachesTheSandbox(t *testing.T) {
	inet := world(t)
	p, _ := start(t, config(t))
	s := acquire(t, p, network.Policy{Internet: true})
	sandbox := box(t, s)
	echo(t, sandbox, ":8080")
	in(t, inet, func() error {
		_, slots, err := net.ParseCIDR("10.213.0.0/16")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Dst: slots, Gw: net.ParseIP(hostAddr)})
	})
	if c, err := s.Dial(t.Context(), 8080); err != nil {
		t.Fatal(err)
	} else {
		c.Close()
	}
	wantUnreachable(t, attempt{"the sandbox", inet, s.Address.String() + ":8080"})
}

func TestForeignSourcesAreDropped(t *testing.T) {
	inet := world(t)
	p, _ := start(t, config(t))
	sandbox := box(t, acquire(t, p, network.Policy{Internet: true}))
	var server net.PacketConn
	in(t, inet, func() (err error) { server, err = net.ListenPacket("udp4", internet+":9"); return err })
	defer server.Close()

	send := func(from, text string) {
		in(t, sandbox, func() error {
			c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.ParseIP(internet), Port: 9})
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte(text))
			return err
		})
	}
	in(t, sandbox, func() error { return configure("eth0", "", "203.0.113.99/32", "10.213.0.6/32") })
	send("203.0.113.99", "spoofed")
	send("10.213.0.6", "spoofed")
	send("169.254.0.21", "own")
	server.SetReadDeadline(time.Now().Add(bound))
	buf := make([]byte, 100)
	n, _, err := server.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "own" {
		t.Errorf("the first packet to arrive says %q, %v", buf[:n], err)
	}
}

func TestPolicyWithoutInternet(t *testing.T) {
	inet := world(t)
	p, _ := start(t, config(t))
	s := acquire(t, p, network.Policy{})
	sandbox := box(t, s)
	echo(t, inet, internet+":80")
	echo(t, sandbox, ":8080")
	wantUnreachable(t, attempt{"the internet", sandbox, internet + ":80"})
	c, err := s.Dial(t.Context(), 8080)
	if err != nil {
		t.Fatalf("the host cannot reach a sandbox without internet: %v", err)
	}
	defer c.Close()
	greeting(t, c)

	if err := p.SetPolicy(t.Context(), s, network.Policy{Internet: true}); err != nil {
		t.Fatal(err)
	}
	open, err := dial(sandbox, "tcp4", internet+":80", bound)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	greeting(t, open)
	if err := p.SetPolicy(t.Context(), s, network.Policy{}); err != nil {
		t.Fatal(err)
	}
	open.Write([]byte("still there?"))
	open.SetReadDeadline(time.Now().Add(refusal))
	if n, err := open.Read(make([]byte, 100)); n > 0 || !os.IsTimeout(err) {
		t.Errorf("an open connection outlived its permission: %d bytes, %v", n, err)
	}
	c.Write([]byte("x"))
	c.SetReadDeadline(time.Now().Add(bound))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Errorf("the host's connection died with the permission: %v", err)
	}
}

// The engine's way: a packet socket on the slot's link sees what comes from the
// gateway although the namespace's own stack does not.
func TestPacketSocketTalksToTheGateway(t *testing.T) {
	p, _ := start(t, config(t))
	s := acquire(t, p, network.Policy{})
	in(t, s.NetNS, func() error {
		link, err := netlink.LinkByName(s.Interface)
		if err != nil {
			return err
		}
		const all = 0x0300 // ETH_P_ALL in network order; one protocol's socket comes after the drop
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index}); err != nil {
			return err
		}
		own := link.Attrs().HardwareAddr
		request := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, own...)
		request = append(request, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1)
		request = append(append(request, own...), s.Inside.Addr().AsSlice()...)
		request = append(append(request, 0, 0, 0, 0, 0, 0), s.Gateway.AsSlice()...)
		if _, err := unix.Write(fd, request); err != nil {
			return err
		}
		timeout := unix.NsecToTimeval(bound.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return err
		}
		reply := make([]byte, 100)
		for {
			n, err := unix.Read(fd, reply)
			if err != nil {
				return err
			}
			if n >= 42 && reply[12] == 0x08 && reply[13] == 0x06 && reply[21] == 2 { // ARP reply
				if got, _ := netip.AddrFromSlice(reply[28:32]); got != s.Gateway {
					t.Errorf("a reply from %v", got)
				}
				return nil
			}
		}
	})
}

func TestSlotsRunOut(t *testing.T) {
	cfg := config(t)
	cfg.Prefix = netip.MustParsePrefix("10.213.0.0/29")
	p, _ := start(t, cfg)
	a, b := acquire(t, p, network.Policy{}), acquire(t, p, network.Policy{})
	if a.Address == b.Address || a.NetNS == b.NetNS {
		t.Errorf("two slots share an address or a namespace: %+v %+v", a, b)
	}
	if _, err := p.Acquire(t.Context(), network.Policy{}); !cove.Is(err, cove.Exhausted) {
		t.Errorf("a third slot of two: %v", err)
	}
	if err := p.Release(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if c := acquire(t, p, network.Policy{}); c.Index != a.Index {
		t.Errorf("got slot %d, want the one that was released", c.Index)
	}
}
