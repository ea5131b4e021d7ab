package compat_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// installLimit is how long a registry may take for one request.
const installLimit = 5 * time.Minute

// newest stands for the version that a registry offers today.
const newest = "newest"

// cached returns a directory for what is installed under a name.
func cached(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "cove-test", "clients", name)
}

func install(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), installLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// complete tells whether a directory holds all that was to be installed there,
// and done says that it does.
func complete(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "complete"))
	return err == nil
}

func done(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "complete"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// npm installs a version of a package and returns the directory whose scripts
// can import it, and the version.
func npm(t *testing.T, name, version string) (string, string) {
	t.Helper()
	parent := cached(t, "")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	if version == newest {
		ctx, cancel := context.WithTimeout(t.Context(), installLimit)
		defer cancel()
		view := exec.CommandContext(ctx, npmProgram(t), "view", name, "version", "--json")
		view.Dir = parent
		out, err := view.Output()
		if err != nil || json.Unmarshal(out, &version) != nil {
			t.Fatalf("npm view %s: %v %s", name, err, out)
		}
	}
	dir := cached(t, strings.ReplaceAll(name, "/", "-")+"-"+version)
	t.Logf("%s %s", name, version)
	if complete(dir) {
		return dir, version
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	install(t, dir, npmProgram(t), "install", "--no-audit", "--no-fund", "--prefix", dir, name+"@"+version)
	done(t, dir)
	return dir, version
}

// venv returns a virtual environment of its own for a package.
func venv(t *testing.T, name string) string {
	t.Helper()
	dir := cached(t, "python-"+name)
	if _, err := os.Stat(filepath.Join(dir, "bin", "pip")); err != nil {
		install(t, "/", "python3", "-m", "venv", "--clear", dir)
	}
	return dir
}

// pip installs a version of a package and returns the interpreter that can
// import it, and the version.
func pip(t *testing.T, name, version string) (string, string) {
	t.Helper()
	where, wanted := name, []string{"install", "--quiet", "--upgrade", name}
	if version != newest {
		where, wanted = name+"-"+version, []string{"install", "--quiet", name + "==" + version}
	}
	dir := venv(t, where)
	python := filepath.Join(dir, "bin", "python")
	if version == newest || !complete(dir) {
		install(t, "/", filepath.Join(dir, "bin", "pip"), wanted...)
		done(t, dir)
	}
	version = strings.TrimSpace(install(t, "/", python, "-c", "import importlib.metadata as m; print(m.version('"+name+"'))"))
	t.Logf("%s %s", name, version)
	return python, version
}
