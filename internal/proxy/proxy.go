// Package proxy is the edge: it finds out which sandbox and port a request is
// for and forwards it there, streams and upgraded connections included.
//
// It knows no tenants: what a sandbox lets in is the sandbox's own matter, and
// of the daemon inside it refuses only the routes that are for the host. It
// starts no goroutines beside those of the standard library's transport, which
// end with the connections they serve. Package server wires it.
package proxy

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"slices"
	"strconv"
	"sync"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
)

// Dialer connects to a port of a sandbox; node.Node is one.
type Dialer interface {
	Dial(ctx context.Context, id cove.SandboxID, port uint16) (net.Conn, error)
}

// Config is what a Proxy is made of.
type Config struct {
	Dialer Dialer       // required
	Log    *slog.Logger // required

	// Wake is asked before each request: it lets a paused sandbox go on, if it
	// may. NotFound: there is none to wake. Forbidden: not for this request.
	Wake func(ctx context.Context, t Target, h http.Header) error // nil: nothing is woken

	DaemonPort    uint16   // where the daemon inside listens
	InternalPaths []string // its routes that nobody outside may use
	FilesPath     string   // its route for the content of files
}

// Proxy forwards requests into sandboxes.
type Proxy struct {
	cfg    Config
	daemon *httputil.ReverseProxy // keeps connections: we know how the daemon closes them
	files  *httputil.ReverseProxy // the same, through large buffers
	others *httputil.ReverseProxy // one connection a request: a stranger may close at any time

	buffers buffers
}

// buffers are what files are copied through. They are large: a file of a
// gigabyte crosses the edge in fewer, cheaper pieces.
type buffers struct{ pool sync.Pool }

const bufferSize = 256 << 10

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return buf[:]
	}
	return make([]byte, bufferSize)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(buf []byte) { b.pool.Put((*[bufferSize]byte)(buf)) }

// idle is how long an unused connection to a daemon is kept; the daemon keeps
// its side for longer, so that it is never the one to close first.
const idle = 60 * time.Second

// transferBuffer is the size of a daemon connection's buffers, in bytes.
const transferBuffer = 64 << 10

// New allocates.
func New(cfg Config) *Proxy {
	p := &Proxy{cfg: cfg}
	p.daemon = p.reverse(&http.Transport{
		DialContext: p.dial, MaxIdleConns: 2048, MaxIdleConnsPerHost: 64, IdleConnTimeout: idle, DisableCompression: true,
	}, nil)
	p.files = p.reverse(&http.Transport{
		DialContext: p.dial, MaxIdleConns: 256, MaxIdleConnsPerHost: 8, IdleConnTimeout: idle, DisableCompression: true,
		ReadBufferSize: transferBuffer, WriteBufferSize: transferBuffer,
	}, &p.buffers)
	p.others = p.reverse(&http.Transport{DialContext: p.dial, DisableKeepAlives: true, DisableCompression: true}, nil)
	return p
}

func (p *Proxy) reverse(transport http.RoundTripper, buffers httputil.BufferPool) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1, // every write is passed on at once: streams are the rule here
		ErrorLog:      log.New(quiet{p.cfg.Log}, "", 0),
		ErrorHandler:  p.failed,
		BufferPool:    buffers, // nil: small ones, for streams that last and say little
		Rewrite: func(r *httputil.ProxyRequest) {
			target, _ := r.In.Context().Value(targetKey{}).(Target)
			r.Out.URL.Scheme = "http"
			r.Out.URL.Host = net.JoinHostPort(string(target.ID), strconv.Itoa(int(target.Port)))
			r.Out.Host = r.In.Host
			r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
			r.SetXForwarded()
		},
	}
}

// targetKey is the key under which a request carries its Target to Rewrite.
type targetKey struct{}

// dial connects to the "id:port" that Rewrite wrote.
func (p *Proxy) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, err
	}
	// The transport dials on behalf of whoever comes next, too, so the context
	// is not the request's and ends with nothing.
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return p.cfg.Dialer.Dial(ctx, cove.SandboxID(host), uint16(port))
}

// dialTimeout bounds the wait for a service inside that does not answer.
const dialTimeout = 10 * time.Second

// ServeHTTP forwards a request that Parse found to be for a sandbox.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	target, ok, err := Parse(r)
	switch {
	case err != nil:
		_, msg := cove.Describe(err)
		writeError(w, r, page{Code: http.StatusBadRequest, Message: msg})
		return
	case !ok:
		writeError(w, r, page{Code: http.StatusBadRequest, Message: "Invalid host"})
		return
	}
	reverse := p.others
	if target.Port == p.cfg.DaemonPort {
		// Refused before anything is looked up, so that the answer does not
		// tell which sandboxes there are.
		if p.internal(r.URL) {
			writeError(w, r, page{Code: http.StatusNotFound,
				Message: "This endpoint is reserved for the E2B control plane and is not reachable through the sandbox URL"})
			return
		}
		reverse = p.daemon
		if r.URL.Path == p.cfg.FilesPath {
			reverse = p.files
		}
	}
	if p.cfg.Wake != nil {
		if err := p.cfg.Wake(r.Context(), target, r.Header); err != nil {
			p.unwoken(w, r, target, err)
			return
		}
	}
	forward(reverse, w, r.WithContext(context.WithValue(r.Context(), targetKey{}, target)))
}

// internal reports whether a path is one of the daemon's internal routes, in
// whatever spelling: it is decoded and cleaned as the daemon would.
func (p *Proxy) internal(u *url.URL) bool {
	clean := path.Clean("/" + u.Path)
	return slices.ContainsFunc(p.cfg.InternalPaths, func(internal string) bool {
		return clean == internal || len(clean) > len(internal) && clean[:len(internal)+1] == internal+"/"
	})
}

// unwoken answers a request for a sandbox that does not run.
func (p *Proxy) unwoken(w http.ResponseWriter, r *http.Request, t Target, err error) {
	kind, msg := cove.Describe(err)
	status := http.StatusBadGateway
	switch kind {
	case cove.NotFound:
		msg = "The sandbox was not found"
	case cove.Forbidden:
		status = http.StatusForbidden
	case cove.Conflict:
		status, msg = http.StatusConflict, "The sandbox is still transitioning. Try again in a moment."
	case cove.Exhausted:
		status = http.StatusTooManyRequests
	default:
		p.cfg.Log.Warn("sandbox could not be woken", "sandbox", t.ID, "err", err)
	}
	if r.Context().Err() != nil { // the client is gone
		return
	}
	writeError(w, r, page{Code: status, Sandbox: t.ID, Message: msg})
}

// failed answers a request that could not be forwarded.
func (p *Proxy) failed(w http.ResponseWriter, r *http.Request, err error) {
	target, _ := r.Context().Value(targetKey{}).(Target)
	switch {
	case r.Context().Err() != nil: // the client is gone
		return
	case errors.Is(err, node.ErrPortClosed):
		writeError(w, r, page{Code: http.StatusBadGateway, Sandbox: target.ID, Port: target.Port,
			Message: "The sandbox is running but port is not open"})
	case cove.Is(err, cove.NotFound):
		writeError(w, r, page{Code: http.StatusBadGateway, Sandbox: target.ID, Message: "The sandbox was not found"})
	case cove.Is(err, cove.Exhausted):
		_, msg := cove.Describe(err)
		writeError(w, r, page{Code: http.StatusTooManyRequests, Sandbox: target.ID, Message: msg})
	default:
		p.cfg.Log.Debug("request could not be forwarded", "sandbox", target.ID, "port", target.Port, "err", err)
		// The sandbox ended, or its server broke the connection, before an
		// answer: the client must see a broken connection, then asks again and
		// is told which of the two it was.
		panic(http.ErrAbortHandler)
	}
}

// quiet turns the reverse proxy's own complaints into debug lines: each is about
// a connection that one of the two ends broke off.
type quiet struct{ log *slog.Logger }

func (q quiet) Write(b []byte) (int, error) {
	q.log.Debug("proxy", "msg", string(b))
	return len(b), nil
}
