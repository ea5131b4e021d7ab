package envd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/internal/envd"
	"github.com/cove-sandbox/cove/internal/envd/account"
	"github.com/cove-sandbox/cove/internal/envd/files"
	"github.com/cove-sandbox/cove/internal/envd/paths"
	"github.com/cove-sandbox/cove/internal/envd/settings"
)

// The fuzz targets look for panics, for answers that no caller is promised, and
// for files outside of where they belong. "make test" runs their seeds.

// handler returns the daemon's handler without the daemon: nothing is started.
// The only user's home, and what relative paths mean, is dir.
func handler(t testing.TB, dir string) http.Handler {
	t.Helper()
	passwd, group := filepath.Join(dir, ".passwd"), filepath.Join(dir, ".group")
	for path, content := range map[string]string{passwd: "root:x:0:0:root:" + dir + ":/bin/false\n", group: "root:x:0:\n"} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	d, err := envd.New(envd.Config{
		Listener: ln, Log: slog.New(slog.DiscardHandler), ControlToken: control, Passwd: passwd, Group: group,
		Path: "/nonexistent",
	})
	if err != nil {
		t.Fatal(err)
	}
	return d.Handler()
}

func serve(t testing.TB, h http.Handler, method, target string, header map[string]string, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	req := (&http.Request{
		Method: method, URL: u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Host: "x",
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), RequestURI: target,
	}).WithContext(ctx)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func FuzzResolve(f *testing.F) {
	for _, seed := range []string{"", "~", "~/a", "~b", "a/../..", "/a/./b//", "\x00", "a\x00b", "~\x00", "\xff", "~/../x"} {
		f.Add(seed, "")
		f.Add("", seed)
	}
	u := account.User{Name: "user", Home: "/home/user"}
	f.Fuzz(func(t *testing.T, path, workdir string) {
		got, err := u.Resolve(path, workdir)
		if err != nil {
			return
		}
		if strings.ContainsRune(got, 0) {
			t.Errorf("%q, %q: %q has a zero byte", path, workdir, got)
		}
		if !filepath.IsAbs(got) {
			t.Errorf("%q, %q: %q is relative", path, workdir, got)
		}
	})
}

// FuzzPartName uploads a file under a name that a form gives it.
func FuzzPartName(f *testing.F) {
	for _, seed := range []string{
		`form-data; name="file"; filename="a.txt"`, `form-data; name=file; filename=a/b/c`, `form-data; name="file"; filename*=UTF-8''%e2%82%ac`,
		`form-data; name="file"; filename="a\"b\\c"`, `form-data; name="file"`, `form-data; name="file"; filename="` + strings.Repeat("x", 300) + `"`,
		`attachment; name="file"; filename="a"; filename*0="b"; filename*1="c"`, `form-data; name="file"; filename="."`, "",
	} {
		f.Add(seed)
	}
	dir := f.TempDir()
	h := handler(f, dir)
	f.Fuzz(func(t *testing.T, disposition string) {
		if strings.ContainsAny(disposition, "/~") && strings.Contains(disposition, "file") {
			return // it may name any file of this machine
		}
		body := "--b\r\nContent-Disposition: " + disposition + "\r\n\r\ncontent\r\n--b--\r\n"
		w := serve(t, h, "POST", "/files", map[string]string{"Content-Type": "multipart/form-data; boundary=b"}, []byte(body))
		if w.Code != 200 && w.Code != 400 && w.Code != 403 {
			t.Errorf("%q: %d %s", disposition, w.Code, w.Body)
		}
	})
}

func FuzzSignature(f *testing.F) {
	const token, path = "secret", "/etc/hostname"
	good := files.Sign(path, files.Read, "", token, nil)
	f.Add(path, good, "", "")
	f.Add(path, good, "root", "")
	f.Add(path, good, "", "0")
	f.Add(path+":read", strings.TrimRight(good, "="), "", "99999999999999999999")
	f.Add("", "v1_", "", "-1")
	store := settings.New(nil)
	store.Apply(settings.Change{Token: token})
	h := files.New(files.Config{
		Users: account.New("/etc/passwd", "/etc/group"), Settings: store, Log: slog.New(slog.DiscardHandler),
	})
	f.Fuzz(func(t *testing.T, path, signature, user, expiration string) {
		q := url.Values{"path": {path}, "signature": {signature}, "username": {user}, "signature_expiration": {expiration}}
		if expiration == "" {
			q.Del("signature_expiration")
		}
		w := httptest.NewRecorder()
		h.Download(w, httptest.NewRequest("GET", "/files?"+q.Encode(), nil))
		if w.Code == 401 || w.Code == 400 && expiration != "" {
			return
		}
		var at *int64
		if n, err := strconv.ParseInt(expiration, 10, 64); err == nil {
			at = &n
		}
		if signature != files.Sign(path, files.Read, user, token, at) {
			t.Errorf("%q was let through: %d %s", q, w.Code, w.Body)
		}
	})
}

// framed puts a message into the envelope of a stream.
func framed(flags byte, message string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message))), message...)
}

// FuzzStream sends what is to be a stream of messages.
func FuzzStream(f *testing.F) {
	for _, body := range [][]byte{
		framed(0, `{"process":{"cmd":"none","args":["a"],"envs":{"A":"b"},"cwd":"."},"tag":"t","stdin":false}`),
		framed(0, `{"process":{"cmd":"none"},"pty":{"size":{"cols":4294967295,"rows":1}}}`),
		framed(0, `{"process":{"cmd":"none","envs":{"A=":"\u0000"}}}`), framed(0, `{"process":{}}`), framed(0, `{"colour":1}`), framed(0, `[]`),
		framed(1, "\x1f\x8b"), framed(2, "{}"), framed(0xff, ""), append(framed(0, `{"process":{"pid":1}}`), framed(0, "{}")...),
		{0, 0xff, 0xff, 0xff, 0xff}, {0, 0, 0}, {},
		framed(0, `{"start":{"process":{"tag":"t"}}}`), framed(0, strings.Repeat(`{"process":`, 200)),
	} {
		for _, json := range []bool{true, false} {
			f.Add("Start", json, body)
			f.Add("Connect", json, body)
			f.Add("StreamInput", json, body)
		}
	}
	h := handler(f, f.TempDir())
	f.Fuzz(func(t *testing.T, method string, json bool, body []byte) {
		if method != "Start" && method != "Connect" && method != "StreamInput" {
			return // another method
		}
		if method == "Start" && bytes.Contains(body, []byte("/")) {
			return // it may run any program of this machine
		}
		kind := "application/connect+proto"
		if json {
			kind = "application/connect+json"
		}
		w := serve(t, h, "POST", "/process.Process/"+method, map[string]string{"Content-Type": kind, "Connect-Protocol-Version": "1"}, body)
		if w.Code != 200 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		// Whatever it is, it ends with a message that says so.
		for out := w.Body.Bytes(); ; {
			if len(out) < 5 || uint64(len(out)-5) < uint64(binary.BigEndian.Uint32(out[1:])) {
				t.Fatalf("a broken answer: %q", w.Body)
			}
			if out[0]&2 != 0 {
				break
			}
			out = out[5+binary.BigEndian.Uint32(out[1:]):]
		}
	})
}

// FuzzCall sends a message that asks to look at something.
func FuzzCall(f *testing.F) {
	for _, body := range []string{
		`{"path":"a"}`, `{"path":""}`, `{"path":"~x"}`, `{"path":"a\u0000"}`, `{"path":"a","depth":4294967295}`, `{"path":1}`, `{"process":{"pid":-1}}`,
		`{"process":{"tag":"x"},"signal":"SIGNAL_SIGKILL"}`, `{"process":{"tag":"x"},"signal":99}`, `{"watcherId":"w"}`, `{`, ``, "\xff", `{"path":"\ud800"}`, `null`,
	} {
		for _, method := range callable {
			f.Add(method, true, []byte(body))
			f.Add(method, false, []byte(body))
		}
	}
	h := handler(f, f.TempDir())
	f.Fuzz(func(t *testing.T, method string, json bool, body []byte) {
		known := false
		for _, m := range callable {
			known = known || m == method
		}
		if !known {
			return // another method
		}
		kind := "application/proto"
		if json {
			kind = "application/json"
		}
		w := serve(t, h, "POST", "/"+method, map[string]string{"Content-Type": kind, "Connect-Protocol-Version": "1"}, body)
		// Of the failures above 500 only "unimplemented" may come of a message.
		if w.Code >= 500 && w.Code != http.StatusNotImplemented && !strings.Contains(w.Body.String(), `"internal"`) {
			t.Errorf("%s %q: %d %s", method, body, w.Code, w.Body)
		}
	})
}

// callable are the methods that change nothing, whatever they are sent.
var callable = []string{
	"process.Process/List", "process.Process/SendSignal", "process.Process/SendInput", "process.Process/Update", "process.Process/CloseStdin",
	"filesystem.Filesystem/Stat", "filesystem.Filesystem/GetWatcherEvents", "filesystem.Filesystem/RemoveWatcher",
}

func FuzzConnectPort(f *testing.F) {
	for _, seed := range []string{"port=1", "port=0", "port=65536", "port=-1", "port=+1", "port=1&port=2", "port=0x1", "port=%31", "", "port", "port=１", ";"} {
		f.Add(seed)
	}
	h := handler(f, f.TempDir())
	f.Fuzz(func(t *testing.T, query string) {
		w := serve(t, h, "GET", paths.Connect+"?"+(&url.URL{RawQuery: query}).Query().Encode(), map[string]string{paths.ControlHeader: control}, nil)
		// Without the wish to be upgraded nothing is dialled.
		if w.Code != http.StatusBadRequest && w.Code != http.StatusUpgradeRequired {
			t.Errorf("%q: %d %s", query, w.Code, w.Body)
		}
		port, err := strconv.ParseUint((&url.URL{RawQuery: query}).Query().Get("port"), 10, 16)
		if valid := err == nil && port > 0; valid != (w.Code == http.StatusUpgradeRequired) {
			t.Errorf("%q: %d", query, w.Code)
		}
		if !strings.HasPrefix(w.Body.String(), fmt.Sprintf(`{"code":%d,`, w.Code)) {
			t.Errorf("%q: %s", query, w.Body)
		}
	})
}
