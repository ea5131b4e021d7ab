package nodetest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
)

// Export implements node.Node.
func (f *Fake) Export(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID, to io.Writer) error {
	if spec, ok := f.Spec(id); !ok || spec.Execution != execution {
		return cove.E(cove.NotFound, "nodetest.Export", nil, "the sandbox does not run")
	}
	if err := ctx.Err(); err != nil {
		return cove.E(cove.DeadlineExceeded, "nodetest.Export", err, "the sandbox's files were not read in time")
	}
	if f.Layer != nil {
		_, err := to.Write(f.Layer(id))
		return err
	}
	w := tar.NewWriter(to)
	if err := w.WriteHeader(&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
		return err
	}
	return w.Close()
}

func exports(t *testing.T, b Bench) {
	n := b.Open(t)
	create(t, n, time.Hour)
	for _, frozen := range []bool{false, true} {
		if frozen {
			if _, err := n.Pause(t.Context(), "i1", "x1", node.Save{Snapshot: "s1"}); err != nil {
				t.Fatalf("pause: %v", err)
			}
		}
		var layer bytes.Buffer
		if err := n.Export(t.Context(), "i1", "x1", &layer); err != nil {
			t.Fatalf("export of one that stands still: %v; %v", frozen, err)
		}
		files := 0
		for r := tar.NewReader(&layer); ; files++ {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if files == 0 && (h.Name != "./" || h.Typeflag != tar.TypeDir) {
				t.Errorf("it begins with %+v", h)
			}
		}
		if files == 0 {
			t.Error("nothing was exported")
		}
	}
}

var errUnread = errors.New("nobody reads")

type unread struct{}

func (unread) Write([]byte) (int, error) { return 0, errUnread }

func exportToNobody(t *testing.T, b Bench) {
	n := b.Open(t)
	create(t, n, time.Hour)
	if err := n.Export(t.Context(), "i1", "x1", unread{}); !errors.Is(err, errUnread) {
		t.Errorf("err = %v, want that of who reads", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Export(ctx, "i1", "x1", io.Discard); err == nil {
		t.Error("it was exported when nobody wanted it any more")
	}
	if all := measured(t, n); len(all) != 1 {
		t.Errorf("it stands still: %+v", all)
	}
	if err := n.Export(t.Context(), "i1", "x1", io.Discard); err != nil {
		t.Errorf("the next export: %v", err)
	}
}

func exportOfNobody(t *testing.T, b Bench) {
	n := b.Open(t)
	create(t, n, time.Hour)
	for id, execution := range map[cove.SandboxID]cove.ExecutionID{"inobody": "x1", "i1": "x2"} {
		var layer bytes.Buffer
		if err := n.Export(t.Context(), id, execution, &layer); !cove.Is(err, cove.NotFound) || layer.Len() > 0 {
			t.Errorf("of %s, %s: %v and %d bytes, want not found", id, execution, err, layer.Len())
		}
	}
}
