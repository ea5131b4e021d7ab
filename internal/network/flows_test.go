package network_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"

	"github.com/cove-sandbox/cove/internal/network"
)

// connections is how many the calling thread's namespace tracks.
func connections() (int, error) {
	text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// hostConnections is how many the host tracks.
func hostConnections(t *testing.T) int {
	t.Helper()
	n, err := connections()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// forget makes the host track nothing: earlier tests left flows that end by and
// by.
func forget(t *testing.T) {
	t.Helper()
	if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		t.Fatal(err)
	}
}

// flood opens n flows of one datagram each, which nobody answers.
func flood(t *testing.T, sandbox string, n int) {
	t.Helper()
	var c net.PacketConn
	in(t, sandbox, func() (err error) { c, err = net.ListenPacket("udp4", ":0"); return err })
	defer c.Close()
	for i := range n {
		to := &net.UDPAddr{IP: net.ParseIP(internet), Port: 10_000 + i}
		for {
			_, err := c.WriteTo([]byte("x"), to)
			if errors.Is(err, syscall.ENOBUFS) { // faster than the links
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			break
		}
	}
}

func TestASandboxCannotFillTheHostsTableOfConnections(t *testing.T) {
	inet := world(t)
	p, _ := start(t, config(t))
	sandbox := box(t, acquire(t, p, network.Policy{Internet: true}))
	echo(t, inet, internet+":80")
	reach(t, sandbox, internet+":80") // so that all links know their neighbours
	forget(t)
	_, perSecond, burst := network.ShareFlows(262144)
	const flows = 20_000
	begun := time.Now()
	flood(t, sandbox, flows)
	got := hostConnections(t)
	most := burst + int(time.Since(begun).Seconds()*float64(perSecond)) + 10
	t.Logf("%d of %d flows in %v", got, flows, time.Since(begun))
	if got > most || got < burst/4 {
		t.Errorf("of %d flows the host tracks %d, want some hundred and at most %d", flows, got, most)
	}
}

func TestASandboxKeepsABoundedNumberOfFlows(t *testing.T) {
	inet := world(t)
	const most = 40
	p, _ := start(t, config(t), func(p *network.Pool) { p.LimitFlows(most, 1000, 2000) })
	s := acquire(t, p, network.Policy{Internet: true})
	sandbox := box(t, s)
	var server net.PacketConn
	in(t, inet, func() (err error) { server, err = net.ListenPacket("udp4", internet+":9"); return err })
	defer server.Close()
	stream, err := dial(sandbox, "udp4", internet+":9", bound)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	send := func(i int) {
		if _, err := fmt.Fprint(stream, i); err != nil {
			t.Fatal(err)
		}
		server.SetReadDeadline(time.Now().Add(bound))
		if _, _, err := server.ReadFrom(make([]byte, 10)); err != nil {
			t.Fatalf("datagram %d of one flow: %v", i, err)
		}
	}
	forget(t)
	send(0)
	flood(t, sandbox, 10*most)
	// The kernel counts from one, and now and then takes a moment to count.
	if got := hostConnections(t); got > most+5 || got < most/2 {
		t.Errorf("the host tracks %d flows, want at most %d", got, most)
	}
	// What was open stays open, without a single reply.
	for i := range 20 * most {
		send(i + 1)
	}
	// The host still gets in, and other sandboxes out.
	echo(t, sandbox, ":8080")
	c, err := s.Dial(t.Context(), 8080)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	greeting(t, c)
	echo(t, inet, internet+":80")
	reach(t, box(t, acquire(t, p, network.Policy{Internet: true})), internet+":80")
}

func TestDNSIsNotTracked(t *testing.T) {
	nameServer(t, records)
	p, _ := start(t, config(t))
	s := acquire(t, p, network.Policy{Internet: true})
	sandbox := box(t, s)
	for range 20 {
		lookup(t, sandbox, "udp4", question("one.test.", dns.TypeTXT))
		lookup(t, sandbox, "tcp4", question("one.test.", dns.TypeTXT))
	}
	in(t, s.NetNS, func() error {
		n, err := connections()
		if err == nil && n != 0 {
			t.Errorf("the slot tracks %d connections after 40 queries", n)
		}
		return err
	})
}

// Each query is a flow of the host's.
func TestQueriesAreLimited(t *testing.T) {
	nameServer(t, records)
	p, _ := start(t, config(t))
	sandbox := box(t, acquire(t, p, network.Policy{Internet: true}))
	c, err := dial(sandbox, "tcp4", "169.254.0.22:53", bound)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * bound))
	wire := &dns.Conn{Conn: c}
	const queries = network.QueryBurst + network.QueriesPerSecond
	begun := time.Now()
	sent := make(chan error, 1)
	go func() {
		for range queries {
			if err := wire.WriteMsg(question("one.test.", dns.TypeTXT)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for i := range queries {
		if _, err := wire.ReadMsg(); err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
	}
	took := time.Since(begun)
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if took < 990*time.Millisecond {
		t.Errorf("%d queries were answered within %v", queries, took)
	}
}

func TestSharesOfTheTable(t *testing.T) {
	for _, size := range []int{65536, 262144, 1 << 20} {
		concurrent, perSecond, burst := network.ShareFlows(size)
		// TCP connections that have ended are remembered for two minutes.
		if most := concurrent + burst + 120*perSecond; most > size/5 {
			t.Errorf("one slot may take %d of %d", most, size)
		}
		if concurrent < 512 || perSecond < 64 || burst < 512 {
			t.Errorf("of %d a slot gets %d, %d, %d", size, concurrent, perSecond, burst)
		}
	}
}
