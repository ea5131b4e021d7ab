// Package arch holds the rules of docs/ARCHITECTURE.md that a machine can
// check: who may import whom, and the shape of files.
package arch_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/cove-sandbox/cove"

// pkg is what the go tool says of a package. Paths are relative to the module;
// the root package is ".".
type pkg struct {
	Dir, ImportPath, Doc string
	GoFiles              []string
	Imports              []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=Dir,ImportPath,Doc,GoFiles,Imports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = local(p.ImportPath)
		all = append(all, p)
	}
	if len(all) < 20 {
		t.Fatalf("only %d packages were found", len(all))
	}
	return all
}

// local returns a path of the module relative to it, others as they are.
func local(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

func ours(imp string) bool { return imp == module || strings.HasPrefix(imp, module+"/") }

// A layer is packages of one rank, each with what lies below it in the tree. A
// package may import layers above its own line, and within its own unit.
var layers = []struct {
	name  string
	units []string
}{
	{"root", []string{"."}},
	{"ground", []string{"internal/undo", "internal/run", "internal/id", "internal/obs", "internal/gen"}},
	{"contracts", []string{"internal/store", "internal/node", "internal/runtime"}},
	{"mechanisms", []string{"internal/network", "internal/cgroup", "internal/rootfs", "internal/image", "internal/auth", "internal/envd"}},
	{"engines", []string{"internal/orchestrator", "internal/builder", "internal/control", "internal/proxy"}},
	{"surfaces", []string{"internal/api"}},
	{"server", []string{"internal/server"}},
	{"cli", []string{"internal/cli"}},
	{"commands", []string{"cmd/cove", "cmd/cove-envd", "cmd/cove-runsc"}},
	{"outside", []string{"spec", "test"}},
}

// unit returns the layer and unit a package belongs to; -1 if none.
func unit(path string) (layer int, name string) {
	for i, l := range layers {
		for _, u := range l.units {
			if path == u || strings.HasPrefix(path, u+"/") {
				return i, u
			}
		}
	}
	return -1, ""
}

// implementations of contracts: only the composition root may import them.
var implementations = []string{"internal/store/sqlite", "internal/runtime/runsc"}

// exam reports whether a package is for tests only.
func exam(path string) bool {
	base := path[strings.LastIndex(path, "/")+1:]
	return strings.HasPrefix(path, "test/") || (strings.HasSuffix(base, "test") && base != "test")
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range packages(t) {
		layer, name := unit(p.ImportPath)
		if layer < 0 {
			t.Errorf("%s belongs to no layer: put it into docs/ARCHITECTURE.md and into this test", p.ImportPath)
			continue
		}
		if exam(p.ImportPath) || strings.Contains(p.ImportPath, "/testdata/") {
			continue
		}
		for _, imp := range p.Imports {
			if ours(imp) {
				checkImport(t, p.ImportPath, layer, name, local(imp))
			}
		}
	}
}

func checkImport(t *testing.T, path string, layer int, own, imp string) {
	t.Helper()
	impLayer, impUnit := unit(imp)
	rank := layers[layer].name
	within := own == impUnit
	switch {
	case exam(imp):
		t.Errorf("%s imports %s, which is for tests", path, imp)
	case impLayer >= layer && !within:
		t.Errorf("%s (%s) imports %s (%s): imports point down", path, rank, imp, layers[impLayer].name)
	case rank == "surfaces" && !within && impLayer > 1 && impUnit != "internal/auth":
		t.Errorf("%s imports %s: a surface knows root, ground and auth", path, imp)
	case slices.ContainsFunc(implementations, func(i string) bool { return imp == i || strings.HasPrefix(imp, i+"/") }) &&
		!strings.HasPrefix(path, imp) && !implementation(path) && rank != "server" && path != "cmd/cove-runsc":
		t.Errorf("%s imports %s: only the server chooses implementations", path, imp)
	case strings.HasPrefix(imp, "internal/gen") && !mayUseWire(path):
		t.Errorf("%s imports %s: wire types stop at the edges of the process", path, imp)
	}
}

func implementation(path string) bool {
	return slices.ContainsFunc(implementations, func(i string) bool { return path == i || strings.HasPrefix(path, i+"/") })
}

func mayUseWire(path string) bool {
	for _, u := range []string{"internal/gen", "internal/api", "internal/envd"} {
		if path == u || strings.HasPrefix(path, u+"/") {
			return true
		}
	}
	return false
}

// confined says of imports from elsewhere which packages may use them.
var confined = map[*regexp.Regexp][]string{
	regexp.MustCompile(`^os/exec$`):       {"internal/runtime", "internal/network", "internal/rootfs", "internal/cli", "internal/envd", "test", "spec"},
	regexp.MustCompile(`^database/sql$`):  {"internal/store"},
	regexp.MustCompile(`^gvisor\.dev/`):   {"internal/runtime/runsc/engine"},
	regexp.MustCompile(`^modernc\.org/`):  {"internal/store/sqlite"},
	regexp.MustCompile(`spf13/`):          {"internal/cli"},
	regexp.MustCompile(`/moby/buildkit/`): {"internal/builder/dockerfile"},
	regexp.MustCompile(`^net/http/pprof`): {},
}

// pure packages turn what they are given into what they return: they may import
// the root package, this from elsewhere, and of the standard library what does
// not reach outside of the process.
var pure = map[string]*regexp.Regexp{
	"internal/builder/plan":       regexp.MustCompile(`^github\.com/cove-sandbox/cove/internal/builder/dockerfile$`),
	"internal/builder/dockerfile": regexp.MustCompile(`^github\.com/moby/buildkit/frontend/dockerfile/(parser|shell)$`),
}

func TestPurePackagesReachNothing(t *testing.T) {
	outside := regexp.MustCompile(`^(os|net|syscall|log|io/fs|io/ioutil|plugin|unsafe)(/|$)`)
	for _, p := range packages(t) {
		allowed, ok := pure[p.ImportPath]
		if !ok {
			continue
		}
		for _, imp := range p.Imports {
			standard := !strings.Contains(strings.SplitN(imp, "/", 2)[0], ".")
			if imp != module && !allowed.MatchString(imp) && (!standard || outside.MatchString(imp)) {
				t.Errorf("%s imports %s, and is to be pure", p.ImportPath, imp)
			}
		}
	}
}

func TestImportsFromElsewhereAreConfined(t *testing.T) {
	for _, p := range packages(t) {
		for _, imp := range p.Imports {
			if p.ImportPath == "." && strings.Contains(imp, ".") {
				t.Errorf("the root package imports %s: it knows the standard library only", imp)
			}
			for pattern, allowed := range confined {
				if pattern.MatchString(imp) && !slices.ContainsFunc(allowed, func(u string) bool {
					return p.ImportPath == u || strings.HasPrefix(p.ImportPath, u+"/")
				}) {
					t.Errorf("%s imports %s, which belongs to %v", p.ImportPath, imp, allowed)
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.GoFiles) > 0 && len(p.Doc) < 30 && !strings.HasPrefix(p.ImportPath, "internal/gen/") {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

const (
	maxFile     = 500 // lines
	maxFunction = 80  // lines
)

func TestShapeOfFiles(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		if d.IsDir() {
			if name == filepath.Join("internal", "gen") || strings.HasPrefix(d.Name(), ".") && name != "." {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(name, ".go") {
			checkFile(t, path, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// skips matches a test that can leave without a verdict. It is put together so
// that it does not match itself.
var skips = regexp.MustCompile(`\bt\.Skip` + `(f|Now)?\(`)

func checkFile(t *testing.T, path, name string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(content), "\n"); n > maxFile {
		t.Errorf("%s has %d lines; past %d a noun is missing", name, n, maxFile)
	}
	if skips.Match(content) {
		t.Errorf("%s skips a test: a missing tool is a failure", name)
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, content, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, imp := range file.Imports {
		if imp.Path.Value == `"golang.org/x/sys/unix"` && !strings.HasSuffix(name, "_linux.go") && !strings.HasSuffix(name, "_test.go") {
			t.Errorf("%s makes system calls: its name must end in _linux.go", name)
		}
	}
	for _, decl := range file.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		if !ok {
			continue
		}
		if fn.Name.Name == "init" && fn.Recv == nil {
			t.Errorf("%s has an init: nothing works before main says so", name)
		}
		// A test may be long if it is a table.
		if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line; n > maxFunction && !strings.HasSuffix(name, "_test.go") {
			t.Errorf("%s: %s has %d lines; past %d it does more than one thing", name, fn.Name.Name, n, maxFunction)
		}
	}
}
