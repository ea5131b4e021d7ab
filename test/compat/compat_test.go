// Package compat runs the official clients, as their registries hand them out,
// against a real server. It installs them itself; a client that cannot be
// installed fails its test.
package compat_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/test/stand"
)

// runLimit is how long a client may take for all it does.
const runLimit = 5 * time.Minute

func TestOfficialClients(t *testing.T) {
	s := stand.Start(t)
	t.Run("javascript", func(t *testing.T) {
		dir, _ := npm(t, "e2b", newest)
		run(t, s, dir, node(t), script(t, dir, "sdk.mjs"))
	})
	t.Run("python", func(t *testing.T) {
		python, _ := pip(t, "e2b", newest)
		run(t, s, t.TempDir(), python, script(t, t.TempDir(), "sdk_sync.py"))
		run(t, s, t.TempDir(), python, script(t, t.TempDir(), "sdk_async.py"))
	})
	t.Run("command line", func(t *testing.T) {
		dir, _ := npm(t, "@e2b/cli", newest)
		testCommandLine(t, s, filepath.Join(dir, "node_modules", ".bin", "e2b"))
	})
}

// testCommandLine uses the official command line as a user at a shell would.
func testCommandLine(t *testing.T, s *stand.Server, e2b string) {
	sb := s.Create(t, nil)
	defer sb.Kill(t)
	home := t.TempDir()
	for _, c := range []struct {
		args string
		want string
		exit int
	}{
		{"sandbox list --format json", sb.ID, 0},
		{"sandbox info " + sb.ID + " --format json", sb.ID, 0},
		{"sandbox exec " + sb.ID + " -- echo from the sandbox", "from the sandbox", 0},
		{"sandbox exec " + sb.ID + " -- exit 7", "", 7},
		{"sandbox pause " + sb.ID, sb.ID, 0},
		{"sandbox list --state paused --format json", sb.ID, 0},
		{"sandbox resume " + sb.ID, sb.ID, 0},
		{"sandbox exec " + sb.ID + " -- echo it goes on", "it goes on", 0},
	} {
		args := strings.Split(c.args, " ")
		out, err := command(t, s, home, e2b, args...)
		exit := 0
		if e, ok := err.(*exec.ExitError); ok {
			exit = e.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if exit != c.exit || !strings.Contains(out, c.want) {
			t.Errorf("e2b %s: exit status %d, output:\n%s\nwant %d and %q", c.args, exit, out, c.exit, c.want)
		}
	}
	testCommandLineUsage(t, s, e2b, home, sb)
	other := s.Create(t, nil)
	if out, err := command(t, s, home, e2b, "sandbox", "kill", other.ID); err != nil {
		t.Errorf("e2b sandbox kill: %v\n%s", err, out)
	}
	if status, _ := s.Do(t, "GET", "/sandboxes/"+other.ID, nil); status != 404 {
		t.Errorf("after e2b sandbox kill: %d, want 404", status)
	}
	if out, err := command(t, s, home, e2b, "sandbox", "logs", other.ID); err != nil || !strings.Contains(out, "killed") {
		t.Errorf("e2b sandbox logs of one that was killed: %v\n%s", err, out)
	}
}

// testCommandLineUsage reads metrics and logs with the official command line, of
// a sandbox that was paused and resumed.
func testCommandLineUsage(t *testing.T, s *stand.Server, e2b, home string, sb *stand.Sandbox) {
	deadline := time.After(30 * time.Second)
	for tick := time.NewTicker(100 * time.Millisecond); ; <-tick.C {
		_, body := s.Do(t, "GET", "/sandboxes/metrics?sandbox_ids="+sb.ID, nil)
		if latest, _ := body["sandboxes"].(map[string]any); len(latest) == 1 {
			break
		}
		select {
		case <-deadline:
			t.Fatal("there is no metric of the sandbox")
		default:
		}
	}
	for args, wants := range map[string][]string{
		"sandbox metrics --format json " + sb.ID:          {`"cpuUsedPct":`, `"memUsed":`, `"diskTotal":10737418240`},
		"sandbox logs --format json " + sb.ID:             {`"event":"created"`, `"event":"paused"`, `"event":"resumed"`, `"level":"info"`},
		"sandbox logs " + sb.ID:                           {"was resumed", "logger", "lifecycle"},
		"sandbox logs --level DEBUG --loggers x " + sb.ID: {"Logs for sandbox"},
	} {
		out, err := command(t, s, home, e2b, strings.Split(args, " ")...)
		for _, want := range wants {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("e2b %s: %v, output:\n%s\nwant %q", args, err, out, want)
			}
		}
	}
}

// run runs a client's script and demands that it says that it has come to its
// end: a script that ends early, for whatever reason, has not passed.
func run(t *testing.T, s *stand.Server, dir, interpreter, script string) {
	t.Helper()
	out, err := command(t, s, dir, interpreter, script)
	if err != nil || !strings.HasSuffix(strings.TrimSpace(out), "ALL PASSED") {
		t.Errorf("%s: %v\n%s", filepath.Base(script), err, out)
	}
	if list := s.List(t); len(list) > 0 {
		t.Errorf("%s left sandboxes: %v", filepath.Base(script), list)
	}
}

// command runs a program as a client of the server: with three variables and no
// other configuration.
func command(t *testing.T, s *stand.Server, home, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	out, err := client(ctx, s, node(t), home, name, args...).CombinedOutput()
	return string(out), err
}

// client describes a program that is a client of the server and nothing else.
func client(ctx context.Context, s *stand.Server, node, home, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = home
	cmd.Env = []string{
		"PATH=" + filepath.Dir(node) + ":" + os.Getenv("PATH"), "HOME=" + home, "PYTHONDONTWRITEBYTECODE=1",
		"E2B_API_URL=" + s.URL, "E2B_SANDBOX_URL=" + s.URL, "E2B_API_KEY=" + s.Key, "CONTEXT=" + os.Getenv("CONTEXT"),
	}
	return cmd
}

// script copies a script of testdata to where it finds its packages.
func script(t *testing.T, dir, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
