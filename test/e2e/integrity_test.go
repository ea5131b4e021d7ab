package e2e_test

import (
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cove-sandbox/cove/test/stand"
)

// holder fills 60 % of the memory with a pattern that no compression and no
// sharing of pages can make small, and says on request whether it is whole.
const holder = `
cat > /tmp/holder.py <<'END'
import hashlib, http.server, os
total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
chunk = 4 << 20
held = [os.urandom(chunk) for _ in range(int(total * 0.6) // chunk)]
sums = [hashlib.sha256(c).digest() for c in held]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        bad = sum(hashlib.sha256(c).digest() != s for c, s in zip(held, sums))
        self.send_response(200); self.end_headers()
        self.wfile.write(f"{len(held) * chunk >> 20} {bad}".encode())
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", 8081), Handler).serve_forever()
END
(setsid python3 /tmp/holder.py >/tmp/holder.log 2>&1 </dev/null &)
for i in $(seq 600); do ss -ltn | grep -q :8081 && exit 0; sleep 0.1; done; cat /tmp/holder.log; exit 1
`

// tree makes files whose history is what a saved file system gets wrong: cut and
// grown again, with holes, under several names, with attributes, deleted while
// open, appended to while it is saved. Its digest speaks for all of it.
const tree = `
mkdir -p /tree && cd /tree && cat > make.py <<'END'
import ctypes, os, time
def put(name, data, mode=0o644):
    with open(name, "wb") as f: f.write(data)
    os.chmod(name, mode)
put("cut", b"a" * 3_000_000); os.truncate("cut", 5000)
put("cut-grown", b"b" * 100_000); os.truncate("cut-grown", 10); os.truncate("cut-grown", 200_000)
put("empty", b""); put("one", b"1"); put("page", os.urandom(4096)); put("odd", os.urandom(1_234_567), 0o600)
with open("holes", "wb") as f:
    for at in (0, 1 << 20, 64 << 20, (1 << 30) + 7): f.seek(at); f.write(b"x" * 100)
put("linked", b"linked"); os.link("linked", "linked-2"); os.mkdir("d"); os.link("linked", "d/linked-3"); os.unlink("linked-2")
os.symlink("../linked", "d/soft"); os.symlink("/nowhere", "dangling"); os.mkfifo("pipe")
put("noted", b"n"); os.setxattr("noted", "user.a", b"text" * 50); os.setxattr("noted", "user.binary", b"\x00\xff" * 50); os.setxattr("noted", "user.b", b"gone"); os.removexattr("noted", "user.b")
put("renamed-from", b"moved"); os.rename("renamed-from", "d/renamed"); put("over", b"old" * 1000); put("new", b"new"); os.rename("new", "over")
for i in range(2000): put(f"d/{i:04}", str(i).encode() * (i % 7))
for i in range(0, 2000, 3): os.unlink(f"d/{i:04}")
os.mkdir("sticky"); os.chmod("sticky", 0o1777); os.chown("one", 1000, 1000); os.utime("one", (1, 2))
put("name with spaces\nand more \u00fc", b"n"); put("n" * 255, b"long")
gone = open("gone", "w+b"); gone.write(b"deleted, but open" * 10000); gone.flush(); os.unlink("gone")
mapped = open("mapped", "w+b"); mapped.truncate(1 << 20)
import mmap
view = mmap.mmap(mapped.fileno(), 1 << 20); view[:5] = b"dirty"; view[(1 << 20) - 5:] = b"pages"
log = open("log", "ab", buffering=0)
open("ready", "w").close()
n = 0
while True:
    gone.seek(0); open("/dev/shm/gone.new", "wb").write(gone.read()); os.rename("/dev/shm/gone.new", "/dev/shm/gone")
    log.write(b"%08d\n" % n); n += 1; time.sleep(0.01)
END
(setsid python3 make.py >make.log 2>&1 </dev/null &)
for i in $(seq 300); do test -e ready && break; sleep 0.1; done; test -e ready || { cat make.log; exit 1; }
cat > digest.py <<'END'
import hashlib, os, stat, sys
coarse = len(sys.argv) > 1
h, lines = hashlib.sha256(), open("/root/lines", "w")
for folder, dirs, files in os.walk("/tree"):
    dirs.sort()
    for name in sorted(dirs + files):
        path = os.path.join(folder, name); st = os.lstat(path)
        if path == "/tree/log": continue
        line = [path, st.st_mode, st.st_uid, st.st_gid, st.st_nlink]
        if stat.S_ISLNK(st.st_mode): line.append(os.readlink(path))
        if stat.S_ISREG(st.st_mode):
            line += [st.st_size, 0 if coarse else st.st_mtime_ns, hashlib.file_digest(open(path, "rb"), "sha256").hexdigest()]
        if not stat.S_ISLNK(st.st_mode): line += [(a, os.getxattr(path, a)) for a in sorted(os.listxattr(path)) if not coarse or a != "user.binary"]
        h.update(repr(line).encode()); print(line, file=lines)
h.update(open("/dev/shm/gone", "rb").read())
log = open("/tree/log", "rb").read().splitlines()
whole = all(int(l) == i for i, l in enumerate(log))
print(h.hexdigest(), whole)
END
python3 digest.py`

func TestIntegrity(t *testing.T) {
	s := stand.Start(t)
	t.Run("memory", func(t *testing.T) { testMemoryIntegrity(t, s) })
	t.Run("files", func(t *testing.T) { testFileIntegrity(t, s) })
}

func testMemoryIntegrity(t *testing.T, s *stand.Server) {
	sb := s.Create(t, nil)
	defer sb.Kill(t)
	if r := sb.Run(t, holder); r.Exit != 0 {
		t.Fatalf("%+v", r)
	}
	for round := range 3 {
		status, body := get(t, s, "8081", sb.ID, "/")
		var held, bad int
		if _, err := fmt.Sscan(body, &held, &bad); err != nil || status != http.StatusOK {
			t.Fatalf("round %d: %d %q %v", round, status, body, err)
		}
		if held < 600 || bad != 0 {
			t.Fatalf("round %d: %d MiB are held, %d pieces are broken", round, held, bad)
		}
		if round < 2 {
			pause(t, s, sb)
			connect(t, s, sb, http.StatusCreated)
		}
	}
}

func testFileIntegrity(t *testing.T, s *stand.Server) {
	sb := s.Create(t, nil)
	defer sb.Kill(t)
	want := sb.Run(t, tree)
	if want.Exit != 0 || !strings.HasSuffix(want.Stdout, " True\n") {
		t.Fatalf("%+v", want)
	}
	for round := range 2 {
		pause(t, s, sb)
		if size := diskUse(t, filepath.Join(s.Dir, "snapshots")); size > 512<<20 { // the file with holes is a gigabyte long
			t.Errorf("round %d: the snapshot takes %d MiB: holes were filled", round, size>>20)
		}
		connect(t, s, sb, http.StatusCreated)
		if r := sb.Run(t, "sleep 0.2; python3 /tree/digest.py"); r.Stdout != want.Stdout {
			t.Fatalf("round %d: %+v, want %q", round, r, want.Stdout)
		}
	}
	copies := sb.Fork(t, 1)
	defer copies[0].Kill(t)
	if r := copies[0].Run(t, "python3 /tree/digest.py"); r.Stdout != want.Stdout {
		t.Errorf("a copy: %+v, want %q", r, want.Stdout)
	}
	// Without memory, what was on the disk is all there is, and the engine keeps
	// times to the second and attributes that are text.
	want = sb.Run(t, "pkill -f '[m]ake.py'; rm -f /tree/log; echo 00000000 > /tree/log; sync; python3 /tree/digest.py coarse && cp /root/lines /root/lines.before")
	if want.Exit != 0 {
		t.Fatalf("%+v", want)
	}
	if status, body := s.Do(t, "POST", "/sandboxes/"+sb.ID+"/pause", map[string]any{"memory": false}); status != http.StatusNoContent {
		t.Fatalf("pause: %d %v", status, body)
	}
	connect(t, s, sb, http.StatusCreated)
	const gone = `python3 -c "open('/dev/shm/gone','wb').write(b'deleted, but open'*10000)"; `
	if r := sb.Run(t, gone+"python3 /tree/digest.py coarse"); r.Stdout != want.Stdout {
		t.Errorf("without memory: %+v, want %q; what is different: %+v", r, want.Stdout, sb.Run(t, "diff /root/lines.before /root/lines"))
	}
}

// diskUse returns how many bytes of disk the files below a directory take.
func diskUse(t *testing.T, dir string) (size int64) {
	t.Helper()
	err := filepath.Walk(dir, func(_ string, info fs.FileInfo, err error) error {
		if err == nil {
			size += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}
