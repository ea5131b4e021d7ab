package envd_test

import (
	"log/slog"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cove-sandbox/cove/internal/envd"
	"github.com/cove-sandbox/cove/internal/envd/paths"
)

// The description and the daemon have the same routes, and the edge refuses
// those that the description calls internal. The description is read line by
// line: paths stand two spaces in, what belongs to them four.
func TestDescription(t *testing.T) {
	source, err := os.ReadFile("../../spec/envd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, body, ok := strings.Cut(string(source), "\npaths:\n")
	if !ok {
		t.Fatal("no paths")
	}
	body, _, _ = strings.Cut(body, "\ncomponents:\n")
	path := regexp.MustCompile(`^  (/[a-z/]+):$`)
	method := regexp.MustCompile(`^    (get|post|put|delete|patch|head):$`)
	var at string
	var routes, internal []string
	for line := range strings.Lines(body) {
		line = strings.TrimRight(line, "\n")
		if m := path.FindStringSubmatch(line); m != nil {
			at = m[1]
		} else if m := method.FindStringSubmatch(line); m != nil {
			routes = append(routes, strings.ToUpper(m[1])+" "+at)
		} else if line == "    x-internal: true" {
			internal = append(internal, at)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d, err := envd.New(envd.Config{Listener: ln, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	served := d.Routes()
	slices.Sort(routes)
	slices.Sort(served)
	if diff := cmp.Diff(routes, served); diff != "" {
		t.Errorf("routes (-described +served):\n%s", diff)
	}
	slices.Sort(internal)
	if diff := cmp.Diff(internal, paths.InternalPaths()); diff != "" {
		t.Errorf("internal (-described +refused):\n%s", diff)
	}
	if !strings.Contains(string(source), "\n  version: "+paths.Version+"\n") {
		t.Errorf("the description is not of version %s", paths.Version)
	}
}
