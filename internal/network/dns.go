package network

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Limits of one slot's name server. The sandbox is hostile.
const (
	maxQueries    = 64   // forwarded at a time; more UDP queries are dropped, TCP waits
	maxDNSConns   = 16   // TCP connections; more are closed
	maxQueryBytes = 4096 // real ones are a tenth of it
	dnsIdle       = 8 * time.Second
)

// A dnsServer answers the sandbox of one slot at its gateway's port 53. It owns
// its goroutines and sockets until close.
type dnsServer struct {
	udp      *net.UDPConn
	tcp      *net.TCPListener
	answerer answerer

	ctx    context.Context // of the server, not of a request; done once close was called
	cancel context.CancelFunc
	work   sync.WaitGroup
	slots  chan struct{} // a token per query in progress
	conns  chan struct{} // a token per TCP connection
	rate   *queryRate
}

// openDNS opens the sockets in the slot's namespace and serves them.
func (p *Pool) openDNS(s *Slot) (*dnsServer, error) {
	d := &dnsServer{
		slots: make(chan struct{}, maxQueries),
		conns: make(chan struct{}, maxDNSConns),
		rate:  newQueryRate(),
		answerer: answerer{
			allowed:   s.internet.Load,
			resolvers: p.resolvers,
			log:       p.cfg.Log.With("slot", s.Index),
		},
	}
	at := netip.AddrPortFrom(gatewayAddr, dnsPort)
	err := inNetNS(s.NetNS, func() (err error) {
		if d.udp, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)); err != nil {
			return err
		}
		if d.tcp, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at)); err != nil {
			d.udp.Close()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.work.Go(d.serveUDP)
	d.work.Go(d.serveTCP)
	return d, nil
}

// close ends the server and waits for its goroutines. It may be called again.
func (d *dnsServer) close() {
	d.cancel()
	d.udp.Close()
	d.tcp.Close()
	d.work.Wait()
}

func (d *dnsServer) serveUDP() {
	buf := make([]byte, maxQueryBytes)
	for {
		n, from, err := d.udp.ReadFromUDPAddrPort(buf)
		if d.ctx.Err() != nil {
			return
		}
		if err != nil {
			if !d.survives("udp", err) {
				return
			}
			continue
		}
		if d.rate.take() > 0 {
			continue // the client asks again
		}
		select {
		case d.slots <- struct{}{}:
		default:
			continue
		}
		query := append([]byte(nil), buf[:n]...)
		d.work.Go(func() {
			defer func() { <-d.slots }()
			if reply := d.answerer.answer(d.ctx, query, false); reply != nil {
				// A client that is gone asks again, or does not care.
				_, _ = d.udp.WriteToUDPAddrPort(reply, from)
			}
		})
	}
}

func (d *dnsServer) serveTCP() {
	for {
		conn, err := d.tcp.AcceptTCP()
		if d.ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return
		}
		if err != nil {
			if !d.survives("tcp", err) {
				return
			}
			continue
		}
		select {
		case d.conns <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		d.work.Go(func() {
			defer func() { <-d.conns }()
			d.serveConn(conn)
		})
	}
}

// survives reports whether a listener goes on after an error. It pauses first:
// lack of file descriptors or memory does not pass at once.
func (d *dnsServer) survives(proto string, err error) bool {
	d.answerer.log.Warn("receiving DNS queries failed", "proto", proto, "err", err)
	select {
	case <-time.After(100 * time.Millisecond):
		return true
	case <-d.ctx.Done():
		return false
	}
}

// serveConn answers the queries of one connection, one at a time.
func (d *dnsServer) serveConn(conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(d.ctx, func() { conn.Close() })()
	for {
		conn.SetDeadline(time.Now().Add(dnsIdle))
		var head [2]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return
		}
		size := binary.BigEndian.Uint16(head[:])
		if size > maxQueryBytes {
			return
		}
		query := make([]byte, size)
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		if !d.rate.wait(d.ctx) {
			return
		}
		select {
		case d.slots <- struct{}{}:
		case <-d.ctx.Done():
			return
		}
		reply := d.answerer.answer(d.ctx, query, true)
		<-d.slots
		if reply == nil {
			return
		}
		conn.SetDeadline(time.Now().Add(dnsIdle))
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

// answerer turns a query into a reply by asking the host's name servers.
type answerer struct {
	allowed   func() bool
	resolvers *resolvers
	log       *slog.Logger
}

// answer returns the packed reply to a packed query; nil: none is due.
func (a answerer) answer(ctx context.Context, packed []byte, stream bool) []byte {
	var query dns.Msg
	if len(packed) < 12 {
		return nil
	}
	if err := query.Unpack(packed); err != nil {
		reply := dns.Msg{MsgHdr: dns.MsgHdr{Id: binary.BigEndian.Uint16(packed), Response: true, Rcode: dns.RcodeFormatError}}
		return pack(&reply)
	}
	if query.Response {
		return nil
	}
	reply := a.reply(ctx, &query)
	limit := dns.MaxMsgSize
	if opt := query.IsEdns0(); opt != nil {
		reply.SetEdns0(ednsBytes, opt.Do())
		if !stream {
			limit = min(max(dns.MinMsgSize, int(opt.UDPSize())), ednsBytes)
		}
	} else if !stream {
		limit = dns.MinMsgSize
	}
	reply.Compress = true
	reply.Truncate(limit)
	return pack(reply)
}

func (a answerer) reply(ctx context.Context, query *dns.Msg) *dns.Msg {
	refusal := new(dns.Msg)
	refusal.SetReply(query)
	refusal.RecursionAvailable = true
	switch {
	case query.Opcode != dns.OpcodeQuery:
		refusal.Rcode = dns.RcodeNotImplemented
	case len(query.Question) != 1:
		refusal.Rcode = dns.RcodeFormatError
	case !a.allowed() || query.Question[0].Qclass != dns.ClassINET ||
		query.Question[0].Qtype == dns.TypeAXFR || query.Question[0].Qtype == dns.TypeIXFR:
		refusal.Rcode = dns.RcodeRefused
	default:
		answer, err := a.resolvers.resolve(ctx, query)
		if err == nil {
			return answer
		}
		if ctx.Err() == nil {
			a.log.Debug("resolving a name failed", "err", err)
		}
		refusal.Rcode = dns.RcodeServerFailure
	}
	return refusal
}

// pack returns nil if a message cannot be sent.
func pack(m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil || len(b) > dns.MaxMsgSize {
		return nil
	}
	return b
}
