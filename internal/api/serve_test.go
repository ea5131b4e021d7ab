package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	cove "github.com/cove-sandbox/cove"
)

func TestHealthNeedsNoKey(t *testing.T) {
	f := newFixture(t)
	for _, method := range []string{"GET", "HEAD"} {
		if w := f.send(httptest.NewRequest(method, "/health", nil)); w.Code != http.StatusOK {
			t.Errorf("%s /health: status %d", method, w.Code)
		}
	}
}

func TestEveryOtherRouteNeedsAKey(t *testing.T) {
	f := newFixture(t)
	routes := []string{
		"GET /sandboxes", "POST /sandboxes", "GET /v2/sandboxes", "POST /v2/sandboxes", "GET /sandboxes/iabc",
		"DELETE /sandboxes/iabc", "POST /sandboxes/iabc/timeout", "POST /sandboxes/iabc/refreshes",
		"POST /sandboxes/iabc/connect", "POST /v2/sandboxes/iabc/connect",
		"GET /v2/sandboxes?limit=x", // no hint to who has no key
		"POST /v3/templates", "GET /v2/templates", "POST /v2/templates", "GET /templates", "POST /templates",
		"GET /templates/t1", "POST /templates/t1", "PATCH /templates/t1", "DELETE /templates/t1", "DELETE /templates/my-team/t1",
		"PATCH /v2/templates/t1", "GET /templates/aliases/t1", "GET /templates/t1/files/x", "POST /v2/templates/t1/builds/x",
		"POST /templates/t1/builds/x", "GET /templates/t1/builds/x/status", "GET /templates/t1/builds/x/logs",
		"POST /templates/tags", "DELETE /templates/tags", "GET /templates/t1/tags", "GET /templates/t1/tags/count",
		"GET /templates/t1/tags/exists",
	}
	for _, route := range routes {
		t.Run(route, func(t *testing.T) {
			method, target, _ := strings.Cut(route, " ")
			wantError(t, f.send(httptest.NewRequest(method, target, nil)), 401, "API key is missing")
			r := httptest.NewRequest(method, target, nil)
			r.Header.Set("X-API-KEY", "e2b_"+strings.Repeat("0", 40))
			wantError(t, f.send(r), 401, "Invalid API key", "cove env")
		})
	}
	if f.control.calls != nil {
		t.Errorf("the control plane was asked to %v", f.control.calls)
	}
	r := httptest.NewRequest("GET", "/sandboxes/iabc", nil)
	r.Header.Set("Authorization", "Bearer "+plainKey)
	if w := f.send(r); w.Code != http.StatusOK {
		t.Errorf("a bearer key: status %d", w.Code)
	}
}

func TestErrorsOfTheControlPlane(t *testing.T) {
	const secret = "/var/lib/cove/x 10.1.2.3"
	say := func(kind cove.Kind) error {
		return fmt.Errorf("wrapped %s: %w", secret, cove.E(kind, "op", errors.New(secret), "said aloud"))
	}
	tests := []struct {
		name   string
		err    error
		status int
		words  string
		level  string // of the log line; empty: none
	}{
		{"invalid", say(cove.Invalid), 400, "said aloud", ""},
		{"unauthorized", say(cove.Unauthorized), 401, "said aloud", ""},
		{"forbidden", say(cove.Forbidden), 403, "said aloud", ""},
		{"not found", say(cove.NotFound), 404, "said aloud", ""},
		{"conflict", say(cove.Conflict), 409, "said aloud", ""},
		{"exhausted", say(cove.Exhausted), 429, "said aloud", ""},
		{"unimplemented", say(cove.Unimplemented), 501, "said aloud", ""},
		{"unavailable", say(cove.Unavailable), 503, "said aloud", "WARN"},
		{"deadline exceeded", say(cove.DeadlineExceeded), 504, "said aloud", "WARN"},
		{"no space", say(cove.NoSpace), 507, "said aloud", "WARN"},
		{"internal", say(cove.Internal), 500, "said aloud", "ERROR"},
		{"any other", errors.New(secret), 500, "internal error", "ERROR"},
		{"a deadline", fmt.Errorf("%s: %w", secret, context.DeadlineExceeded), 504, "took too long", "WARN"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.control.err = tt.err
			w := f.do("POST", "/v2/sandboxes", `{"templateID":"base"}`)
			wantError(t, w, tt.status, tt.words)
			if strings.Contains(w.Body.String(), "/var/lib") || strings.Contains(w.Body.String(), "wrapped") {
				t.Errorf("the answer holds what is for the operator: %s", w.Body)
			}
			switch log := f.log.String(); {
			case tt.level == "" && log != "":
				t.Errorf("logged %s", log)
			case tt.level != "":
				for _, want := range []string{`"level":"` + tt.level, secret, w.Header().Get("X-Request-Id"), "POST /v2/sandboxes"} {
					if !strings.Contains(log, want) {
						t.Errorf("log %q does not hold %q", log, want)
					}
				}
			}
			if got := w.Header().Get("Should-Retry"); (got == "false") != (tt.status == 504) {
				t.Errorf("Should-Retry = %q", got)
			}
		})
	}
}

func TestACancelledRequestIsNoFault(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.control.err = context.Canceled
	// If it is the server that stops, the client still reads: not a success.
	w := f.send(request("GET", "/sandboxes/iabc", "").WithContext(ctx))
	wantError(t, w, 503, "cancelled")
	if f.log.Len() != 0 {
		t.Errorf("logged %s", f.log)
	}
}

func TestAPanicIsAnError(t *testing.T) {
	f := newFixture(t)
	f.control.panics = true
	w := f.do("GET", "/sandboxes/iabc", "")
	wantError(t, w, 500, "internal error")
	if strings.Contains(w.Body.String(), "secret") {
		t.Errorf("the answer holds the panic: %s", w.Body)
	}
	for _, want := range []string{"something secret", "fake_test.go", w.Header().Get("X-Request-Id")} {
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("log %q does not hold %q", f.log, want)
		}
	}
}

func TestRequestsThatNoRouteTakes(t *testing.T) {
	tests := []struct {
		method, target string
		status         int
		words, allow   string
	}{
		{"GET", "/", 404, "GET /", ""},
		{"GET", "/nowhere", 404, "/nowhere", ""},
		{"GET", "/" + strings.Repeat("a", 5000), 404, "...", ""},
		{"GET", "/sandboxes/", 404, "/sandboxes/", ""},
		{"POST", "/sandboxes//timeout", 404, "/sandboxes//timeout", ""},
		{"POST", "/sandboxes/../v2/sandboxes", 404, "no route", ""},
		{"PUT", "/sandboxes", 405, "GET, HEAD, POST", "GET, HEAD, POST"},
		{"PATCH", "/sandboxes/iabc", 405, "DELETE, GET, HEAD", "DELETE, GET, HEAD"},
		{"GET", "/sandboxes/iabc/timeout", 405, "POST", "POST"},
		{"POST", "/health", 405, "GET, HEAD", "GET, HEAD"},
		{"GET", "/uploads/", 404, "/uploads/", ""},
		{"GET", "/uploads/x", 405, "PUT", "PUT"},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.target[:min(40, len(tt.target))], func(t *testing.T) {
			f := newFixture(t)
			w := f.do(tt.method, tt.target, "")
			wantError(t, w, tt.status, tt.words)
			if got := w.Header().Get("Allow"); got != tt.allow {
				t.Errorf("Allow = %q, want %q", got, tt.allow)
			}
			if w.Body.Len() > 1000 {
				t.Errorf("the answer has %d bytes", w.Body.Len())
			}
		})
	}
}

func TestPagesOfAnyOriginMayAsk(t *testing.T) {
	f := newFixture(t)
	r := httptest.NewRequest("OPTIONS", "/v2/sandboxes", nil)
	r.Header.Set("Origin", "https://example.com")
	r.Header.Set("Access-Control-Request-Method", "POST")
	r.Header.Set("Access-Control-Request-Headers", "x-api-key,content-type,lang")
	w := f.send(r)
	if w.Code != http.StatusNoContent {
		t.Errorf("status %d", w.Code)
	}
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin":  "*",
		"Access-Control-Allow-Headers": "x-api-key,content-type,lang",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if got := w.Header().Get("Access-Control-Allow-Methods"); !strings.Contains(got, "DELETE") {
		t.Errorf("Access-Control-Allow-Methods = %q", got)
	}
	w = f.do("GET", "/v2/sandboxes", "")
	if got := w.Header().Get("Access-Control-Expose-Headers"); !strings.Contains(got, "X-Next-Token") {
		t.Errorf("Access-Control-Expose-Headers = %q", got)
	}
	if w := f.do("GET", "/nowhere", ""); w.Header().Get("Access-Control-Allow-Origin") != "*" {
		t.Error("an error is hidden from the page")
	}
}
