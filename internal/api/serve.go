package api

import (
	"net/http"
	"path"
	"runtime/debug"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/id"
)

// requestIDHeader names each request in its answer and in the log.
const requestIDHeader = "X-Request-Id"

// ServeHTTP does what every request needs and hands it to its route.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	rec := &recorder{ResponseWriter: w}
	w = rec
	w.Header().Set(requestIDHeader, id.UUID())
	defer func() {
		if p := recover(); p != nil {
			s.panicked(rec, r, p)
		}
		s.log.DebugContext(r.Context(), "request", "request_id", requestID(w),
			"method", r.Method, "route", r.Pattern, "status", rec.status, "took", time.Since(start))
	}()
	allowOrigins(w.Header())
	if r.Method == http.MethodOptions {
		preflight(w, r)
		return
	}
	// The router would redirect a path that is not clean to one that is, and a
	// client would repeat a POST there, perhaps about something else.
	if p := r.URL.EscapedPath(); path.Clean(p) != p {
		s.noRoute(w, r)
		return
	}
	mux := s.routes.of(r)
	h, pattern := mux.Handler(r)
	if pattern == "" {
		s.unrouted(w, r, h)
		return
	}
	mux.ServeHTTP(w, r)
}

// forTeam answers r with h if it carries a key. h returns its error instead of
// writing it, and writes only when it returns nil.
func (s *server) forTeam(w http.ResponseWriter, r *http.Request, h func(team cove.TeamID) error) {
	key, err := s.auth.Authenticate(r.Context(), r.Header)
	if err == nil {
		err = h(key.Team)
	}
	if err != nil {
		s.fail(w, r, err)
	}
}

// unrouted answers a request that no route takes: fallback, the router's own
// answer, knows whether it is only the method that is wrong.
func (s *server) unrouted(w http.ResponseWriter, r *http.Request, fallback http.Handler) {
	probe := &recorder{ResponseWriter: discard{header: http.Header{}}}
	fallback.ServeHTTP(probe, r)
	if probe.status != http.StatusMethodNotAllowed {
		s.noRoute(w, r)
		return
	}
	allow := probe.Header().Get("Allow")
	w.Header().Set("Allow", allow)
	writeError(w, http.StatusMethodNotAllowed, "this route does not take "+clip(r.Method)+"; it takes "+allow)
}

func (s *server) noRoute(w http.ResponseWriter, r *http.Request) {
	writeError(w, http.StatusNotFound, "there is no route "+clip(r.Method+" "+r.URL.EscapedPath())+" on this server")
}

// panicked answers a request whose handler panicked. If part of an answer is
// out already, the connection is dropped: half an answer must not look whole.
func (s *server) panicked(w *recorder, r *http.Request, p any) {
	if p == http.ErrAbortHandler {
		panic(p)
	}
	s.log.ErrorContext(r.Context(), "handler panicked", "request_id", requestID(w),
		"method", r.Method, "route", r.Pattern, "panic", p, "stack", string(debug.Stack()))
	if w.status != 0 {
		panic(http.ErrAbortHandler)
	}
	writeError(w, statusOf(cove.Internal), "internal error")
}

func requestID(w http.ResponseWriter) string { return w.Header().Get(requestIDHeader) }

// allowOrigins lets pages of any origin use the interface: what protects it is
// the key, which no browser sends by itself.
func allowOrigins(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "X-Next-Token, X-Total-Running, X-Request-Id, Retry-After")
}

// preflight answers a browser that asks whether it may send a request.
func preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	// Clients add headers about themselves as they please, and a star would not
	// cover Authorization.
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
		h.Set("Access-Control-Allow-Headers", asked)
		h.Add("Vary", "Access-Control-Request-Headers")
	}
	h.Set("Access-Control-Max-Age", "7200")
	w.WriteHeader(http.StatusNoContent)
}

// recorder remembers the status of an answer; 0 while there is none.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// discard is an answer that nobody gets.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// clip bounds what an answer repeats of a request.
func clip(s string) string {
	const most = 128
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
