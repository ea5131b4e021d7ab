package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/miekg/dns"
)

const (
	// ednsBytes is the size of UDP messages that arrive unfragmented anywhere
	// (the value resolvers agreed on at DNS Flag Day 2020).
	ednsBytes = 1232

	attemptTimeout = 2 * time.Second
	resolveTimeout = 6 * time.Second
	rounds         = 2 // through all servers
)

// resolve asks the host's name servers in turn. The message returned answers
// query, identifier included, and carries no OPT record.
func (r *resolvers) resolve(ctx context.Context, query *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	var last *dns.Msg
	err := errors.New("no name server was asked")
	for range rounds {
		servers, lerr := r.list()
		if lerr != nil {
			return nil, lerr
		}
		for _, server := range servers {
			var answer *dns.Msg
			answer, err = ask(ctx, server, query)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				r.forget()
				continue
			}
			last = answer
			if answer.Rcode != dns.RcodeServerFailure && answer.Rcode != dns.RcodeRefused {
				return answer, nil
			}
		}
		if last != nil { // that is their word; asking again changes nothing
			return last, nil
		}
	}
	return nil, err
}

// ask asks one server, by UDP and, if the answer does not fit, by TCP.
func ask(ctx context.Context, server string, query *dns.Msg) (*dns.Msg, error) {
	// A message of our own: nothing else that the sandbox wrote goes out.
	own := new(dns.Msg)
	own.Id = dns.Id()
	own.RecursionDesired = true
	own.CheckingDisabled = query.CheckingDisabled
	own.AuthenticatedData = query.AuthenticatedData
	own.Question = query.Question
	opt := query.IsEdns0()
	own.SetEdns0(ednsBytes, opt != nil && opt.Do())

	answer, err := exchange(ctx, "udp", server, own)
	if err == nil && answer.Truncated {
		answer, err = exchange(ctx, "tcp", server, own)
	}
	if err != nil {
		return nil, err
	}
	reply := new(dns.Msg)
	reply.SetReply(query)
	reply.RecursionAvailable = true
	reply.AuthenticatedData = answer.AuthenticatedData
	if reply.Rcode = answer.Rcode; reply.Rcode > 0xf { // needs an OPT record to be said
		reply.Rcode = dns.RcodeServerFailure
	}
	reply.Answer, reply.Ns = answer.Answer, answer.Ns
	for _, rr := range answer.Extra {
		if t := rr.Header().Rrtype; t != dns.TypeOPT && t != dns.TypeTSIG {
			reply.Extra = append(reply.Extra, rr)
		}
	}
	return reply, nil
}

// exchange sends a message and waits for its answer, unless ctx ends first.
func exchange(ctx context.Context, proto, server string, m *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, proto, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })()

	wire := &dns.Conn{Conn: conn, UDPSize: dns.DefaultMsgSize}
	if err := wire.WriteMsg(m); err != nil {
		return nil, fmt.Errorf("asking: %w", err)
	}
	for {
		answer, err := wire.ReadMsg()
		if err != nil {
			return nil, fmt.Errorf("reading the answer: %w", err)
		}
		if answers(answer, m) {
			return answer, nil
		}
		// Late or forged; the right one may still come.
	}
}

func answers(answer, m *dns.Msg) bool {
	if !answer.Response || answer.Id != m.Id {
		return false
	}
	// Some servers leave the question out of an error.
	if len(answer.Question) == 0 {
		return answer.Rcode != dns.RcodeSuccess
	}
	q, want := answer.Question[0], m.Question[0]
	return len(answer.Question) == 1 && q.Qtype == want.Qtype && q.Qclass == want.Qclass &&
		dns.CanonicalName(q.Name) == dns.CanonicalName(want.Name)
}
