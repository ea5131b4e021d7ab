package image_test

import (
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/image"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// A hub is a registry in this process that counts downloads of blobs.
type hub struct {
	host  string
	blobs atomic.Int64
}

func newHub(t *testing.T, before func(w http.ResponseWriter, r *http.Request) (done bool)) *hub {
	t.Helper()
	h := &hub{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			h.blobs.Add(1)
		}
		if before == nil || !before(w, r) {
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	h.host = strings.TrimPrefix(srv.URL, "http://")
	return h
}

func (h *hub) push(t *testing.T, repo string, ii v1.ImageIndex) {
	t.Helper()
	ref, err := name.ParseReference(h.host + "/" + repo)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, ii); err != nil {
		t.Fatal(err)
	}
}

func TestRegistry(t *testing.T) {
	h := newHub(t, nil)
	h.push(t, "a/b:v1", index(t))
	img, err := image.FromRegistry(t.Context(), h.host+"/a/b:v1", image.Registry{})
	wantImage(t, img, err)

	again, err := image.FromRegistry(t.Context(), h.host+"/a/b@"+img.Digest, image.Registry{})
	wantImage(t, again, err)
	if again.Digest != img.Digest {
		t.Errorf("by digest %s got %s", img.Digest, again.Digest)
	}
}

func TestRegistryCache(t *testing.T) {
	h := newHub(t, nil)
	h.push(t, "a:v1", index(t))
	cache := t.TempDir()
	for range 2 {
		img, err := image.FromRegistry(t.Context(), h.host+"/a:v1", image.Registry{CacheDir: cache})
		wantImage(t, img, err)
	}
	if n := h.blobs.Load(); n != 2+2 { // a configuration each time, each layer once
		t.Errorf("%d downloads, want 4", n)
	}
	left, err := filepath.Glob(filepath.Join(cache, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestRegistryMirror(t *testing.T) {
	mirror := newHub(t, nil)
	mirror.push(t, "hub/library/a:v1", index(t))
	r := image.Registry{Mirrors: map[string][]string{"docker.io": {"http://127.0.0.1:1/dead", "http://" + mirror.host + "/hub"}}}
	img, err := image.FromRegistry(t.Context(), "a:v1", r)
	wantImage(t, img, err)
}

func TestRegistryCredentials(t *testing.T) {
	h := newHub(t, func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, ok := r.BasicAuth(); r.Method == http.MethodGet && (!ok || user != "u" || password != "p") {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	})
	ref := h.host + "/a:v1"
	var asked string
	r := image.Registry{Credentials: func(host string) (string, string, bool) { asked = host; return "u", "p", true }}
	if _, err := image.FromRegistry(t.Context(), ref, r); !cove.Is(err, cove.NotFound) || asked != h.host {
		t.Errorf("with credentials (asked for %q): %v", asked, err)
	}
	if _, err := image.FromRegistry(t.Context(), ref, image.Registry{}); !cove.Is(err, cove.Forbidden) {
		t.Errorf("without: %v", err)
	}
}

func TestRegistryRefused(t *testing.T) {
	h := newHub(t, nil)
	h.push(t, "a:v1", index(t))
	tests := map[string]struct {
		ref  string
		r    image.Registry
		kind cove.Kind
	}{
		"not a reference": {"A B", image.Registry{}, cove.Invalid},
		"unknown":         {h.host + "/b:v1", image.Registry{}, cove.NotFound},
		"no registry":     {"127.0.0.1:1/a", image.Registry{}, cove.Unavailable},
		"too big":         {h.host + "/a:v1", image.Registry{MaxBytes: 10}, cove.Exhausted},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := image.FromRegistry(t.Context(), test.ref, test.r)
			kind, msg := cove.Describe(err)
			if kind != test.kind || strings.Contains(msg, "dial") {
				t.Errorf("got %v: %s (%v)", kind, msg, err)
			}
		})
	}
}

// TestRegistryCacheDamaged: a download that goes wrong is not kept.
func TestRegistryCacheDamaged(t *testing.T) {
	var damage atomic.Bool
	h := newHub(t, func(w http.ResponseWriter, r *http.Request) bool {
		if damage.Load() && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			_, _ = io.WriteString(w, "something else")
			return true
		}
		return false
	})
	h.push(t, "a:v1", index(t))
	cache := t.TempDir()
	img, err := image.FromRegistry(t.Context(), h.host+"/a:v1", image.Registry{CacheDir: cache})
	if err != nil {
		t.Fatal(err)
	}
	damage.Store(true)
	if _, err := readLayer(t.Context(), img.Layers[0]); err == nil {
		t.Error("a damaged layer was read")
	}
	damage.Store(false)
	if kept, err := fs.Glob(os.DirFS(cache), "*"); err != nil || len(kept) > 0 {
		t.Errorf("kept %v, %v", kept, err)
	}
	wantImage(t, img, nil)
}
