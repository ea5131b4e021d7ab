package e2e_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cove-sandbox/cove/internal/server"
	"github.com/cove-sandbox/cove/test/stand"
)

// listen serves on an address of the host for the time of a test.
func listen(t *testing.T, addr string) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the host's secret") })}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// hostAddresses are the host's own IPv4 addresses beside loopback.
func hostAddresses(t *testing.T) []string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			all = append(all, n.IP.String())
		}
	}
	if len(all) == 0 {
		t.Fatal("the host has no address")
	}
	return all
}

func testIsolation(t *testing.T, s *stand.Server) {
	sb := s.Create(t, nil)
	defer sb.Kill(t)

	t.Run("kernel", func(t *testing.T) {
		if out := sb.Run(t, "dmesg").Stdout; !strings.Contains(strings.ToLower(out), "gvisor") {
			t.Errorf("dmesg does not show gVisor: %q", out)
		}
	})
	t.Run("engine", func(t *testing.T) { testEngine(t, s) })
	t.Run("processes", func(t *testing.T) {
		// A sandbox numbers its processes itself: PID 1 is the daemon, and of
		// the test's own process nothing is seen.
		out := sb.Run(t, "ps -eo pid,args").Stdout
		if !strings.Contains(out, "/.cove/envd") || strings.Contains(out, "cove serve") || strings.Contains(out, "runsc") {
			t.Errorf("ps shows: %s", out)
		}
	})
	t.Run("files", func(t *testing.T) {
		for _, path := range []string{s.Dir, "/proc/1/root" + s.Dir, "/.cove/../" + s.Dir} {
			if r := sb.Run(t, "ls "+path); r.Exit == 0 {
				t.Errorf("the host's %s is visible: %s", path, r.Stdout)
			}
		}
		out := sb.Run(t, "cat /proc/mounts /proc/self/mountinfo; env; cat /proc/1/cmdline /proc/self/cgroup").Stdout
		for _, secret := range []string{s.Dir, "/run/cove", s.Key, "templates/"} {
			if strings.Contains(out, secret) {
				t.Errorf("%q is visible inside:\n%s", secret, out)
			}
		}
		if r := sb.Run(t, "touch /.cove/x"); r.Exit == 0 {
			t.Error("the daemon's image can be written")
		}
	})
	t.Run("the host's services", func(t *testing.T) {
		local, any := listen(t, "127.0.0.1:0"), listen(t, "0.0.0.0:0")
		_, api, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
		var targets []string
		for _, port := range []string{local, any, api} {
			targets = append(targets, "127.0.0.1:"+port, "169.254.0.22:"+port, "10.213.0.1:"+port)
			for _, addr := range hostAddresses(t) {
				targets = append(targets, addr+":"+port)
			}
		}
		for _, target := range targets {
			r := sb.Run(t, "curl -s -m 2 http://"+target+"/")
			if r.Exit == 0 || strings.Contains(r.Stdout, "secret") {
				t.Errorf("%s answers: %q", target, r.Stdout)
			}
		}
	})
	t.Run("metadata and private ranges", func(t *testing.T) {
		for _, target := range []string{"169.254.169.254", "10.0.0.1", "192.168.0.1", "172.16.0.1", "100.64.0.1"} {
			if r := sb.Run(t, "curl -s -m 1 http://"+target+"/"); r.Exit == 0 {
				t.Errorf("%s answers: %q", target, r.Stdout)
			}
		}
	})
	t.Run("other sandboxes", func(t *testing.T) {
		other := s.Create(t, nil)
		defer other.Kill(t)
		other.Run(t, "mkdir -p /w && cd /w && echo found > index.html && (python3 -m http.server 8080 --bind 0.0.0.0 >/dev/null 2>&1 &)")
		// Both have the same address inside; outside, slots are a /30 each.
		var tried strings.Builder
		for slot := range 64 {
			fmt.Fprintf(&tried, "10.213.0.%d ", slot*4+2)
		}
		r := sb.Run(t, "for a in "+tried.String()+"; do curl -s -m 0.3 http://$a:8080/ & done; wait")
		if strings.Contains(r.Stdout, "found") {
			t.Error("another sandbox answers")
		}
		if r := sb.Run(t, "ls /w"); r.Exit == 0 {
			t.Error("another sandbox's files are visible")
		}
	})
	t.Run("raw sockets", func(t *testing.T) {
		r := sb.Run(t, `python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'`)
		if r.Exit == 0 {
			t.Error("a packet socket could be opened")
		}
	})
	t.Run("the daemon's internal routes", func(t *testing.T) {
		if r := sb.Run(t, "curl -s -m 5 -o /dev/null -w '%{http_code}' -X POST http://localhost:49983/init -d '{}'"); r.Stdout != "401" {
			t.Errorf("/init without the control token answers %q", r.Stdout)
		}
	})
}

func testInternet(t *testing.T, s *stand.Server) {
	t.Run("allowed", func(t *testing.T) {
		sb := s.Create(t, nil)
		defer sb.Kill(t)
		if r := sb.Run(t, "pip download --no-deps -q -d /tmp/p six && ls /tmp/p"); r.Exit != 0 || !strings.Contains(r.Stdout, "six") {
			t.Errorf("pip: %+v", r)
		}
		if r := sb.Run(t, "npm view is-number version"); r.Exit != 0 {
			t.Errorf("npm: %+v", r)
		}
	})
	t.Run("denied", func(t *testing.T) {
		sb := s.Create(t, map[string]any{"allow_internet_access": false})
		defer sb.Kill(t)
		if r := sb.Run(t, "timeout 20 pip download --retries 0 --timeout 3 --no-deps -q -d /tmp/p six"); r.Exit == 0 {
			t.Error("pip found its way")
		}
		if r := sb.Run(t, "echo still reachable"); r.Stdout != "still reachable\n" {
			t.Errorf("the host cannot reach it any more: %+v", r)
		}
	})
}

// testEngine looks at the engine from the host: if the code inside broke out of
// gVisor's kernel, this is all it would have.
func testEngine(t *testing.T, s *stand.Server) {
	cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	engines := 0
	for _, path := range cmdlines {
		line, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(line), "runsc-sandbox") || !strings.Contains(string(line), server.InstanceOf(s.Dir)) {
			continue
		}
		engines++
		dir := filepath.Dir(path)
		status, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Uid:\t65534", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("the engine's status lacks %q:\n%s", want, status)
			}
		}
		if files, _ := filepath.Glob(filepath.Join(dir, "root", "*")); len(files) > 2 {
			t.Errorf("the engine sees files: %v", files)
		}
		fds, _ := filepath.Glob(filepath.Join(dir, "fd", "*"))
		for _, fd := range fds {
			target, _ := os.Readlink(fd)
			if info, err := os.Stat(target); err == nil && info.IsDir() {
				t.Errorf("the engine holds a directory of the host: %s", target)
			}
		}
		own, _ := os.Readlink("/proc/self/ns/net")
		if ns, _ := os.Readlink(filepath.Join(dir, "ns", "net")); ns == own || ns == "" {
			t.Errorf("the engine's network namespace is %q, the host's %q", ns, own)
		}
	}
	if engines == 0 {
		t.Error("no engine was found")
	}
}
