package id_test

import (
	"regexp"
	"testing"

	"github.com/cove-sandbox/cove/internal/id"
)

func TestFormsAndUniqueness(t *testing.T) {
	forms := map[string]struct {
		pattern string
		make    func() string
	}{
		"sandbox":   {`^i[a-z0-9]{20}$`, func() string { return string(id.Sandbox()) }},
		"execution": {`^x[a-z0-9]{20}$`, func() string { return string(id.Execution()) }},
		"template":  {`^[a-z0-9]{20}$`, func() string { return string(id.Template()) }},
		"uuid":      {`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, id.UUID},
		"secret":    {`^[0-9a-f]{40}$`, func() string { return id.Secret(20) }},
	}
	for name, form := range forms {
		seen := map[string]bool{}
		for range 1000 {
			s := form.make()
			if !regexp.MustCompile(form.pattern).MatchString(s) {
				t.Fatalf("%s: %q does not match %s", name, s, form.pattern)
			}
			if seen[s] {
				t.Fatalf("%s: %q came twice", name, s)
			}
			seen[s] = true
		}
	}
	if !id.Sandbox().Valid() {
		t.Error("a fresh sandbox identifier is not valid")
	}
}
