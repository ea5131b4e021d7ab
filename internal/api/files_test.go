package api_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	cove "github.com/cove-sandbox/cove"
)

func TestFilesUpload(t *testing.T) {
	for _, tt := range []struct {
		present bool
		token   string
		want    map[string]any
	}{
		{false, "a.b-c", map[string]any{"present": false, "url": "http://example.com/uploads/a.b-c"}},
		{true, "a", map[string]any{"present": true, "url": "http://example.com/uploads/a"}},
		{true, "", map[string]any{"present": true}},
		{false, "a/b?", map[string]any{"present": false, "url": "http://example.com/uploads/a%2Fb%3F"}},
	} {
		f := templateFixture(t)
		f.control.present, f.control.token = tt.present, tt.token
		w := f.do("GET", "/templates/my-team%2Fweb/files/"+hash, "")
		if diff := cmp.Diff(tt.want, fields(t, w)); diff != "" || w.Code != http.StatusCreated {
			t.Errorf("%d (-want +got):\n%s", w.Code, diff)
		}
		if f.control.name != "my-team/web" || f.control.hash != hash || f.control.team != team {
			t.Errorf("asked by %s for %s of %s", f.control.team, f.control.hash, f.control.name)
		}
	}
	f := templateFixture(t)
	for _, bad := range []string{"x", strings.ToUpper(hash), hash + "0", "..%2f" + hash} {
		wantError(t, f.do("GET", "/templates/web/files/"+bad, ""), 400, "Invalid files hash")
	}
	if len(f.control.calls) != 0 {
		t.Errorf("calls: %v", f.control.calls)
	}
	f.control.err = cove.E(cove.NotFound, "fake", nil, "template 'web' not found")
	wantError(t, f.do("GET", "/templates/web/files/"+hash, ""), 404, "template 'web' not found")
}

func TestUploadsGoWhereTheClientIs(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*http.Request)
		want   string
	}{
		"its host and port":         {func(r *http.Request) { r.Host = "cove.test:3000" }, "http://cove.test:3000/"},
		"an address":                {func(r *http.Request) { r.Host = "[::1]:3000" }, "http://[::1]:3000/"},
		"TLS":                       {func(r *http.Request) { r.TLS = &tls.ConnectionState{} }, "https://example.com/"},
		"TLS in front":              {func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "https") }, "https://example.com/"},
		"TLS in front of the front": {func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "HTTPS, http") }, "https://example.com/"},
		"nonsense in front":         {func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "javascript") }, "http://example.com/"},
	} {
		f := templateFixture(t)
		f.control.token = "tok"
		r := request("GET", "/templates/web/files/"+hash, "")
		tt.change(r)
		if got := fields(t, f.send(r))["url"]; got != tt.want+"uploads/tok" {
			t.Errorf("%s: %v, want it under %s", name, got, tt.want)
		}
	}
}

func TestUploadFiles(t *testing.T) {
	f := templateFixture(t)
	f.control.token = "a/b.c"
	put := func(path string, body io.Reader) *httptest.ResponseRecorder {
		return f.send(httptest.NewRequest("PUT", path, body)) // without a key
	}
	large := strings.Repeat("tar", 10<<20)
	// The recorder's request has a length only if the reader tells it.
	for name, body := range map[string]io.Reader{"with a length": strings.NewReader(large), "without one": io.MultiReader(strings.NewReader(large))} {
		f.control.stored = ""
		if w := put("/uploads/a%2Fb.c", body); w.Code != http.StatusCreated || w.Body.Len() != 0 || f.control.stored != large {
			t.Errorf("%s: %d %s, %d bytes are stored", name, w.Code, w.Body, len(f.control.stored))
		}
	}
	wantError(t, put("/uploads/other", strings.NewReader("x")), 403, "not valid any more")
	w := put("/uploads/a%2Fb.c", io.MultiReader(strings.NewReader("x"), broken{}))
	wantError(t, w, 500, "internal error")
}

// broken is a body whose client has gone.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection reset") }
