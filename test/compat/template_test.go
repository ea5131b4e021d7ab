package compat_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cove-sandbox/cove/test/stand"
)

// TestTemplates builds templates with the newest official clients: with packages
// from their registries, a server that is started with the template, and files
// of a build context.
func TestTemplates(t *testing.T) {
	s := stand.Start(t)
	context, err := filepath.Abs("testdata/context")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONTEXT", context)
	t.Run("javascript", func(t *testing.T) {
		dir, _ := npm(t, "e2b", newest)
		run(t, s, dir, node(t), script(t, dir, "template.mjs"))
	})
	t.Run("python", func(t *testing.T) {
		python, _ := pip(t, "e2b", newest)
		run(t, s, t.TempDir(), python, script(t, t.TempDir(), "template_sync.py"))
		run(t, s, t.TempDir(), python, script(t, t.TempDir(), "template_async.py"))
	})
	t.Run("command line", func(t *testing.T) {
		dir, _ := npm(t, "@e2b/cli", newest)
		testTemplateCommands(t, s, filepath.Join(dir, "node_modules", ".bin", "e2b"))
	})
}

// testTemplateCommands builds, lists, publishes and deletes a template with the
// official command line, out of a Dockerfile.
func testTemplateCommands(t *testing.T, s *stand.Server, e2b string) {
	home := t.TempDir()
	for name, content := range map[string]string{
		"e2b.Dockerfile": "FROM e2bdev/base\nWORKDIR /app\nCOPY page.html ./\nRUN echo built > made\n",
		"page.html":      "the page\n",
	} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	e2bRun := func(args ...string) string {
		t.Helper()
		out, err := command(t, s, home, e2b, args...)
		if err != nil {
			t.Fatalf("e2b %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	out := e2bRun("template", "create", "cli-made", "-d", "e2b.Dockerfile", "-c", "python3 -m http.server 8000", "--ready-cmd", "curl -sf localhost:8000/page.html",
		"--cpu-count", "1", "--memory-mb", "512")
	if !strings.Contains(out, "[builder ") {
		t.Errorf("the build shows no steps:\n%s", out)
	}
	sb := s.Create(t, map[string]any{"templateID": "cli-made", "timeout": 60})
	if got := sb.Run(t, "cat /app/made; curl -s localhost:8000/page.html"); got.Stdout != "built\nthe page\n" {
		t.Errorf("%+v", got)
	}
	sb.Kill(t)
	var list []struct {
		TemplateID string
		Aliases    []string
		Public     bool
		CPUCount   int
	}
	find := func() (id string, public bool) {
		t.Helper()
		out := e2bRun("template", "list", "--format", "json")
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		for _, l := range list {
			if len(l.Aliases) == 1 && l.Aliases[0] == "cli-made" {
				return l.TemplateID, l.Public
			}
		}
		return "", false
	}
	id, public := find()
	if id == "" || public {
		t.Fatalf("the template is not in the list, or public: %+v", list)
	}
	if out := e2bRun("template", "list"); !strings.Contains(out, "cli-made") {
		t.Errorf("the list for people:\n%s", out)
	}
	e2bRun("template", "publish", "-y", id)
	if _, public = find(); !public {
		t.Error("it is not public after it was published")
	}
	e2bRun("template", "unpublish", "-y", id)
	e2bRun("template", "delete", "-y", id)
	if id, _ = find(); id != "" {
		t.Error("it is listed after it was deleted")
	}
}
