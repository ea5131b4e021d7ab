package envd

import (
	"crypto/subtle"
	"math"
	"net/http"
	"strings"

	"connectrpc.com/connect"

	"github.com/cove-sandbox/cove/internal/envd/paths"
	"github.com/cove-sandbox/cove/internal/envd/reply"
	"github.com/cove-sandbox/cove/internal/gen/filesystem/filesystemconnect"
	"github.com/cove-sandbox/cove/internal/gen/process/processconnect"
)

// access says what a route asks its callers for.
type access int

const (
	byToken   access = iota // the access token, if the sandbox has one
	byNothing               // nothing; the handler may ask for something itself
	byControl               // the control token
)

// A route is one method and path of the plain HTTP part.
type route struct {
	method, path string
	access       access
	handle       http.HandlerFunc
}

// routes is the plain HTTP part, as in spec/envd.yaml.
func (d *Daemon) routes() []route {
	return []route{
		{http.MethodGet, paths.Health, byNothing, d.health},
		{http.MethodGet, paths.Metrics, byToken, d.metrics},
		{http.MethodGet, paths.Envs, byToken, d.envs},
		{http.MethodGet, paths.Files, byNothing, d.contents.Download}, // or a signature
		{http.MethodPost, paths.Files, byNothing, d.contents.Upload},  // or a signature
		{http.MethodPost, paths.Compose, byToken, d.contents.Compose},
		{http.MethodPost, paths.Copy, byToken, d.copies.ServeHTTP},
		{http.MethodPost, paths.Init, byControl, d.apply},
		{http.MethodGet, paths.Connect, byControl, d.tunnels.ServeHTTP},
		{http.MethodGet, paths.Journal, byControl, d.journal.ServeHTTP},
	}
}

// maxMessage bounds one message of the Connect services, in bytes. It is held
// in memory, several times.
const maxMessage = 64 << 20

// Routes returns method and path of every plain HTTP route, for those who check
// the description against the daemon.
func (d *Daemon) Routes() []string {
	var out []string
	for _, r := range d.routes() {
		out = append(out, r.method+" "+r.path)
	}
	return out
}

// Handler returns everything the daemon serves.
func (d *Daemon) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range d.routes() {
		mux.Handle(r.method+" "+r.path, d.guarded(r.access, r.handle))
	}
	options := []connect.HandlerOption{
		// Compressing costs more than the few steps to the client's machine.
		connect.WithCompressMinBytes(math.MaxInt),
		connect.WithReadMaxBytes(maxMessage),
	}
	path, handler := processconnect.NewProcessHandler(d.processes, options...)
	mux.Handle(path, d.guarded(byToken, handler))
	path, handler = filesystemconnect.NewFilesystemHandler(d.files, options...)
	mux.Handle(path, d.guarded(byToken, handler))
	// Also what does not exist is nobody's business without the token.
	mux.Handle("/", d.guarded(byToken, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reply.Errorf(http.StatusNotFound, "there is no %s %s here", r.Method, r.URL.Path).Write(w)
	})))
	return cors(mux)
}

// guarded lets only those through who have what a asks for.
func (d *Daemon) guarded(a access, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case a == byToken && !d.settings.Get().Authorized(r.Header.Get(paths.TokenHeader)):
			reply.Errorf(http.StatusUnauthorized, "unauthorized access, please provide a valid access token or method signing if supported").Write(w)
		case a == byControl && !d.controls(r):
			reply.Errorf(http.StatusUnauthorized, "this route is for the host of the sandbox").Write(w)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// controls reports whether r comes from the host.
func (d *Daemon) controls(r *http.Request) bool {
	given := r.Header.Get(paths.ControlHeader)
	return d.cfg.ControlToken != "" && subtle.ConstantTimeCompare([]byte(given), []byte(d.cfg.ControlToken)) == 1
}

// exposed are the headers that scripts of a web page may read: those of the
// Connect protocol, and some more that are of use.
var exposed = strings.Join([]string{
	"Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin", "Connect-Content-Encoding",
	"Location", "Cache-Control", "X-Content-Type-Options", "Content-Disposition", "Content-Encoding", "Content-Range",
}, ", ")

// cors lets web pages of any origin call the daemon. What they may do is the
// tokens' business; there are no cookies.
func cors(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") == "" {
			next.ServeHTTP(w, r)
			return
		}
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
			h.Set("Access-Control-Expose-Headers", exposed)
			next.ServeHTTP(w, r)
			return
		}
		h.Add("Vary", "Access-Control-Request-Headers")
		h.Set("Access-Control-Allow-Methods", "HEAD, GET, POST, PUT, PATCH, DELETE")
		if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
			// A star would leave out Authorization.
			h.Set("Access-Control-Allow-Headers", asked)
		}
		h.Set("Access-Control-Max-Age", "7200")
		w.WriteHeader(http.StatusNoContent)
	})
}
