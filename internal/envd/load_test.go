package envd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/cove-sandbox/cove/internal/envd"
	"github.com/cove-sandbox/cove/internal/gen/filesystem"
	"github.com/cove-sandbox/cove/internal/gen/process"
)

// names are what a file may be called and seldom is.
var names = []string{
	" leading and trailing ", "two\nlines\n", "tab\tquote\"'`$(x)\\", "-rf", "*", "%2F%00", "\u202eright to left",
	"e\u0301 and \u00e9", "😀", "\x01\x7f", "...", strings.Repeat("n", 255), strings.Repeat("ü", 127) + "x",
}

func (d *daemon) list(path string) []string {
	d.t.Helper()
	resp, err := d.files.ListDir(d.t.Context(), connect.NewRequest(&filesystem.ListDirRequest{Path: path, Depth: 1}))
	if err != nil {
		d.t.Fatal(err)
	}
	var out []string
	for _, e := range resp.Msg.GetEntries() {
		if want := filepath.Join(path, e.GetName()); e.GetPath() != want {
			d.t.Errorf("path %q, want %q", e.GetPath(), want)
		}
		out = append(out, e.GetName())
	}
	return out
}

func TestUnusualNames(t *testing.T) {
	d := start(t, nil)
	dir := d.path("names")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := d.watch(&filesystem.WatchDirRequest{Path: dir})
	for _, name := range names {
		status, _, text := d.do("POST", at(filepath.Join(dir, name)), map[string]string{"Content-Type": octets}, []byte(name))
		if status != 200 {
			t.Fatalf("%q: %d %s", name, status, text)
		}
		w.want("WRITE "+name, "CREATE "+name, "CHMOD "+name, "WRITE "+name)
		if e := d.stat(filepath.Join(dir, name)); e.GetName() != name || e.GetSize() != int64(len(name)) {
			t.Errorf("%q: %v", name, e)
		}
		d.want(name, 200, name)(d.do("GET", at(filepath.Join(dir, name)), nil, nil))
	}
	want := slices.Sorted(slices.Values(names))
	if diff := cmp.Diff(want, d.list(dir)); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	// As a file name in a form, too, as far as a header can hold it.
	for _, name := range names {
		if strings.ContainsAny(name, "\n\x01\x7f") {
			continue
		}
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		part, err := form.CreateFormFile("file", filepath.Join(dir, "form", name))
		if err := errors.Join(err, func() error { _, err := io.WriteString(part, name); return err }(), form.Close()); err != nil {
			t.Fatal(err)
		}
		if status, _, text := d.do("POST", "/files", map[string]string{"Content-Type": form.FormDataContentType()}, body.Bytes()); status != 200 {
			t.Errorf("%q: %d %s", name, status, text)
		}
		d.want(name, 200, name)(d.do("GET", at(filepath.Join(dir, "form", name)), nil, nil))
	}
	status, _, text := d.do("POST", at(filepath.Join(dir, strings.Repeat("n", 256))), map[string]string{"Content-Type": octets}, nil)
	if status != 400 || !strings.Contains(text, "file name too long") {
		t.Errorf("256 bytes: %d %s", status, text)
	}
}

func TestLargeDirectory(t *testing.T) {
	d := start(t, nil)
	dir := d.path("large")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 50_000 {
		name := fmt.Sprintf("entry %d ünï", i)
		want = append(want, name)
		f, err := os.Create(filepath.Join(dir, name))
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, d.list(dir)); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
}

func TestWatchEndsOfDirectories(t *testing.T) {
	d := start(t, nil)
	dir := d.path("gone")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("gone", d.path("link")); err != nil {
		t.Fatal(err)
	}
	direct := d.watch(&filesystem.WatchDirRequest{Path: dir, Recursive: true})
	through := d.watch(&filesystem.WatchDirRequest{Path: d.path("link")})
	if err := os.Symlink("/nowhere", dir+"/dangling"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(".", dir+"/self"); err != nil {
		t.Fatal(err)
	}
	// A link is a file here: what it leads to is not watched along with it.
	direct.want("CREATE self", "CREATE dangling", "CREATE self")
	through.want("CREATE self", "CREATE dangling", "CREATE self")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	// The directory itself is the watcher's own name: a dot.
	if got := direct.until("REMOVE ."); len(got) != 3 {
		t.Errorf("directly: %q", got)
	}
	if got := through.until("REMOVE ."); !slices.Contains(got, "REMOVE self") {
		t.Errorf("through a link: %q", got)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	again := d.watch(&filesystem.WatchDirRequest{Path: dir})
	d.write("gone/new", "x")
	again.want("WRITE new", "CREATE new", "WRITE new")
}

// openFiles returns how many files this process has open.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// children counts the processes whose parent is this one.
func children(t *testing.T) int {
	t.Helper()
	var n int
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		list, _ := os.ReadFile(task) // the thread may have ended
		n += len(strings.Fields(string(list)))
	}
	return n
}

func TestManyCommandsLeaveNothing(t *testing.T) {
	d := start(t, func(c *envd.Config) { c.Retain = time.Millisecond })
	no := false
	command := &process.StartRequest{Process: &process.ProcessConfig{Cmd: "/bin/true"}, Stdin: &no}
	commands := func(n int) {
		var callers sync.WaitGroup
		for range 4 {
			callers.Go(func() {
				for range n / 4 {
					s, err := d.process.Start(t.Context(), connect.NewRequest(command))
					if err != nil {
						t.Error(err)
						return
					}
					var last *process.ProcessEvent
					for s.Receive() {
						last = s.Msg().GetEvent()
					}
					if err := errors.Join(s.Err(), s.Close()); err != nil || last.GetEnd().GetExitCode() != 0 {
						t.Errorf("%v, %v", last, err)
						return
					}
				}
			})
		}
		callers.Wait()
	}
	commands(100)
	files, goroutines, processes := openFiles(t), runtime.NumGoroutine(), children(t)
	before := heap()
	commands(10_000)
	eventually(t, "as many files, goroutines and processes as before", func() bool {
		// Connections come and go; each is one file and a few goroutines.
		return openFiles(t) <= files+8 && runtime.NumGoroutine() <= goroutines+24 && children(t) <= processes
	})
	if grown := heap() - before; grown > 2<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}

// heap returns how many bytes are in use.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// What nobody reads is read and forgotten: the process goes on, and the memory
// stays what it was.
func TestOutputNobodyReads(t *testing.T) {
	d := start(t, nil)
	ctx, leave := context.WithCancel(t.Context())
	r, err := d.spawn(ctx, bash("read -t 20 < <(sleep 0.2); head -c 200000000 /dev/zero; touch "+d.path("written")+"; sleep 100"), nil)
	if err != nil {
		t.Fatal(err)
	}
	leave()
	before := heap()
	var most int64
	eventually(t, "all is written", func() bool {
		most = max(most, heap()-before)
		_, err := os.Stat(d.path("written"))
		return err == nil
	})
	if most > 64<<20 { // of 200 MB; tests beside this one use some too
		t.Errorf("the heap grew by %d bytes meanwhile", most)
	}
	d.kill(r, process.Signal_SIGNAL_SIGKILL)
}

// An upload that breaks off takes a new file away again. One that was there is
// written in place, as its links, its owner and whoever has it open demand: it
// then holds the part that came.
func TestInterruptedUploadOfAForm(t *testing.T) {
	d := start(t, nil)
	for i, c := range []struct{ kind, head string }{
		{octets, ""},
		{"multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n"},
	} {
		old := fmt.Sprint("old", i)
		d.write(old, "before")
		for name, left := range map[string]string{"new": "", "sub/new": "", old: "half"} {
			conn, err := net.Dial("tcp", d.addr)
			if err != nil {
				t.Fatal(err)
			}
			head := "POST " + at(d.path(name)) + " HTTP/1.1\r\nHost: x\r\nContent-Type: " + c.kind + "\r\nTransfer-Encoding: chunked\r\n\r\n"
			// More than is gathered before it is written.
			body := c.head + strings.Repeat("half", 1<<18)
			if _, err := fmt.Fprintf(conn, "%s%x\r\n%s\r\n", head, len(body), body); err != nil {
				t.Fatal(err)
			}
			eventually(t, name+" is being written", func() bool { info, err := os.Stat(d.path(name)); return err == nil && info.Size() > 100_000 })
			conn.Close()
			if left == "" {
				eventually(t, name+" is gone", func() bool { _, err := os.Stat(d.path(name)); return os.IsNotExist(err) })
				continue
			}
			content, err := os.ReadFile(d.path(name))
			if err != nil || !strings.HasPrefix(string(content), left) {
				t.Errorf("%s holds %q, %v", name, content[:min(len(content), 20)], err)
			}
		}
	}
}
