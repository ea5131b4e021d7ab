package envd_test

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/cove-sandbox/cove/internal/envd"
	"github.com/cove-sandbox/cove/internal/envd/envdclient"
	"github.com/cove-sandbox/cove/internal/envd/paths"
	"github.com/cove-sandbox/cove/internal/gen/process"
)

// asFirst makes the test binary a daemon; see TestFirstProcess.
const asFirst = "COVE_TEST_FIRST_PROCESS"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asFirst); dir != "" {
		os.Exit(first(dir))
	}
	os.Exit(m.Run())
}

// first is the daemon as the first process of namespaces of its own, over
// copies of what it writes.
func first(dir string) int {
	for _, mount := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"none", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"proc", "/proc", "proc", 0},
		{filepath.Join(dir, "etc"), "/etc", "", unix.MS_BIND},
		{"tmpfs", "/run", "tmpfs", 0},
	} {
		if err := unix.Mount(mount.source, mount.target, mount.kind, mount.flags, ""); err != nil {
			io.WriteString(os.Stderr, mount.target+": "+err.Error()+"\n")
			return 1
		}
	}
	os.Unsetenv(asFirst)
	return envd.Main([]string{"cove-envd", "-listen", os.Getenv("COVE_TEST_LISTEN")}, os.Stdout, os.Stderr)
}

// freeAddr returns an address nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// ownScore is what a process inherits where nothing may be changed.
func ownScore(t *testing.T) string {
	t.Helper()
	score, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	return string(score)
}

func TestFirstProcess(t *testing.T) {
	dir := t.TempDir()
	etc := filepath.Join(dir, "etc")
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	// A link that leads nowhere, as images have it, must not stop the boot.
	if err := os.Symlink("../run/nowhere/resolv.conf", filepath.Join(etc, "resolv.conf")); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{asFirst + "=" + dir, "COVE_TEST_LISTEN=" + addr, "PATH=" + os.Getenv("PATH"),
		"E2B_SANDBOX=true", "E2B_SANDBOX_ID=isbx", "E2B_TEMPLATE_ID=tpl", "COVE_CONTROL_TOKEN=" + control, "COVE_NAMESERVER=169.254.0.22"}
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL,
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "cove-envd ready "+paths.Version+"\n" {
		t.Errorf("said %q, %v", line, err)
	}
	out.Close()

	d := &daemon{t: t, addr: addr, url: "http://" + addr}
	d.clients(addr)
	// Orphans are collected, and the statuses of the daemon's own children are
	// not lost among them.
	for range 20 {
		wantEnd(t, d.run("for i in 1 2 3 4 5; do (sleep 0.01 & sleep 0.01 &) ; done; exit 5"), ended(5, "exit status 5"))
	}
	eventually(t, "no zombies are left", func() bool {
		return d.run("grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null").out == ""
	})
	env := d.run("env").out
	if strings.Contains(env, control) || !strings.Contains(env, "E2B_SANDBOX_ID=isbx\n") {
		t.Errorf("environment %s", env)
	}
	scores := d.run("cat /proc/1/oom_score_adj /proc/self/oom_score_adj").out
	if refused := strings.Repeat(ownScore(t), 2); scores != "-1000\n100\n" && scores != refused {
		t.Errorf("scores %q; %q where the kernel refuses", scores, refused)
	}
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	got := d.run("cat /etc/hosts /etc/hostname /etc/resolv.conf; cd /run/e2b && head -n1 .E2B*").out
	want := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t" + hostname + "\n" + hostname +
		"\nnameserver 169.254.0.22\n==> .E2B_SANDBOX <==\ntrue\n==> .E2B_SANDBOX_ID <==\nisbx\n==> .E2B_TEMPLATE_ID <==\ntpl"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	d.init(envdclient.Init{SandboxID: "iother"})
	if got := d.run("cat /run/e2b/.E2B_SANDBOX_ID; echo $E2B_SANDBOX_ID").out; got != "iotheriother\n" {
		t.Errorf("after a restore: %q", got)
	}

	wantTerminated(t, d, cmd)
}

// wantTerminated checks that SIGTERM ends the daemon although something runs
// that does not listen to it.
func wantTerminated(t *testing.T, d *daemon, cmd *exec.Cmd) {
	t.Helper()
	r, err := d.spawn(t.Context(), &process.StartRequest{Process: &process.ProcessConfig{Cmd: "/bin/bash", Args: []string{"-c", "trap '' TERM; echo up; while :; do read; done"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.until("up")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	if _, err := d.process.List(t.Context(), connect.NewRequest(&process.ListRequest{})); err == nil {
		t.Error("it still answers")
	}
}
