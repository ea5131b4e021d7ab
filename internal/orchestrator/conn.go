package orchestrator

import "net"

// tracked is a connection into a sandbox. It leaves its owner's list when it is
// closed, by whom ever.
type tracked struct {
	net.Conn
	owner *sandbox
}

// Close closes the connection.
func (t *tracked) Close() error {
	t.owner.mu.Lock()
	delete(t.owner.conns, t) // a nil map is fine: the sandbox ends
	t.owner.mu.Unlock()
	return t.Conn.Close()
}

// CloseWrite tells the other side that nothing more comes, and keeps reading.
func (t *tracked) CloseWrite() error {
	if c, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return t.Conn.Close()
}

// reset closes the connection at once, unsent data included: the other end is
// gone, and whoever reads here must see an error, not a clean end.
func (t *tracked) reset() {
	if c, ok := t.Conn.(interface{ SetLinger(sec int) error }); ok {
		_ = c.SetLinger(0)
	}
	t.Conn.Close()
}
