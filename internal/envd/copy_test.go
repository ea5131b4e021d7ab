package envd_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/cove-sandbox/cove/internal/envd/envdclient"
)

// longAgo is when everything in the archives of these tests was changed last.
var longAgo = time.Date(2024, 5, 6, 7, 8, 9, 5e8, time.UTC)

func folder(name string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}
}

func link(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}
}

func hard(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to, Mode: 0o644}
}

// file is a file whose contents are its name.
func file(name string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(name))}
}

// tarred returns an archive. What the files in it contain is their names, over
// and over, and zeros if they are called zero.
func tarred(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range entries {
		h.ModTime, h.Format, h.Uid, h.Gid = longAgo, tar.FormatPAX, 77, 77
		content := make([]byte, h.Size)
		for n := 0; n < len(content) && h.Name != "zero"; {
			n += copy(content[n:], h.Name)
		}
		_, err := func() (int, error) {
			if err := w.WriteHeader(&h); err != nil {
				return 0, err
			}
			return w.Write(content)
		}()
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func order(source, dest string, more ...string) string {
	q := url.Values{"source": {source}, "dest": {dest}}
	for i := 0; i < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return "/copy?" + q.Encode()
}

// tree describes what is below dir, one line each: "mode owner path content".
func tree(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		line := fmt.Sprintf("%o %d:%d %s", st.Mode&0o7777, st.Uid, st.Gid, name)
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFDIR:
			line += "/"
		case syscall.S_IFLNK:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + to
		case syscall.S_IFIFO:
			line += " |"
		default:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " " + string(content)
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (d *daemon) wantTree(dir string, want ...string) {
	d.t.Helper()
	if diff := cmp.Diff(want, tree(d.t, dir)); diff != "" {
		d.t.Errorf("%s (-want +got):\n%s", dir, diff)
	}
}

func TestCopy(t *testing.T) {
	d := start(t, nil)
	archive := tarred(t,
		folder(".", 0o700), file("a.txt", 0o640), folder("src", 0o750), file("src/tool", 0o4755), folder("src/sub", 0o2775), file("src/sub/x", 0o600),
		link("src/up", "../../.."), link("src/gone", "/no/where"), hard("src/twin", "src/tool"),
		tar.Header{Typeflag: tar.TypeFifo, Name: "src/pipe", Mode: 0o622})
	src := []string{"4755 0:0 tool src/tool", "4755 0:0 twin src/tool", "777 0:0 gone -> /no/where", "777 0:0 up -> ../../..", "622 0:0 pipe |", "2775 0:0 sub/", "600 0:0 sub/x src/sub/x"}
	byName := func(lines ...string) []string {
		slices.SortFunc(lines, func(a, b string) int {
			return strings.Compare(strings.Fields(a)[2], strings.Fields(b)[2])
		})
		return lines
	}
	for i, c := range []struct {
		source, dest string // dest in a directory that is new
		more         []string
		answer       string
		want         []string // of that directory
	}{
		{"a.txt", "", nil, `{"files":1,"bytes":5}`, []string{"640 0:0 . a.txt"}},
		{"a.txt", "/", nil, `{"files":1,"bytes":5}`, []string{"755 0:0 ./", "640 0:0 a.txt a.txt"}},
		{"./a.txt", "/deep/down", []string{"user", "user", "mode", "0600"}, `{"files":1,"bytes":5}`,
			[]string{"755 0:0 ./", "755 0:0 deep/", "600 1000:1000 deep/down a.txt"}},
		{"a.txt", "/deep/", []string{"user", "user", "mode", "0600"}, `{"files":1,"bytes":5}`,
			[]string{"755 0:0 ./", "755 1000:1000 deep/", "600 1000:1000 deep/a.txt a.txt"}},
		{"src", "", nil, `{"files":6,"bytes":17}`, append([]string{"750 0:0 ./"}, byName(src...)...)},
		{"src/", "/", nil, `{"files":6,"bytes":17}`, append([]string{"750 0:0 ./"}, byName(src...)...)},
		{"src/sub", "", []string{"user", "user:extra", "mode", "02711"}, `{"files":1,"bytes":9}`, []string{"2711 1000:4242 ./", "2711 1000:4242 x src/sub/x"}},
		{"src/sub", "/a/b", []string{"user", "user", "owners", "kept"}, `{"files":1,"bytes":9}`,
			[]string{"755 0:0 ./", "755 0:0 a/", "2775 77:77 a/b/", "600 77:77 a/b/x src/sub/x"}},
		{"src/*", "", nil, `{"files":6,"bytes":17}`, append([]string{"755 0:0 ./"}, src...)},
		{"*.txt", "", []string{"user", "12:34"}, `{"files":1,"bytes":5}`, []string{"755 12:34 ./", "640 12:34 a.txt a.txt"}},
		{"**/x", "", []string{"user", "12"}, `{"files":1,"bytes":9}`, []string{"755 12:12 ./", "755 12:12 src/", "755 12:12 src/sub/", "600 12:12 src/sub/x src/sub/x"}},
		{".", "", []string{"user", "nobody:1"}, `{"files":7,"bytes":22}`, nil},
		{"src/pipe", "", []string{"mode", "444"}, `{"files":1,"bytes":0}`, []string{"444 0:0 . |"}},
	} {
		for _, packed := range []bool{false, true} {
			dir := d.path(fmt.Sprintf("made %d %v", i, packed))
			body := archive
			if packed {
				body = gzipped(t, string(archive))
			}
			// As relative to a directory, too.
			dest, more := dir+c.dest, c.more
			if packed {
				dest, more = filepath.Base(dir)+c.dest, append([]string{"workdir", d.dir}, c.more...)
			}
			d.want(c.source, 200, c.answer)(d.do("POST", order(c.source, dest, more...), nil, body))
			if c.want != nil {
				d.wantTree(dir, c.want...)
			}
		}
	}
	twin, err := os.Stat(d.path("made 4 true/twin"))
	tool, err2 := os.Stat(d.path("made 4 true/tool"))
	if err := errors.Join(err, err2); err != nil || !os.SameFile(twin, tool) {
		t.Errorf("the hard link is none: %v", err)
	}
	for _, name := range []string{".", "tool", "up", "gone", "pipe", "sub", "sub/x"} {
		if info, err := os.Lstat(d.path(filepath.Join("made 4 true", name))); err != nil || !info.ModTime().Equal(longAgo) {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// What is there is merged into: directories stay, files give way.
func TestCopyMerges(t *testing.T) {
	d := start(t, nil)
	err := errors.Join(
		os.MkdirAll(d.path("root/old/both"), 0o711), os.Chmod(d.path("root/old"), 0o775), os.Chown(d.path("root/old"), 5, 5),
		os.Mkdir(d.path("root/old/kept"), 0o700), os.Symlink("kept", d.path("root/old/lib")),
		os.Symlink(d.path("precious"), d.path("root/old/link")), os.Symlink("nowhere", d.path("root/old/dangling")),
		os.Symlink("old", d.path("root/way")),
	)
	if err != nil {
		t.Fatal(err)
	}
	d.write("precious", "precious")
	d.write("root/old/file", "a long content that was there before")
	d.write("root/old/both/other", "other")
	archive := tarred(t, folder("c", 0o700), file("c/file", 0o644), file("c/link", 0o644), file("c/dangling", 0o644),
		folder("c/both", 0o750), folder("c/lib", 0o777), file("c/lib/so", 0o644), link("c/both/self", "."))
	want := []string{"775 5:5 ./", "750 1000:1000 both/", "644 0:0 both/other other", "777 1000:1000 both/self -> .", "644 1000:1000 dangling c/dangling",
		"644 1000:1000 file c/file", "700 0:0 kept/", "644 1000:1000 kept/so c/lib/so", "777 0:0 lib -> kept", "644 1000:1000 link c/link"}
	for _, dest := range []string{"root/way", "root/old/", "root/way/."} { // the second time over itself
		d.want("merge", 200, `{"files":5,"bytes":30}`)(d.do("POST", order("c", d.path(dest), "user", "user"), nil, archive))
		d.wantTree(d.path("root/old"), want...)
	}
	if content, err := os.ReadFile(d.path("precious")); err != nil || string(content) != "precious" {
		t.Errorf("what the link led to holds %q, %v", content, err)
	}
	// One file goes into a directory, also through a link to it.
	d.want("into", 200, `{"files":1,"bytes":6}`)(d.do("POST", order("c/file", d.path("root/old/lib")), nil, archive))
	if content, err := os.ReadFile(d.path("root/old/kept/file")); err != nil || string(content) != "c/file" {
		t.Errorf("%q, %v", content, err)
	}
}

func TestCopyRefused(t *testing.T) {
	d := start(t, nil)
	d.write("file", "content")
	archive := tarred(t, folder("dir", 0o755), file("dir/x", 0o644), file("one", 0o644), hard("lost", "elsewhere"),
		tar.Header{Typeflag: 'S' + 1, Name: "odd", Mode: 0o644})
	if err := os.MkdirAll(d.path("full/x"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		target string
		status int
		text   string
	}{
		{order("dir", d.path("new"), "user", "root123"), 401, "invalid username: 'root123'"},
		{order("dir", d.path("new"), "user", "root:staff9"), 401, "invalid group: 'staff9'"},
		{order("dir", d.path("new"), "user", ":root"), 401, "invalid username: ''"},
		{order("dir", d.path("new"), "user", "4294967295"), 401, "invalid username: '4294967295'"},
		{order("dir", d.path("new"), "mode", "rwx"), 400, "mode must be octal permissions like 0755, not 'rwx'"},
		{order("dir", d.path("new"), "mode", "100644"), 400, "mode must be octal permissions like 0755, not '100644'"},
		{order("dir", d.path("new"), "owners", "lost"), 400, "owners must be 'kept', or not given, and not 'lost'"},
		{order("di", d.path("new")), 400, "no file of the build context matches source 'di'"},
		{order("*.md", d.path("new/")), 400, "no file of the build context matches source '*.md'"},
		{order("", d.path("new")), 400, "source is required"},
		{order("dir", ""), 400, "dest is required"},
		{order("dir", d.path("file")), 400, "cannot copy a directory over a file: " + d.path("file")},
		{order("dir", d.path("file/below/it")), 400, "cannot copy a directory over a file: " + d.path("file")},
		{order("one", d.path("file")+"/"), 400, "cannot copy a directory over a file: " + d.path("file")},
		{order("dir", d.path("full")), 400, "cannot copy a file over a directory: " + d.path("full/x")},
		{order("lost", d.path("new")), 400, "'lost' is a hard link to 'elsewhere', which is not copied"},
		{order("odd", d.path("new")), 400, "'odd' is of a kind that cannot be copied"},
		{order("one", d.path("new/"+strings.Repeat("x", 256))), 400, d.path("new/"+strings.Repeat("x", 256)) + " cannot be written: file name too long"},
	} {
		d.want(c.target, c.status, failure(c.status, c.text))(d.do("POST", c.target, nil, archive))
	}
	if content, err := os.ReadFile(d.path("file")); err != nil || string(content) != "content" {
		t.Errorf("the file holds %q, %v", content, err)
	}
	d.init(envdclient.Init{AccessToken: "secret"})
	if status, _, text := d.do("POST", order("dir", d.path("locked")), nil, archive); status != 401 || !strings.Contains(text, "unauthorized access") {
		t.Errorf("without the token: %d %s", status, text)
	}
	for _, name := range []string{"locked", "elsewhere"} {
		if _, err := os.Lstat(d.path(name)); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}

func TestCopyDamaged(t *testing.T) {
	d := start(t, nil)
	plain := tarred(t, folder("dir", 0o755), tar.Header{Typeflag: tar.TypeReg, Name: "dir/x", Mode: 0o644, Size: 100_000})
	packed := gzipped(t, string(plain))
	flipped := bytes.Clone(packed)
	flipped[len(flipped)-6] ^= 1 // the sum
	bodies := [][]byte{nil, []byte("x"), []byte("no archive at all"), bytes.Repeat([]byte("no archive at all"), 1000), plain[:100], plain[:5000], packed[:3], flipped}
	for cut := 1; cut < len(packed); cut += 7 {
		bodies = append(bodies, packed[:cut])
	}
	for cut := 1; cut < 4096; cut += 97 {
		bodies = append(bodies, plain[:cut], plain[:len(plain)-513-cut])
	}
	bodies = append(bodies, plain[:len(plain)-1024])
	for _, body := range bodies {
		d.want(fmt.Sprint(len(body), " bytes"), 400, failure(400, "the archive of the files is damaged, or was cut"))(
			d.do("POST", order("dir", d.path("dest")), nil, body))
	}
	d.want("padded", 200, `{"files":1,"bytes":100000}`)(d.do("POST", order("dir", d.path("dest")), nil, append(packed, make([]byte, 512)...)))

	// A client that goes away leaves no part of a file.
	conn, err := net.Dial("tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", order("dir", d.path("half")), len(plain), plain[:70_000]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the copy has begun", func() bool { _, err := os.Stat(d.path("half/x")); return err == nil })
	conn.Close()
	eventually(t, "the part is removed", func() bool { _, err := os.Stat(d.path("half/x")); return os.IsNotExist(err) })
}

func TestCopyDiskFull(t *testing.T) {
	d := start(t, nil)
	small := d.path("small")
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=128k,nr_inodes=20"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	full := func(path string) string {
		return failure(507, "not enough disk space available to copy "+path)
	}
	big := tar.Header{Typeflag: tar.TypeReg, Name: "dir/big", Mode: 0o644, Size: 200_000}
	d.want("blocks", 507, full(small+"/big"))(d.do("POST", order("dir", small), nil, tarred(t, big)))
	d.wantTree(small, "1777 0:0 ./") // no part of it is left
	// Zeros take no place, however many they are.
	d.want("holes", 200, `{"files":1,"bytes":10000000}`)(d.do("POST", order("zero", small+"/zero"), nil,
		gzipped(t, string(tarred(t, tar.Header{Typeflag: tar.TypeReg, Name: "zero", Mode: 0o644, Size: 10_000_000})))))
	var entries []tar.Header
	for i := range 30 {
		entries = append(entries, folder(fmt.Sprint("d", i+10), 0o755))
	}
	status, _, text := d.do("POST", order(".", small+"/many"), nil, tarred(t, entries...))
	if status != 507 || !strings.Contains(text, "not enough disk space available to copy "+small+"/many/d") {
		t.Errorf("inodes: %d %s", status, text)
	}
}

// The archives that the clients' packages make of the same directory: with a
// link to a directory, of which one of them also has what is behind it.
func TestCopyOfClients(t *testing.T) {
	d := start(t, nil)
	long := strings.Repeat("n", 120)
	for client, more := range map[string][]string{"js": nil, "python": {"644 1000:1000 hard.env .env\n", "644 1000:1000 pipe |"}} {
		archive, err := os.ReadFile("testdata/e2b-" + client + ".tgz")
		if err != nil {
			t.Fatal(err)
		}
		want := append(more, "644 1000:1000 .env .env\n", "777 1000:1000 a-link -> real", "777 1000:1000 dangling -> /nowhere", "755 1000:1000 empty/",
			"777 1000:1000 file-link -> main.js", "4750 1000:1000 main.js console.log(1)\n", "644 1000:1000 new\nline ü.txt x", "755 1000:1000 "+long+"/",
			"644 1000:1000 "+long+"/"+strings.Repeat("m", 120)+" long\n", "755 1000:1000 real/", "755 1000:1000 real/deep/", "644 1000:1000 real/deep/d.js deep\n",
			"644 1000:1000 real/lib.js lib\n")
		for _, source := range []string{"app", "app/", "./app", "app/**"} {
			dir := d.path("of " + client)
			if status, _, text := d.do("POST", order(source, dir, "user", "user"), nil, archive); status != 200 {
				t.Fatalf("%s: %d %s", client, status, text)
			}
			got := tree(t, dir)[1:]
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", client, diff)
			}
			if info, err := os.Lstat(dir + "/real"); err != nil || info.ModTime().Unix() != longAgo.Unix() {
				t.Errorf("%s: %v, %v", client, info, err)
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What lies behind a link of the archive stays where it is, wherever the link
// leads.
func TestCopyBehindLinks(t *testing.T) {
	d := start(t, nil)
	d.write("secret", "kept")
	archive := tarred(t, link("c/a", d.dir), file("c/a/secret", 0o666), folder("c/a/new", 0o777), link("c/b", "../.."), file("c/b/secret", 0o644),
		file("c/x", 0o644), hard("c/y", "c/x"), hard("c/x", "c/y"), link("c/x", "y"), hard("c/z", "c/x"))
	d.want("copy", 200, `{"files":7,"bytes":3}`)(d.do("POST", order("c", d.path("in/dest")), nil, archive))
	d.wantTree(d.path("in"), "755 0:0 ./", "755 0:0 dest/", "777 0:0 dest/a -> "+d.dir, "777 0:0 dest/b -> ../..", "777 0:0 dest/x -> y", "644 0:0 dest/y c/x",
		"777 0:0 dest/z -> y")
	d.want("a hard link to what is behind one", 400, failure(400, "'c/h' is a hard link to 'c/a/secret', which is not copied"))(
		d.do("POST", order("c", d.path("in/dest")), nil, tarred(t, link("c/a", d.dir), hard("c/h", "c/a/secret"))))
	if content, err := os.ReadFile(d.path("secret")); err != nil || string(content) != "kept" {
		t.Errorf("%q, %v", content, err)
	}
	if _, err := os.Stat(d.path("new")); err == nil {
		t.Error("a directory was made behind a link")
	}
}

// Both ways to write down holes: a megabyte of nothing, eight letters, and again.
func TestCopySparse(t *testing.T) {
	d := start(t, nil)
	archive, err := os.ReadFile("testdata/sparse.tgz")
	if err != nil {
		t.Fatal(err)
	}
	d.want("copy", 200, `{"files":2,"bytes":4194320}`)(d.do("POST", order(".", d.path("dest")), nil, archive))
	for _, name := range []string{"gnu", "pax"} {
		content, err := os.ReadFile(d.path("dest/" + name))
		want := append(make([]byte, 1<<20), "contents"...)
		if want = append(want, make([]byte, 1<<20)...); err != nil || !bytes.Equal(content, want) {
			t.Errorf("%s: %d bytes, %v", name, len(content), err)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(d.path("dest/"+name), &st); err != nil || st.Blocks > 512 {
			t.Errorf("%s has %d blocks, %v", name, st.Blocks, err)
		}
	}
}
