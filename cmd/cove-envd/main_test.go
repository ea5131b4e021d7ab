package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cove-sandbox/cove/test/binaries"
)

// The daemon is loaded into every sandbox and lies in every snapshot. What it
// links is decided here; a new module needs a reason, a higher ceiling too.
const (
	maxPackages = 270
	maxBytes    = 10 << 20 // of the program, without symbols
)

// modules are all that it may link besides the standard library.
var modules = []string{
	"connectrpc.com/connect",
	"github.com/cove-sandbox/cove",
	"golang.org/x/sys",
	"google.golang.org/protobuf",
}

func TestClosure(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{.ImportPath}} {{if .Module}}{{.Module.Path}}{{end}}", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var linked []string
	packages := 0
	for line := range strings.Lines(string(out)) {
		packages++
		path, module, _ := strings.Cut(strings.TrimSpace(line), " ")
		if module != "" && !slices.Contains(linked, module) {
			linked = append(linked, module)
		}
		if path == "os/exec" || path == "net/rpc" || strings.HasPrefix(path, "golang.org/x/net/") {
			t.Errorf("it links %s", path)
		}
	}
	slices.Sort(linked)
	if diff := cmp.Diff(modules, linked); diff != "" {
		t.Errorf("modules (-allowed +linked):\n%s", diff)
	}
	if packages > maxPackages {
		t.Errorf("%d packages, at most %d are allowed", packages, maxPackages)
	}
}

func TestSize(t *testing.T) {
	info, err := os.Stat(filepath.Join(binaries.Dir(t, "cove-envd"), "cove-envd"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > maxBytes {
		t.Errorf("%d bytes, at most %d are allowed", info.Size(), maxBytes)
	}
}
