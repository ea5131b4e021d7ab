package proxy

import (
	"encoding/json"
	"html/template"
	"net/http"
	"strings"

	cove "github.com/cove-sandbox/cove"
)

// page is an answer of the edge itself. Its JSON form is compared by clients.
type page struct {
	Sandbox cove.SandboxID `json:"sandboxId,omitempty"`
	Message string         `json:"message"`
	Port    uint16         `json:"port,omitempty"`
	Code    int            `json:"code"`
}

var html = template.Must(template.New("page").Parse(`<html lang="en">
<head><meta charset="utf-8"><title>{{.Code}}: {{.Message}}</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem;color:#222}code{background:#eee;padding:.1em .3em}</style></head>
<body><h1>{{.Message}}</h1>
{{- if .Port}}
<p>Sandbox <code>{{.Sandbox}}</code> is running, but there is no service running on port <code>{{.Port}}</code>.</p>
<p>Start your server inside the sandbox, then load this page again. If the template should start it, check its start command.</p>
{{- else if .Sandbox}}
<p>There is no running sandbox <code>{{.Sandbox}}</code>. It may have reached the end of its life, or it was ended.</p>
{{- end}}
</body></html>
`))

// writeError answers in HTML if a person looks, in JSON otherwise.
func writeError(w http.ResponseWriter, r *http.Request, p page) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Access-Control-Allow-Origin", "*")
	if person(r.Header) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(p.Code)
		_ = html.Execute(w, p) // the status is out; an error is the client's broken connection
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(p.Code)
	_ = json.NewEncoder(w).Encode(p)
}

// person reports whether a browser asks on behalf of a person who will look at
// the answer, and not a script in it: the rules are the reference's.
func person(h http.Header) bool {
	accept := h.Get("Accept")
	if strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html") {
		return false
	}
	if h.Get("X-Requested-With") != "" {
		return false
	}
	switch h.Get("Sec-Fetch-Mode") {
	case "cors", "no-cors", "same-origin", "websocket":
		return false
	}
	agent := h.Get("User-Agent")
	for _, browser := range []string{"Mozilla/", "Chrome/", "Safari/", "Firefox/", "Edg/", "Opera/"} {
		if strings.Contains(agent, browser) {
			return true
		}
	}
	return false
}
