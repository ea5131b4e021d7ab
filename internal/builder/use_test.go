package builder

import (
	"os"
	"testing"

	cove "github.com/cove-sandbox/cove"
)

func TestNothingIsRemovedThatIsUsed(t *testing.T) {
	b := New(Config{TemplatesDir: t.TempDir()})
	if err := os.Mkdir(b.Dir("root"), 0o700); err != nil {
		t.Fatal(err)
	}
	first, second := b.use("root"), b.use("root")
	for _, release := range []func(){first, second} {
		if err := b.Remove(t.Context(), "root"); !cove.Is(err, cove.Conflict) {
			t.Errorf("err = %v", err)
		}
		release()
		release()
	}
	if err := b.Remove(t.Context(), "root"); err != nil || len(b.inUse()) > 0 {
		t.Errorf("%v, %v", err, b.inUse())
	}
}
