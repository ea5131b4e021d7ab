package orchestrator_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/runtime/runtimetest"
)

// A held reader announces its first Write and holds it up until it is let go.
type held struct {
	held chan struct{} // closed by Write
	free chan struct{} // closed to let go
}

func newHeld() *held { return &held{make(chan struct{}), make(chan struct{})} }

func (h *held) Write(p []byte) (int, error) {
	select {
	case <-h.held:
	default:
		close(h.held)
	}
	<-h.free
	return len(p), nil
}

// endless writes until nobody reads any more.
func endless(_ string, to io.Writer) error {
	for zero := make([]byte, 1<<20); ; {
		if _, err := to.Write(zero); err != nil {
			return err
		}
	}
}

func TestExportIsHandedOnAsItIs(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	create(t, o)
	var want, got bytes.Buffer
	if err := runtimetest.Layer(&want); err != nil {
		t.Fatal(err)
	}
	if err := o.Export(t.Context(), id, "x1", &got); err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes of %d, %v", got.Len(), want.Len(), err)
	}
}

func TestExportOfMoreThanTheDiskHolds(t *testing.T) {
	m := newMachine(t)
	m.host.Layer = endless
	o := m.orchestrator(t, nil)
	serve(t, o)
	create(t, o)
	if err := o.Export(t.Context(), id, "x1", io.Discard); !cove.Is(err, cove.Exhausted) {
		t.Errorf("err = %v, want exhausted", err)
	}
	if m.host.Frozen(string(id)) {
		t.Error("it stands still")
	}
}

func TestExportThatHangs(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(m *machine, stop, cancel func())
		want cove.Kind
		runs bool
	}{
		"and is given up":         {func(_ *machine, _, cancel func()) { cancel() }, cove.DeadlineExceeded, true},
		"and its sandbox ends":    {func(m *machine, _, _ func()) { m.host.Crash(string(id)) }, cove.NotFound, false},
		"and the server is ended": {func(_ *machine, stop, _ func()) { stop() }, cove.Unavailable, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.host.Layer = endless
			o := m.orchestrator(t, nil)
			stop := serve(t, o)
			create(t, o)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			to, exported := newHeld(), make(chan error, 1)
			go func() { exported <- o.Export(ctx, id, "x1", to) }()
			<-to.held
			if !m.host.Frozen(string(id)) {
				t.Error("it does not stand still meanwhile")
			}
			c.end(m, stop, cancel)
			// Who reads hangs still. The sandbox does not.
			for deadline := time.Now().Add(10 * time.Second); m.host.Frozen(string(id)); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("it still stands")
				}
			}
			close(to.free)
			if err := <-exported; !cove.Is(err, c.want) {
				t.Errorf("err = %v, want %v", err, c.want)
			}
			if runs := m.host.Running(string(id)) == 1; runs != c.runs {
				t.Errorf("it runs: %v", runs)
			}
		})
	}
}

func TestPauseWaitsForAnExport(t *testing.T) {
	m := newMachine(t)
	o := m.orchestrator(t, nil)
	serve(t, o)
	create(t, o)
	to, exported, paused := newHeld(), make(chan error, 1), make(chan error, 1)
	go func() { exported <- o.Export(t.Context(), id, "x1", to) }()
	<-to.held
	go func() {
		_, err := o.Pause(t.Context(), id, "x1", node.Save{Snapshot: "s1"})
		paused <- err
	}()
	select {
	case err := <-paused:
		t.Errorf("it was paused in the middle of an export: %v", err)
	default:
	}
	close(to.free)
	if err := <-exported; err != nil {
		t.Errorf("export: %v", err)
	}
	if err := <-paused; err != nil || !m.host.Frozen(string(id)) {
		t.Errorf("pause: %v", err)
	}
}
