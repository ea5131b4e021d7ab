package envdclient

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/envd/paths"
)

// Connect connects to a port of the sandbox, also to one that listens on the
// sandbox's loopback only. The connection carries raw bytes; if what Dial
// returned can close its writing half, so can it. The error is ErrPortClosed
// if nobody listens, and otherwise a *cove.Error of kind Unavailable or
// Unauthorized. ctx bounds the connecting only.
func (c *Client) Connect(ctx context.Context, port uint16) (net.Conn, error) {
	const op = "envdclient.Connect"
	conn, err := c.cfg.Dial(ctx)
	if err != nil {
		return nil, cove.E(cove.Unavailable, op, err, "the sandbox does not answer")
	}
	done := make(chan struct{}) // closed when the deadline is set
	stop := context.AfterFunc(ctx, func() {
		conn.SetDeadline(time.Unix(1, 0))
		close(done)
	})
	head, status, err := c.upgrade(conn, port)
	if !stop() {
		<-done
		err = context.Cause(ctx)
	}
	switch {
	case err != nil:
		err = cove.E(cove.Unavailable, op, err, "the sandbox does not answer")
	case status == http.StatusSwitchingProtocols:
		return &tunnel{Conn: conn, head: head}, nil
	case status == http.StatusBadGateway:
		err = fmt.Errorf("%s: port %d: %w", op, port, ErrPortClosed)
	case status == http.StatusUnauthorized:
		err = cove.E(cove.Unauthorized, op, nil, "the sandbox refused the token")
	default:
		err = cove.E(cove.Unavailable, op, fmt.Errorf("status %d", status), "the sandbox refused the request")
	}
	conn.Close()
	return nil, err
}

// upgrade asks for the port and returns the answer's status, with the first
// bytes of the tunnel if they came along.
func (c *Client) upgrade(conn net.Conn, port uint16) ([]byte, int, error) {
	_, err := fmt.Fprintf(conn, "GET %s?port=%d HTTP/1.1\r\nHost: envd\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %s\r\n\r\n",
		paths.Connect, port, paths.TunnelProtocol, paths.ControlHeader, c.cfg.ControlToken)
	if err != nil {
		return nil, 0, err
	}
	r := bufio.NewReader(io.LimitReader(conn, maxAnswer))
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, 0, err
	}
	head, err := r.Peek(r.Buffered())
	return head, resp.StatusCode, err
}

// tunnel is a connection of which the first bytes have been read already.
type tunnel struct {
	net.Conn
	head []byte
}

// Read reads what was read already, then from the connection.
func (t *tunnel) Read(p []byte) (int, error) {
	if len(t.head) > 0 {
		n := copy(p, t.head)
		t.head = t.head[n:]
		return n, nil
	}
	return t.Conn.Read(p)
}

// ReadFrom lets the kernel carry what comes from another socket.
func (t *tunnel) ReadFrom(r io.Reader) (int64, error) { return io.Copy(t.Conn, r) }

// WriteTo lets the kernel carry what goes to another socket.
func (t *tunnel) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(t.head)
	t.head = t.head[n:]
	if err != nil {
		return int64(n), err
	}
	m, err := io.Copy(w, t.Conn)
	return int64(n) + m, err
}

// CloseWrite tells the other side that nothing more comes from this one.
func (t *tunnel) CloseWrite() error {
	if half, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return fmt.Errorf("close writing half: %w", net.ErrClosed)
}
