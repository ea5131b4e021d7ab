package api

import "net/http"

// aliasRoute is the route that cannot share a mux with the others: of it and
// GET /templates/{templateID}/tags neither is the narrower one, since both take
// /templates/aliases/tags, and a ServeMux refuses two such.
const aliasRoute = "GET /templates/aliases/{alias}"

// routes is where the generated code puts its routes.
type routes struct {
	alias *http.ServeMux // aliasRoute, which goes before
	rest  *http.ServeMux
}

func newRoutes() *routes {
	return &routes{alias: http.NewServeMux(), rest: http.NewServeMux()}
}

// HandleFunc adds a route.
func (m *routes) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	if pattern == aliasRoute {
		m.alias.HandleFunc(pattern, h)
		return
	}
	m.rest.HandleFunc(pattern, h)
}

// ServeHTTP answers r as its route does.
func (m *routes) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.of(r).ServeHTTP(w, r) }

// of returns the mux that has r's route, if there is one.
func (m *routes) of(r *http.Request) *http.ServeMux {
	if _, pattern := m.alias.Handler(r); pattern != "" {
		return m.alias
	}
	return m.rest
}
