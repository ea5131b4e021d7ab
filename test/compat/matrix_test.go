package compat_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cove-sandbox/cove/test/stand"
)

// notServed are the public methods, and classes, of the SDKs that Cove does not
// serve yet, with what they are for. Each must be offered by some version that
// is tested, and must have no case.
var notServed = map[string]string{
	"sandbox.update_network": "egress rules",
	"sandbox.get_mcp_url":    "the MCP gateway",
	"sandbox.get_mcp_token":  "the MCP gateway",
	"Template":               "own templates",
	"Volume":                 "volumes",
	"Secret":                 "secrets",
}

// atOnce is how many clients run at a time. Each waits more than it works.
const atOnce = 3

// A version is one version of one flavour of the SDK, and how its cases went.
type version struct {
	Flavour, Version string
	Newest           bool // its registry offers no later one

	home        string // where it runs
	interpreter string
	script      string

	stderr  bytes.Buffer
	err     error
	ended   bool
	Methods []string
	Results map[test]string
	order   []test
	details map[test]string
}

// A test is a method and what of it is examined. Names of methods are those of
// the Python SDK.
type test struct{ Method, Case string }

func (c test) String() string { return c.Method + ": " + c.Case }

// group is the object that a method belongs to.
func (c test) group() string {
	group, _, _ := strings.Cut(c.Method, ".")
	return group
}

// TestMatrix tries every public method of the SDKs, in the newest version and in
// two older ones. docs/compat.md must say what came of it; -update writes it.
func TestMatrix(t *testing.T) {
	versions := installed(t)
	s := stand.Start(t)
	runAll(t, s, versions)
	for _, v := range versions {
		t.Run(v.Flavour+" "+v.Version, v.check)
	}
	if list := s.List(t); len(list) > 0 {
		t.Errorf("the clients left sandboxes: %v", list)
	}
	checkNotServed(t, versions)
	checkExamined(t, versions)
	checkPage(t, versions)
}

// installed installs what is tested. Of the 2.2x, it is the last one that was
// published.
func installed(t *testing.T) []*version {
	t.Helper()
	var all []*version
	for _, number := range []string{newest, "2.45.0", "2.29.1"} {
		dir, actual := npm(t, "e2b", number)
		copyTree(t, "testdata", dir, "matrix.mjs", "matrix")
		all = append(all, &version{
			Flavour: "JavaScript", Version: actual, Newest: number == newest,
			home: dir, interpreter: node(t), script: filepath.Join(dir, "matrix.mjs"),
		})
	}
	scripts, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, flavour := range []struct{ name, script string }{{"Python", "matrix_sync.py"}, {"async Python", "matrix_async.py"}} {
		for _, number := range []string{newest, "2.45.1", "2.29.6"} {
			python, actual := pip(t, "e2b", number)
			all = append(all, &version{
				Flavour: flavour.name, Version: actual, Newest: number == newest,
				home: t.TempDir(), interpreter: python, script: filepath.Join(scripts, flavour.script),
			})
		}
	}
	return all
}

// copyTree copies files and folders to where a script finds its packages.
func copyTree(t *testing.T, from, to string, names ...string) {
	t.Helper()
	for _, name := range names {
		err := filepath.WalkDir(filepath.Join(from, name), func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			relative, err := filepath.Rel(from, path)
			if err != nil {
				return err
			}
			if d.IsDir() {
				return os.MkdirAll(filepath.Join(to, relative), 0o755)
			}
			content, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(filepath.Join(to, relative), content, 0o600))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func runAll(t *testing.T, s *stand.Server, versions []*version) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*runLimit)
	defer cancel()
	node := node(t)
	free := make(chan struct{}, atOnce) // never closed: a place in it is a place to run
	var running sync.WaitGroup
	for _, v := range versions {
		running.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			v.run(ctx, s, node)
		})
	}
	running.Wait()
}

// run runs the cases and keeps what the script says of them.
func (v *version) run(ctx context.Context, s *stand.Server, node string) {
	v.Results, v.details = map[test]string{}, map[test]string{}
	cmd := client(ctx, s, node, v.home, v.interpreter, v.script)
	cmd.Stderr = &v.stderr
	out, err := cmd.Output()
	v.err = err
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var line struct {
			test
			Result, Detail string
			Methods        []string
			End            bool
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			v.err = errors.Join(v.err, fmt.Errorf("the script said %q: %w", lines.Text(), err))
			continue
		}
		switch {
		case line.End:
			v.ended = true
		case line.Methods != nil:
			v.Methods = line.Methods
		default:
			if _, twice := v.Results[line.test]; twice {
				v.err = errors.Join(v.err, fmt.Errorf("two cases are called %q", line.test))
			}
			v.order = append(v.order, line.test)
			v.Results[line.test] = line.Result
			v.details[line.test] = line.Detail
		}
	}
}

// check fails unless every public method has a case, and no case failed.
func (v *version) check(t *testing.T) {
	if v.err != nil || !v.ended {
		t.Errorf("the script did not come to its end: %v\n%s", v.err, &v.stderr)
	}
	examined := map[string]bool{}
	for _, c := range v.order {
		switch v.Results[c] {
		case "pass":
			examined[c.Method] = true
		case "fail":
			examined[c.Method] = true
			t.Errorf("%s:\n%s", c, v.details[c])
		case "absent":
		default:
			t.Errorf("%s: result %q", c, v.Results[c])
		}
	}
	for _, method := range v.Methods {
		_, known := notServed[method]
		switch {
		case known && examined[method]:
			t.Errorf("%s has a case, and is listed as not served", method)
		case !known && !examined[method] && v.ended:
			t.Errorf("e2b %s for %s has a method %s without a case: give it one in testdata/matrix, or list it as not served",
				v.Version, v.Flavour, method)
		}
	}
	t.Logf("%d cases", len(v.order))
}

// checkNotServed fails for what no version has.
func checkNotServed(t *testing.T, versions []*version) {
	t.Helper()
	offered := map[string]bool{}
	for _, v := range versions {
		for _, method := range v.Methods {
			offered[method] = true
		}
	}
	for _, method := range slices.Sorted(maps.Keys(notServed)) {
		if !offered[method] {
			t.Errorf("%s is listed as not served, but no version offers it", method)
		}
	}
}

// checkExamined fails for a case that was absent everywhere: what it needs is
// spelled wrong, or is of a version that is not tested any more.
func checkExamined(t *testing.T, versions []*version) {
	t.Helper()
	for _, c := range tests(versions) {
		if !slices.ContainsFunc(versions, func(v *version) bool { return v.Results[c] == "pass" || v.Results[c] == "fail" }) {
			t.Errorf("%s: no version has what the case needs", c)
		}
	}
}
