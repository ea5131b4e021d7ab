package envd_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/cove-sandbox/cove/internal/gen/filesystem"
)

func (d *daemon) stat(path string) *filesystem.EntryInfo {
	d.t.Helper()
	resp, err := d.files.Stat(d.t.Context(), connect.NewRequest(&filesystem.StatRequest{Path: path}))
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.Msg.GetEntry()
}

func TestStat(t *testing.T) {
	d := start(t, nil)
	file := d.write("user/f", "12345")
	if err := os.Chown(file, 1000, 4242); err != nil {
		t.Fatal(err)
	}
	e := d.stat(file)
	got := fmt.Sprint(e.GetName(), e.GetType(), e.GetPath(), e.GetSize(), e.GetMode(), e.GetPermissions(), e.GetOwner(), e.GetGroup())
	if want := fmt.Sprint("f", filesystem.FileType_FILE_TYPE_FILE, file, 5, 0o644, "-rw-r--r--", "user", "extra"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for name, target := range map[string]string{"link": "f", "chain": "link", "dirlink": ".", "broken": "nothing", "loop": "loop"} {
		if err := os.Symlink(target, d.path("user/"+name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"link":    "FILE_TYPE_FILE " + file,
		"chain":   "FILE_TYPE_FILE " + file,
		"dirlink": "FILE_TYPE_DIRECTORY " + d.path("user"),
		"broken":  "FILE_TYPE_UNSPECIFIED " + d.path("user/broken"),
		"loop":    "FILE_TYPE_UNSPECIFIED " + d.path("user/loop"),
	} {
		e := d.stat(d.path("user/" + name))
		if got := e.GetType().String() + " " + e.GetSymlinkTarget(); got != want || e.GetName() != name || e.GetPermissions() != "Lrwxrwxrwx" {
			t.Errorf("%s: %s, want %s; %v", name, got, want, e)
		}
	}
	if e := d.stat(d.path("user/link")); e.GetMode() != 0o644 || e.GetSize() != 1 {
		t.Errorf("a link has its target's mode and its own size: %v", e)
	}
	_, err := d.files.Stat(t.Context(), connect.NewRequest(&filesystem.StatRequest{Path: "none"}))
	wantCode(t, err, connect.CodeNotFound, "file not found: "+d.path("root/none"))
	req := connect.NewRequest(&filesystem.StatRequest{Path: "f"})
	basic(req.Header(), "user")
	if _, err := d.files.Stat(t.Context(), req); err != nil {
		t.Error(err)
	}
	basic(req.Header(), "root123")
	_, err = d.files.Stat(t.Context(), req)
	wantCode(t, err, connect.CodeUnauthenticated, "invalid username: 'root123'")
}

func TestListDir(t *testing.T) {
	d := start(t, nil)
	for _, p := range []string{"l/b/x/deep", "l/a", "l/c"} {
		if err := os.MkdirAll(d.path(p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.write("l/a/file", "")
	d.write("l/b.txt", "")
	d.write("l/bad\xff", "")
	for link, target := range map[string]string{"root-link": "l", "l/c/up": ".."} {
		if err := os.Symlink(target, d.path(link)); err != nil {
			t.Fatal(err)
		}
	}
	list := func(path string, depth uint32) []string {
		t.Helper()
		resp, err := d.files.ListDir(t.Context(), connect.NewRequest(&filesystem.ListDirRequest{Path: path, Depth: depth}))
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range resp.Msg.GetEntries() {
			out = append(out, strings.TrimPrefix(e.GetPath(), path+"/"))
		}
		return out
	}
	for _, c := range []struct {
		path  string
		depth uint32
		want  []string
	}{
		{d.path("l"), 0, []string{"a", "b", "b.txt", "bad\uFFFD", "c"}},
		{d.path("l"), 2, []string{"a", "a/file", "b", "b/x", "b.txt", "bad\uFFFD", "c", "c/up"}},
		{d.path("root-link"), 3, []string{"a", "a/file", "b", "b/x", "b/x/deep", "b.txt", "bad\uFFFD", "c", "c/up"}},
		{d.path("l/b/x/deep"), 1, nil},
	} {
		if diff := cmp.Diff(c.want, list(c.path, c.depth)); diff != "" {
			t.Errorf("%s at %d (-want +got):\n%s", c.path, c.depth, diff)
		}
	}
	_, err := d.files.ListDir(t.Context(), connect.NewRequest(&filesystem.ListDirRequest{Path: "/no/such"}))
	wantCode(t, err, connect.CodeNotFound, "path not found: /no/such")
	_, err = d.files.ListDir(t.Context(), connect.NewRequest(&filesystem.ListDirRequest{Path: d.path("passwd")}))
	wantCode(t, err, connect.CodeInvalidArgument, "path is not a directory: "+d.path("passwd"))
}

// Those of large directories are described from a working directory that only
// the thread which does it has.
func TestListLargeDir(t *testing.T) {
	d := start(t, nil)
	home, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(d.path("l"), 0o755); err != nil {
		t.Fatal(err)
	}
	const each = 500
	for i := range each {
		d.write(fmt.Sprintf("l/file %03d", i), "four")
		if err := os.Symlink(fmt.Sprintf("file %03d", i), d.path(fmt.Sprintf("l/link %03d", i))); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		resp, err := d.files.ListDir(t.Context(), connect.NewRequest(&filesystem.ListDirRequest{Path: d.path("l")}))
		if err != nil {
			t.Fatal(err)
		}
		got := resp.Msg.GetEntries()
		if len(got) != 2*each {
			t.Fatalf("%d entries", len(got))
		}
		for i, e := range got[:each] {
			file, link := d.path(fmt.Sprintf("l/file %03d", i)), d.path(fmt.Sprintf("l/link %03d", i))
			if e.GetPath() != file || e.GetSize() != 4 || e.GetType() != filesystem.FileType_FILE_TYPE_FILE {
				t.Fatalf("entry %d: %v", i, e)
			}
			if e := got[each+i]; e.GetPath() != link || e.GetSymlinkTarget() != file || e.GetType() != filesystem.FileType_FILE_TYPE_FILE {
				t.Fatalf("link %d: %v", i, e)
			}
		}
		if now, err := os.Getwd(); now != home || err != nil {
			t.Errorf("the working directory is %s, %v", now, err)
		}
	}
}

func TestMakeMoveRemove(t *testing.T) {
	d := start(t, nil)
	mkdir := func(path string) error {
		req := connect.NewRequest(&filesystem.MakeDirRequest{Path: path})
		basic(req.Header(), "user")
		resp, err := d.files.MakeDir(t.Context(), req)
		if err == nil && (resp.Msg.GetEntry().GetOwner() != "user" || resp.Msg.GetEntry().GetPermissions() != "drwxr-xr-x") {
			t.Errorf("made: %v", resp.Msg)
		}
		return err
	}
	if err := mkdir("x/y/z"); err != nil {
		t.Fatal(err)
	}
	if e := d.stat(d.path("user/x")); e.GetOwner() != "user" {
		t.Errorf("parent: %v", e)
	}
	wantCode(t, mkdir("x/y"), connect.CodeAlreadyExists, "directory already exists: ")
	wantCode(t, mkdir(d.path("passwd")), connect.CodeInvalidArgument, "path already exists but it is not a directory: ")
	wantCode(t, mkdir(d.path("passwd/below")), connect.CodeInvalidArgument, "path is a file: ")

	move := func(from, to string) error {
		_, err := d.files.Move(t.Context(), connect.NewRequest(&filesystem.MoveRequest{Source: from, Destination: to}))
		return err
	}
	d.write("from", "moved")
	d.write("target", "overwritten")
	if err := move(d.path("from"), d.path("target")); err != nil {
		t.Fatal(err)
	}
	if err := move(d.path("target"), d.path("new/parent/file")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(d.path("new/parent/file")); err != nil || string(got) != "moved" {
		t.Errorf("moved: %q, %v", got, err)
	}
	wantCode(t, move(d.path("from"), d.path("never/made")), connect.CodeNotFound, "source file not found: "+d.path("from"))
	if _, err := os.Stat(d.path("never")); !os.IsNotExist(err) {
		t.Errorf("a failed move left a directory: %v", err)
	}
	for range 2 { // the second time there is nothing, which is fine
		if _, err := d.files.Remove(t.Context(), connect.NewRequest(&filesystem.RemoveRequest{Path: d.path("new")})); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(d.path("new")); !os.IsNotExist(err) {
		t.Errorf("after remove: %v", err)
	}
}

// watching is a WatchDir stream after its start event.
type watching struct {
	t *testing.T
	s *connect.ServerStreamForClient[filesystem.WatchDirResponse]
}

func (d *daemon) watch(req *filesystem.WatchDirRequest) *watching {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	d.t.Cleanup(cancel)
	s, err := d.files.WatchDir(ctx, connect.NewRequest(req))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { s.Close() })
	if !s.Receive() || s.Msg().GetStart() == nil {
		d.t.Fatalf("no start: %v, %v", s.Msg(), s.Err())
	}
	return &watching{d.t, s}
}

// until returns the events up to and including last.
func (w *watching) until(last string) []string {
	w.t.Helper()
	var got []string
	for w.s.Receive() {
		ev := w.s.Msg().GetFilesystem()
		got = append(got, strings.TrimPrefix(ev.GetType().String(), "EVENT_TYPE_")+" "+ev.GetName())
		if got[len(got)-1] == last {
			return got
		}
	}
	w.t.Fatalf("no %q in %q: %v", last, got, w.s.Err())
	return nil
}

func (w *watching) want(last string, events ...string) {
	w.t.Helper()
	if diff := cmp.Diff(events, w.until(last)); diff != "" {
		w.t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestWatchUpload(t *testing.T) {
	d := start(t, nil)
	dir := d.path("w")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := d.watch(&filesystem.WatchDirRequest{Path: dir})
	d.do("POST", at(dir+"/new", "username", "user"), map[string]string{"Content-Type": octets}, []byte("content"))
	w.want("WRITE new", "CREATE new", "CHMOD new", "WRITE new")
	if err := os.Rename(dir+"/new", dir+"/renamed"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir + "/renamed"); err != nil {
		t.Fatal(err)
	}
	w.want("REMOVE renamed", "RENAME new", "CREATE renamed", "REMOVE renamed")
}

func TestWatchRecursive(t *testing.T) {
	d := start(t, nil)
	dir := d.path("w")
	if err := os.MkdirAll(dir+"/old", 0o755); err != nil {
		t.Fatal(err)
	}
	flat := d.watch(&filesystem.WatchDirRequest{Path: dir})
	w := d.watch(&filesystem.WatchDirRequest{Path: dir, Recursive: true, IncludeEntry: true})
	d.write("w/old/f", "x")
	w.want("WRITE old/f", "CREATE old/f", "WRITE old/f")
	// A tree that is there at once: every part of it is told, once.
	for i := range 20 {
		sub := filepath.Join(dir, fmt.Sprint("new", i))
		if err := os.MkdirAll(sub+"/a/b", 0o755); err != nil {
			t.Fatal(err)
		}
		n := fmt.Sprint("new", i)
		w.want("CREATE "+n+"/a/b", "CREATE "+n, "CREATE "+n+"/a", "CREATE "+n+"/a/b")
	}
	// A moved directory is watched under its new name.
	if err := os.Rename(dir+"/new0", dir+"/moved"); err != nil {
		t.Fatal(err)
	}
	w.until("CREATE moved/a/b")
	d.write("w/moved/a/late", "x")
	w.want("WRITE moved/a/late", "CREATE moved/a/late", "WRITE moved/a/late")
	if err := os.RemoveAll(dir + "/moved"); err != nil {
		t.Fatal(err)
	}
	w.want("REMOVE moved", "REMOVE moved/a/b", "REMOVE moved/a/late", "REMOVE moved/a", "REMOVE moved")
	d.write("w/end", "x")
	if got := flat.until("WRITE end"); strings.Contains(strings.Join(got, " "), "/") {
		t.Errorf("the flat watcher saw %q", got)
	}
}

func TestWatchEntries(t *testing.T) {
	d := start(t, nil)
	w := d.watch(&filesystem.WatchDirRequest{Path: "~", IncludeEntry: true})
	path := d.write("root/f", "x")
	if !w.s.Receive() || w.s.Msg().GetFilesystem().GetEntry().GetPath() != path {
		t.Errorf("entry: %v", w.s.Msg())
	}
	for path, code := range map[string]connect.Code{"/no/such": connect.CodeNotFound, path: connect.CodeInvalidArgument} {
		s, err := d.files.WatchDir(t.Context(), connect.NewRequest(&filesystem.WatchDirRequest{Path: path}))
		if err != nil {
			t.Fatal(err)
		}
		if s.Receive() {
			t.Errorf("%s: %v", path, s.Msg())
		}
		wantCode(t, s.Err(), code, "path "+path)
		s.Close()
	}
}

func TestPolledWatcher(t *testing.T) {
	d := start(t, nil)
	created, err := d.files.CreateWatcher(t.Context(), connect.NewRequest(&filesystem.CreateWatcherRequest{Path: d.dir}))
	if err != nil {
		t.Fatal(err)
	}
	id := created.Msg.GetWatcherId()
	if !strings.HasPrefix(id, "w") {
		t.Errorf("id %q", id)
	}
	d.write("polled", "x")
	var got []string
	eventually(t, "both events", func() bool {
		resp, err := d.files.GetWatcherEvents(t.Context(), connect.NewRequest(&filesystem.GetWatcherEventsRequest{WatcherId: id}))
		if err != nil {
			t.Fatal(err)
		}
		for _, ev := range resp.Msg.GetEvents() {
			got = append(got, ev.GetType().String()+" "+ev.GetName())
		}
		return len(got) >= 2
	})
	if diff := cmp.Diff([]string{"EVENT_TYPE_CREATE polled", "EVENT_TYPE_WRITE polled"}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if _, err := d.files.RemoveWatcher(t.Context(), connect.NewRequest(&filesystem.RemoveWatcherRequest{WatcherId: id})); err != nil {
		t.Fatal(err)
	}
	_, err = d.files.GetWatcherEvents(t.Context(), connect.NewRequest(&filesystem.GetWatcherEventsRequest{WatcherId: id}))
	wantCode(t, err, connect.CodeNotFound, "watcher with id "+id+" not found")
	// One is left to the daemon, which must end it.
	if _, err := d.files.CreateWatcher(t.Context(), connect.NewRequest(&filesystem.CreateWatcherRequest{Path: d.dir, Recursive: true})); err != nil {
		t.Fatal(err)
	}
}
