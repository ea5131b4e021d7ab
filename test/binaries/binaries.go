// Package binaries builds the module's programs for tests, once per change:
// the go tool relinks only what is out of date.
//
// It is for tests only; nothing else may import it. It starts no goroutines.
package binaries

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Dir returns a directory with bin/-like contents: cove-runsc, cove-envd and
// whatever else names, as "cmd/..." folders, were asked for. It lies in the
// user's cache, so later runs find the programs linked.
func Dir(t testing.TB, names ...string) string {
	t.Helper()
	return build(t, "bin", "", names)
}

// Other is Dir for programs that say they have another version of the engine:
// the same code, but one must not be taken for the other.
func Other(t testing.TB, names ...string) string {
	t.Helper()
	return build(t, "bin-other", "-other", names)
}

func build(t testing.TB, folder, suffix string, names []string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "cove-test", folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Minute) // clean-ups build too
	defer cancel()
	root := run(t, exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}"))
	version := run(t, exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", "gvisor.dev/gvisor"))
	args := []string{"install", "-buildvcs=false", "-ldflags", "-s -w -X gvisor.dev/gvisor/runsc/version.version=" + version + suffix}
	for _, name := range names {
		args = append(args, "./cmd/"+name)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOBIN="+dir)
	run(t, cmd)
	return dir
}

func run(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}
