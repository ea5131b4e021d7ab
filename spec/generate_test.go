package spec_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestGenerated makes everything again and compares. If it fails, run
// `go generate ./spec`.
func TestGenerated(t *testing.T) {
	// The tools write where they are told to, relative to where they run: in a
	// copy of what they read.
	dir := t.TempDir()
	for _, name := range []string{"tools.mod", "tools.sum"} {
		copyFile(t, filepath.Join("..", name), filepath.Join(dir, name))
	}
	// A go.mod makes it a module; -modfile decides what is in it.
	copyFile(t, "../go.mod", filepath.Join(dir, "go.mod"))
	if err := os.CopyFS(filepath.Join(dir, "spec"), os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "internal/gen/api"), 0o755); err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("generate.go")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile(`(?m)^//go:generate repo (.+)$`).FindAllStringSubmatch(string(source), -1)
	if len(commands) == 0 {
		t.Fatal("there is nothing to generate")
	}
	for _, line := range commands {
		cmd := exec.CommandContext(t.Context(), "go", strings.Fields(line[1])...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line[1], err, out)
		}
	}
	fresh, committed := tree(t, filepath.Join(dir, "internal/gen")), tree(t, "../internal/gen")
	for name, want := range fresh {
		got, ok := committed[name]
		switch {
		case !ok:
			t.Errorf("internal/gen/%s is missing", name)
		case !bytes.Equal(want, got):
			t.Errorf("internal/gen/%s is out of date", name)
		}
	}
	for name := range committed {
		if _, ok := fresh[name]; !ok {
			t.Errorf("internal/gen/%s is made from nothing", name)
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// tree returns the files below dir by their relative paths.
func tree(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files[path], err = os.ReadFile(filepath.Join(dir, path))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
