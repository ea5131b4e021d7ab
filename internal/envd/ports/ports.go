// Package ports lets the host reach a port of the sandbox that listens on the
// sandbox's own loopback: a connection to the daemon is upgraded and from then
// on carries raw bytes.
//
// It is not a proxy: it knows no protocol and chooses nothing. Only the daemon
// imports it, and only for callers that have shown the control token. A Tunnels
// owns the goroutines of its connections and its Run waits for them.
package ports

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cove-sandbox/cove/internal/envd/paths"
	"github.com/cove-sandbox/cove/internal/envd/reply"
)

// dialTimeout bounds a connection within the sandbox, which is made or refused
// at once unless the listener's queue is full.
const dialTimeout = 5 * time.Second

// Tunnels are the open connections.
type Tunnels struct {
	mu      sync.Mutex
	closing bool                 // guarded by mu; no tunnel is opened any more
	open    map[*tunnel]struct{} // guarded by mu
	running sync.WaitGroup       // one for each tunnel; added to under mu, before closing
}

type tunnel struct{ outer, inner *net.TCPConn }

func (t *tunnel) close() {
	t.outer.Close()
	t.inner.Close()
}

// New returns a Tunnels with none.
func New() *Tunnels { return &Tunnels{open: map[*tunnel]struct{}{}} }

// Run waits for ctx and then closes the tunnels.
func (t *Tunnels) Run(ctx context.Context) error {
	<-ctx.Done()
	t.mu.Lock()
	t.closing = true
	for open := range t.open {
		open.close()
	}
	t.mu.Unlock()
	t.running.Wait()
	return ctx.Err()
}

// ServeHTTP connects the caller to the port that the query names: 101 and then
// raw bytes, 502 if nobody listens. Each side may finish on its own.
func (t *Tunnels) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	port, err := strconv.ParseUint(r.URL.Query().Get("port"), 10, 16)
	if err != nil || port == 0 {
		reply.Errorf(http.StatusBadRequest, "port must be a number from 1 to 65535").Write(w)
		return
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), paths.TunnelProtocol) {
		w.Header().Set("Upgrade", paths.TunnelProtocol)
		reply.Errorf(http.StatusUpgradeRequired, "the connection must be upgraded to %s", paths.TunnelProtocol).Write(w)
		return
	}
	inner, err := dial(r.Context(), uint16(port))
	if err != nil {
		reply.Errorf(http.StatusBadGateway, "port %d is not open", port).Write(w)
		return
	}
	outer, early, err := http.NewResponseController(w).Hijack()
	if err != nil {
		inner.Close()
		reply.Errorf(http.StatusInternalServerError, "the connection cannot be upgraded").Write(w)
		return
	}
	tcp, ok := outer.(*net.TCPConn)
	if !ok {
		inner.Close()
		outer.Close()
		return
	}
	t.run(&tunnel{tcp, inner}, early.Reader.Buffered(), early.Reader)
}

// dial connects to a port of the loopback, of whichever family it listens on.
func dial(ctx context.Context, port uint16) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	var errs []error
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			return tcp, nil
		}
		conn.Close()
	}
	return nil, errors.Join(errs...)
}

// run carries bytes until both sides have finished. The caller's first bytes
// may have been read with the request: the first early ones of head.
func (t *Tunnels) run(open *tunnel, early int, head io.Reader) {
	defer open.close()
	t.mu.Lock()
	if t.closing {
		t.mu.Unlock()
		return
	}
	t.open[open] = struct{}{}
	t.running.Add(1)
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		delete(t.open, open)
		t.mu.Unlock()
		t.running.Done()
	}()

	const accepted = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + paths.TunnelProtocol + "\r\n\r\n"
	if _, err := io.WriteString(open.outer, accepted); err != nil {
		return
	}
	if _, err := io.CopyN(open.inner, head, int64(early)); err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { open.carry(open.outer, open.inner) })
	open.carry(open.inner, open.outer)
	back.Wait()
}

// carry copies one direction and passes its end on. A broken direction breaks
// the tunnel, as a reset would.
func (t *tunnel) carry(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		t.close()
		return
	}
	to.CloseWrite() // fails only if the other direction has broken
}
