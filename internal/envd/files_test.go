package envd_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/cove-sandbox/cove/internal/envd/envdclient"
	"github.com/cove-sandbox/cove/internal/envd/files"
)

const octets = "application/octet-stream"

func at(path string, more ...string) string {
	q := url.Values{"path": {path}}
	for i := 0; i < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return "/files?" + q.Encode()
}

func (d *daemon) want(what string, status int, body string) func(int, http.Header, string) {
	d.t.Helper()
	return func(gotStatus int, _ http.Header, got string) {
		d.t.Helper()
		if gotStatus != status || got != body {
			d.t.Errorf("%s: %d %s\nwant %d %s", what, gotStatus, got, status, body)
		}
	}
}

func failure(status int, text string) string {
	return `{"code":` + strconv.Itoa(status) + `,"message":"` + text + `"}`
}

func gzipped(t *testing.T, text string) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestSignVector(t *testing.T) {
	got := files.Sign("hello.txt", files.Read, "user", "0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0", nil)
	if want := "v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E"; got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
}

func TestUploadDownload(t *testing.T) {
	d := start(t, nil)
	path := d.path("user/a/b/hello.txt")
	d.want("upload", 200, `[{"path":"`+path+`","name":"hello.txt","type":"file"}]`)(
		d.do("POST", at("a/b/hello.txt", "username", "user"), map[string]string{"Content-Type": octets}, []byte("hello")))
	for _, p := range []string{path, d.path("user/a"), d.path("user/a/b")} {
		var st syscall.Stat_t
		if err := syscall.Stat(p, &st); err != nil || st.Uid != 1000 || st.Gid != 1000 {
			t.Errorf("%s belongs to %d:%d, %v", p, st.Uid, st.Gid, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	status, h, body := d.do("GET", at(path), nil, nil)
	if status != 200 || body != "hello" || h.Get("Content-Length") != "5" || h.Get("Vary") != "Accept-Encoding" ||
		h.Get("Content-Disposition") != "inline; filename=hello.txt" {
		t.Errorf("download: %d %q %v", status, body, h)
	}
	status, h, body = d.do("GET", at(path), map[string]string{"Accept-Encoding": "gzip", "Range": "bytes=1-2"}, nil)
	if status != 206 || body != "el" || h.Get("Content-Encoding") != "" {
		t.Errorf("range: %d %q %v", status, body, h)
	}
	status, h, body = d.do("GET", at(path), map[string]string{"Accept-Encoding": "gzip, deflate"}, nil)
	z, err := gzip.NewReader(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil || string(plain) != "hello" || status != 200 || h.Get("Content-Encoding") != "gzip" {
		t.Errorf("gzip: %d %q %v %v", status, plain, err, h)
	}
	d.want("406", 406, failure(406, "no acceptable encoding found, supported: gzip, identity"))(
		d.do("GET", at(path), map[string]string{"Accept-Encoding": "identity;q=0, br"}, nil))

	empty := d.write("empty", "")
	status, h, body = d.do("GET", at(empty), map[string]string{"Accept-Encoding": "gzip"}, nil)
	if status != 200 || body != "" || h.Get("Content-Length") != "0" || h.Get("Content-Encoding") != "" {
		t.Errorf("empty: %d %q %v", status, body, h)
	}
	want, err := os.ReadFile("/proc/version")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, body = d.do("GET", at("/proc/version"), nil, nil); body != string(want) {
		t.Errorf("procfs: %q", body)
	}
	for target, want := range map[string]string{
		at("/no/such"):                 failure(404, "path '/no/such' does not exist"),
		at(d.dir):                      failure(400, "path '"+d.dir+"' is a directory"),
		at("~x/y"):                     failure(400, "cannot expand user-specific home dir"),
		at("x", "username", "nosuch1"): failure(401, "error looking up user 'nosuch1': user: unknown user nosuch1"),
		at("/dev/zero"):                failure(400, "path '/dev/zero' is not a regular file"),
	} {
		status, _ := strconv.Atoi(want[8:11])
		d.want(target, status, want)(d.do("GET", target, nil, nil))
	}
}

func TestUploadKinds(t *testing.T) {
	d := start(t, nil)
	post := func(target string, header map[string]string, body []byte) (int, http.Header, string) {
		t.Helper()
		return d.do("POST", target, header, body)
	}
	zipped := gzipped(t, strings.Repeat("zip", 100_000))
	d.want("gzip", 200, `[{"path":"`+d.path("root/z")+`","name":"z","type":"file"}]`)(
		post(at("z"), map[string]string{"Content-Type": octets, "Content-Encoding": "gzip"}, zipped))
	if got, err := os.ReadFile(d.path("root/z")); err != nil || string(got) != strings.Repeat("zip", 100_000) {
		t.Errorf("gzip: %d bytes, %v", len(got), err)
	}
	d.want("cut gzip", 400, failure(400, "the body is not valid gzip, or was cut"))(
		post(at("cut"), map[string]string{"Content-Type": octets, "Content-Encoding": "gzip"}, zipped[:len(zipped)/2]))
	if _, err := os.Stat(d.path("root/cut")); !os.IsNotExist(err) {
		t.Errorf("half a file is left: %v", err)
	}
	d.want("no path", 400, failure(400, "path is required for an application/octet-stream upload"))(
		post("/files", map[string]string{"Content-Type": octets}, nil))
	d.want("other type", 400, failure(400, "unsupported content type: text/plain"))(
		post(at("x"), map[string]string{"Content-Type": "text/plain"}, nil))
	d.want("directory", 400, failure(400, "path is a directory: "+d.dir))(
		post(at(d.dir), map[string]string{"Content-Type": octets}, nil))
	d.want("below a file", 400, failure(400, "path is a file: "+d.path("root/z")))(
		post(at("z/y"), map[string]string{"Content-Type": octets}, nil))

	// Shorter than what was there; and the owner changes.
	d.want("again", 200, `[{"path":"`+d.path("root/z")+`","name":"z","type":"file"}]`)(
		post(at(d.path("root/z"), "username", "user"), map[string]string{"Content-Type": octets}, []byte("new")))
	var st syscall.Stat_t
	if err := syscall.Stat(d.path("root/z"), &st); err != nil || st.Uid != 1000 || st.Size != 3 {
		t.Errorf("overwritten: %+v, %v", st, err)
	}
}

// form makes a multipart body of (field, file name, content).
func form(t *testing.T, parts ...[3]string) (map[string]string, []byte) {
	t.Helper()
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	for _, p := range parts {
		disposition := `form-data; name="` + p[0] + `"`
		if p[1] != "" {
			disposition += `; filename="` + p[1] + `"`
		}
		part, err := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {disposition}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(part, p[2]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"Content-Type": w.FormDataContentType()}, buf.Bytes()
}

func TestMultipart(t *testing.T) {
	d := start(t, nil)
	header, body := form(t, [3]string{"other", "", "x"}, [3]string{"file", d.path("m/one"), "1"}, [3]string{"file", "deep/two", "2"})
	d.want("many", 200, `[{"path":"`+d.path("m/one")+`","name":"one","type":"file"},{"path":"`+d.path("root/deep/two")+`","name":"two","type":"file"}]`)(
		d.do("POST", "/files", header, body))
	header, body = form(t, [3]string{"file", "", "content"})
	d.want("path in query", 200, `[{"path":"`+d.path("root/hello.txt")+`","name":"hello.txt","type":"file"}]`)(
		d.do("POST", at("hello.txt"), header, body))
	d.want("no name", 400, failure(400, "a file has no path: give it in the query or as the part's file name"))(
		d.do("POST", "/files", header, body))
	header, body = form(t, [3]string{"file", "a", "1"}, [3]string{"file", "b", "2"})
	status, _, text := d.do("POST", at("same"), header, body)
	if status != 400 || !strings.Contains(text, "you cannot upload multiple files to the same path '"+d.path("root/same")+"'") {
		t.Errorf("twice: %d %s", status, text)
	}
}

func TestSignedFiles(t *testing.T) {
	d := start(t, nil)
	const token = "secret"
	d.init(envdclient.Init{AccessToken: token})
	path := d.write("signed", "content")
	past, future := time.Now().Unix()-1, time.Now().Unix()+100
	sign := func(expires *int64) string { return files.Sign(path, files.Read, "", token, expires) }
	unix := func(n int64) string { return strconv.FormatInt(n, 10) }
	for _, c := range []struct {
		name, target string
		header       map[string]string
		status       int
		body         string
	}{
		{"nothing", at(path), nil, 401, failure(401, "missing signature query parameter")},
		{"token", at(path), map[string]string{"X-Access-Token": token}, 200, "content"},
		{"wrong token", at(path, "signature", sign(nil)), map[string]string{"X-Access-Token": "x"}, 401, failure(401, "access token present in header but does not match")},
		{"signature", at(path, "signature", sign(nil)), nil, 200, "content"},
		{"for another user", at(path, "signature", sign(nil), "username", "root"), nil, 401, failure(401, "invalid signature")},
		{"expiring", at(path, "signature", sign(&future), "signature_expiration", unix(future)), nil, 200, "content"},
		{"expired", at(path, "signature", sign(&past), "signature_expiration", unix(past)), nil, 401, failure(401, "signature is already expired")},
		{"stretched", at(path, "signature", sign(&past), "signature_expiration", unix(future)), nil, 401, failure(401, "invalid signature")},
		{"not found is later", at("/no/such"), nil, 401, failure(401, "missing signature query parameter")},
	} {
		d.want(c.name, c.status, c.body)(d.do("GET", c.target, c.header, nil))
	}
	header, body := form(t, [3]string{"file", "", "x"})
	d.want("a read signature does not write", 401, failure(401, "invalid signature"))(
		d.do("POST", at(path, "signature", sign(nil)), header, body))
}

func TestMetadata(t *testing.T) {
	d := start(t, nil)
	target := at(d.path("meta"))
	d.want("set", 200, `[{"path":"`+d.path("meta")+`","name":"meta","type":"file","metadata":{"author":"me","key-two":"2"}}]`)(
		d.do("POST", target, map[string]string{"Content-Type": octets, "X-Metadata-Author": "me", "X-Metadata-Key-Two": "2"}, nil))
	if err := unix.Setxattr(d.path("meta"), "user.e2b.own", []byte("bad\xff"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(d.path("meta"), d.path("moved")); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"author": "me", "key-two": "2", "own": "bad\uFFFD"}
	if diff := cmp.Diff(want, d.stat(d.path("moved")).GetMetadata()); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	d.want("cleared", 200, `[{"path":"`+d.path("moved")+`","name":"moved","type":"file"}]`)(
		d.do("POST", at(d.path("moved")), map[string]string{"Content-Type": octets}, nil))
	if got := d.stat(d.path("moved")).GetMetadata(); len(got) != 0 {
		t.Errorf("metadata is left: %v", got)
	}
	for _, value := range []string{"\u00e9", strings.Repeat("x", 4096)} {
		status, _, text := d.do("POST", target, map[string]string{"Content-Type": octets, "X-Metadata-K": value}, nil)
		if status != 400 || !strings.Contains(text, "invalid metadata: ") {
			t.Errorf("%d bytes: %d %s", len(value), status, text)
		}
	}
}

func TestCompose(t *testing.T) {
	d := start(t, nil)
	a, b := d.write("a", "first "), d.write("b", "second")
	body := `{"source_paths":["` + a + `","` + b + `"],"destination":"joined/c","username":"user"}`
	d.want("compose", 200, `{"path":"`+d.path("user/joined/c")+`","name":"c","type":"file"}`)(d.do("POST", "/files/compose", nil, []byte(body)))
	if got, err := os.ReadFile(d.path("user/joined/c")); err != nil || string(got) != "first second" {
		t.Errorf("got %q, %v", got, err)
	}
	d.want("sources are gone", 404, failure(404, "path '"+a+"' does not exist"))(d.do("POST", "/files/compose", nil, []byte(body)))
	left, err := os.ReadDir(d.path("user/joined"))
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestDiskFull(t *testing.T) {
	d := start(t, nil)
	small := d.path("small")
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	d.want("full", 507, failure(507, "attempted to write 100000 bytes: not enough disk space available"))(
		d.do("POST", at(small+"/big"), map[string]string{"Content-Type": octets}, make([]byte, 100_000)))
	if _, err := os.Stat(small + "/big"); !os.IsNotExist(err) {
		t.Errorf("half a file is left: %v", err)
	}
}

func TestInterruptedUpload(t *testing.T) {
	d := start(t, nil)
	conn, err := net.Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	head := "POST " + at(d.path("half")) + " HTTP/1.1\r\nHost: x\r\nContent-Type: " + octets + "\r\nContent-Length: 10000000\r\n\r\n"
	if _, err := io.WriteString(conn, head+strings.Repeat("x", 1<<20)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the upload has begun", func() bool { info, err := os.Stat(d.path("half")); return err == nil && info.Size() > 0 })
	conn.Close()
	eventually(t, "what was begun is removed", func() bool { _, err := os.Stat(d.path("half")); return os.IsNotExist(err) })
}
