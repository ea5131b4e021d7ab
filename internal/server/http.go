package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/cove-sandbox/cove/internal/proxy"
)

// httpServer serves the API and the edge, on one address or two.
type httpServer struct {
	log          *slog.Logger
	listener     net.Listener
	edgeListener net.Listener // nil: the edge has no address of its own
	started      func(net.Addr)
	api, edge    http.Handler
}

const (
	headerTimeout = 10 * time.Second
	// idleTimeout is longer than the clients' pools keep a connection, so that
	// it is them who close it: a request is never sent into a closing one.
	idleTimeout = 620 * time.Second
	// drainTimeout is how long requests in flight may take to end when the
	// server stops. Streams of commands last longer; their clients reconnect.
	drainTimeout = 5 * time.Second
)

// run serves until ctx is done.
func (h *httpServer) run(ctx context.Context) error {
	servers := map[*http.Server]net.Listener{h.server(http.HandlerFunc(h.either)): h.listener}
	if h.edgeListener != nil {
		servers[h.server(h.edge)] = h.edgeListener
	}
	failed := make(chan error, len(servers))
	for s, l := range servers {
		go func() { failed <- s.Serve(l) }()
	}
	if h.started != nil {
		h.started(h.listener.Addr())
	}
	var err error
	ended := 0
	select {
	case <-ctx.Done():
	case err = <-failed:
		ended = 1
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	for s := range servers {
		if serr := s.Shutdown(drain); serr != nil {
			s.Close() // what still runs is a stream or a stuck client
		}
	}
	for ; ended < len(servers); ended++ {
		if serr := <-failed; !errors.Is(serr, http.ErrServerClosed) {
			err = errors.Join(err, serr)
		}
	}
	return err
}

// either sends a request to the edge if it names a sandbox and to the API if
// not.
func (h *httpServer) either(w http.ResponseWriter, r *http.Request) {
	if _, ok, err := proxy.Parse(r); ok || err != nil {
		h.edge.ServeHTTP(w, r)
		return
	}
	h.api.ServeHTTP(w, r)
}

func (h *httpServer) server(handler http.Handler) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		Protocols:         &protocols,
		ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
}
