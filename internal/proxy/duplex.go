package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// forward lets a reverse proxy answer a request. It adds what an edge needs and
// the library leaves to it: request and answer may flow at the same time, and an
// answer that broke off is seen as such.
func forward(reverse http.Handler, w http.ResponseWriter, r *http.Request) {
	conn := http.NewResponseController(w)
	// Without this the server takes the rest of a request away from whoever
	// forwards it as soon as the answer begins. HTTP/2 is always so.
	_ = conn.EnableFullDuplex()
	if r.Body != nil && r.Body != http.NoBody {
		body := &requestBody{ReadCloser: r.Body}
		r.Body = body
		defer body.release(conn)
	}
	defer func() {
		switch broken := recover(); {
		case broken == nil:
		case broken == http.ErrAbortHandler && reset(conn):
		default:
			panic(broken)
		}
	}()
	reverse.ServeHTTP(w, r)
}

// reset breaks the client's connection as the sandbox's was broken: clients tell
// by it that the sandbox ended from an answer that did. It reports false for a
// connection that has other streams, which the server resets alone.
func reset(conn *http.ResponseController) bool {
	c, _, err := conn.Hijack()
	if err != nil {
		return false
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
	return true
}

// requestBody is a request's body that its forwarder can be made to let go of:
// the server goes on reading where the forwarder stopped, and two at a time are
// not allowed.
type requestBody struct {
	io.ReadCloser

	mu       sync.Mutex // held during a read
	released bool       // guarded by mu
}

var errReleased = errors.New("the request was answered")

func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.released {
		return 0, errReleased
	}
	return b.ReadCloser.Read(p)
}

// release ends reads by the forwarder, also one that waits for the client.
func (b *requestBody) release(conn *http.ResponseController) {
	if !b.mu.TryLock() {
		_ = conn.SetReadDeadline(time.Now())
		b.mu.Lock()
	}
	b.released = true
	b.mu.Unlock()
}
