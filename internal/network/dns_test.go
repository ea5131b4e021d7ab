package network_test

import (
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/cove-sandbox/cove/internal/network"
)

// nameServer plays the host's name server on 127.0.0.1:53.
func nameServer(t *testing.T, handle dns.HandlerFunc) {
	t.Helper()
	udp, err := net.ListenPacket("udp4", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp4", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: handle}, {Listener: tcp, Handler: handle}} {
		up, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { defer close(done); s.ActivateAndServe() }()
		<-up
		t.Cleanup(func() {
			if err := s.Shutdown(); err != nil {
				t.Error(err)
			}
			<-done
		})
	}
}

// lookup asks the slot's name server from a sandbox.
func lookup(t *testing.T, sandbox, proto string, m *dns.Msg) *dns.Msg {
	t.Helper()
	c, err := dial(sandbox, proto, "169.254.0.22:53", bound)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(bound))
	wire := &dns.Conn{Conn: c, UDPSize: 4096}
	if err := wire.WriteMsg(m); err != nil {
		t.Fatal(err)
	}
	reply, err := wire.ReadMsg()
	if err != nil {
		t.Fatalf("no answer to %v: %v", m.Question, err)
	}
	if reply.Id != m.Id {
		t.Errorf("the answer's identifier is %d, want %d", reply.Id, m.Id)
	}
	return reply
}

func question(name string, kind uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(name, kind)
}

// records answers A queries with one record, and big.test with forty.
func records(w dns.ResponseWriter, m *dns.Msg) {
	r := new(dns.Msg).SetReply(m)
	name := m.Question[0].Name
	n := 1
	switch name {
	case "none.test.":
		n, r.Rcode = 0, dns.RcodeNameError
	case "big.test.":
		n = 40
	}
	for i := range n {
		r.Answer = append(r.Answer, &dns.TXT{
			Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 60},
			Txt: []string{strings.Repeat(string(rune('a'+i%26)), 60)},
		})
	}
	if w.RemoteAddr().Network() == "udp" {
		r.Truncate(512)
	}
	w.WriteMsg(r)
}

func TestDNSIsForwarded(t *testing.T) {
	nameServer(t, records)
	p, _ := start(t, config(t))
	sandbox := box(t, acquire(t, p, network.Policy{Internet: true}))
	for _, proto := range []string{"udp4", "tcp4"} {
		if r := lookup(t, sandbox, proto, question("one.test.", dns.TypeTXT)); r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1 || !r.RecursionAvailable {
			t.Errorf("%s: %v", proto, r)
		}
		if r := lookup(t, sandbox, proto, question("none.test.", dns.TypeTXT)); r.Rcode != dns.RcodeNameError {
			t.Errorf("%s: %v", proto, r)
		}
	}
	// The upstream's UDP answer is cut short, so it is asked again by TCP.
	if r := lookup(t, sandbox, "udp4", question("big.test.", dns.TypeTXT)); !r.Truncated || r.Len() > dns.MinMsgSize {
		t.Errorf("a long answer by UDP: truncated %v, %d bytes", r.Truncated, r.Len())
	}
	if r := lookup(t, sandbox, "tcp4", question("big.test.", dns.TypeTXT)); r.Truncated || len(r.Answer) != 40 {
		t.Errorf("a long answer by TCP: truncated %v, %d records", r.Truncated, len(r.Answer))
	}
	edns := question("one.test.", dns.TypeTXT).SetEdns0(1232, false)
	if r := lookup(t, sandbox, "udp4", edns); r.IsEdns0() == nil || len(r.Answer) != 1 {
		t.Errorf("with EDNS: %v", r)
	}
}

func TestDNSRefusesWhatItMust(t *testing.T) {
	nameServer(t, func(_ dns.ResponseWriter, m *dns.Msg) { t.Errorf("%v was forwarded", m.Question) })
	p, _ := start(t, config(t))
	s := acquire(t, p, network.Policy{Internet: true})
	sandbox := box(t, s)
	chaos := question("version.bind.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	update := question("one.test.", dns.TypeSOA)
	update.Opcode = dns.OpcodeUpdate
	double := question("one.test.", dns.TypeA)
	double.Question = append(double.Question, double.Question[0])
	for want, m := range map[int]*dns.Msg{
		dns.RcodeRefused:        question("test.", dns.TypeAXFR),
		dns.RcodeNotImplemented: update,
		dns.RcodeFormatError:    double,
	} {
		if r := lookup(t, sandbox, "udp4", m); r.Rcode != want {
			t.Errorf("%v: %s, want %s", m.Question, dns.RcodeToString[r.Rcode], dns.RcodeToString[want])
		}
	}
	if r := lookup(t, sandbox, "udp4", chaos); r.Rcode != dns.RcodeRefused {
		t.Errorf("chaos: %v", r)
	}
	if err := p.SetPolicy(t.Context(), s, network.Policy{}); err != nil {
		t.Fatal(err)
	}
	for _, proto := range []string{"udp4", "tcp4"} {
		if r := lookup(t, sandbox, proto, question("one.test.", dns.TypeA)); r.Rcode != dns.RcodeRefused {
			t.Errorf("without internet: %v", r)
		}
	}
}

func TestDNSFollowsTheHostsConfiguration(t *testing.T) {
	nameServer(t, records)
	cfg := config(t)
	write := func(text string) {
		if err := os.WriteFile(cfg.ResolvConf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# nobody yet\n")
	p, _ := start(t, cfg)
	sandbox := box(t, acquire(t, p, network.Policy{Internet: true}))
	if r := lookup(t, sandbox, "udp4", question("one.test.", dns.TypeTXT)); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("without a name server: %v", r)
	}
	write("nameserver 127.0.0.9\n") // refuses
	if r := lookup(t, sandbox, "udp4", question("one.test.", dns.TypeTXT)); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("with a dead name server: %v", r)
	}
	write("nameserver 127.0.0.9\nnameserver 127.0.0.1\n")
	if r := lookup(t, sandbox, "udp4", question("one.test.", dns.TypeTXT)); r.Rcode != dns.RcodeSuccess {
		t.Errorf("with a second name server: %v", r)
	}
}

func TestDNSIsBounded(t *testing.T) {
	var now, most atomic.Int32
	release := make(chan struct{})
	var once sync.Once
	free := func() { once.Do(func() { close(release) }) }
	nameServer(t, func(w dns.ResponseWriter, m *dns.Msg) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-release
		now.Add(-1)
		records(w, m)
	})
	t.Cleanup(free) // before the name server waits for its handlers
	p, _ := start(t, config(t))
	s := acquire(t, p, network.Policy{Internet: true})
	sandbox := box(t, s)
	c, err := dial(sandbox, "udp4", "169.254.0.22:53", bound)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	query, err := question("one.test.", dns.TypeTXT).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		c.Write([]byte("\x00\x01nonsense that is longer than a header"))
		c.Write(nil)
	}
	for range 4 * network.MaxQueries {
		if _, err := c.Write(query); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the name server is as busy as it gets", func() bool { return now.Load() >= network.MaxQueries/2 })
	free()
	// The slot is not stuck: a query gets its answer once the others have.
	eventually(t, "an answer after the flood", func() bool {
		return lookup(t, sandbox, "tcp4", question("one.test.", dns.TypeTXT)).Rcode == dns.RcodeSuccess
	})
	if most.Load() > network.MaxQueries {
		t.Errorf("%d queries were forwarded at a time, want at most %d", most.Load(), network.MaxQueries)
	}
}

func TestReleaseDoesNotWaitForTheNameServer(t *testing.T) {
	asked, release := make(chan struct{}, 1), make(chan struct{})
	nameServer(t, func(dns.ResponseWriter, *dns.Msg) {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-release
	})
	t.Cleanup(func() { close(release) }) // before the name server waits for its handlers
	p, _ := start(t, config(t))
	s := acquire(t, p, network.Policy{Internet: true})
	c, err := dial(box(t, s), "udp4", "169.254.0.22:53", bound)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	query, err := question("slow.test.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	c.Write(query)
	select {
	case <-asked:
	case <-time.After(bound):
		t.Fatal("the query was not forwarded")
	}
	begun := time.Now()
	if err := p.Release(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("Release took %v with a query on its way", took)
	}
}
