package orchestrator

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// exportRoom is what an export may take beyond the disk, in bytes: names,
// directories and empty files are not on it.
const exportRoom = 1 << 30

// maxExport returns how many bytes an export may have. A file on the disk takes
// whole blocks, and in the stream a header besides, so that a disk of small
// files grows by less than half.
func maxExport(r cove.Resources) int64 { return int64(r.DiskMB)<<20*3/2 + exportRoom }

// Export implements node.Node. Nothing of the stream is looked at.
func (o *Orchestrator) Export(ctx context.Context, id cove.SandboxID, execution cove.ExecutionID, to io.Writer) error {
	const op = "orchestrator.Export"
	running, err := o.running(ctx)
	if err != nil {
		return err
	}
	sb, ok := o.find(id)
	if !ok || sb.record.Execution != execution {
		return notHere(op)
	}
	sb.still.Lock()
	defer sb.still.Unlock()
	// It ends with its request or with the server, whichever is first.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(running, cancel)
	defer stop()
	r, w, err := os.Pipe()
	if err != nil {
		return hostFailure(op, err)
	}
	begin := time.Now()
	exported := make(chan error, 1)
	go func() {
		defer w.Close()
		exported <- sb.process.Export(ctx, sb.dir(), w)
	}()
	n, err := copyExport(to, r, maxExport(sb.record.Resources))
	// Whoever still writes is told to stop, in whatever he is held up.
	r.Close()
	cancel()
	eerr := <-exported
	switch {
	case err != nil:
		return err
	case cove.Is(eerr, cove.NotFound) || eerr != nil && sb.ended():
		return notHere(op)
	case eerr != nil && running.Err() != nil:
		return cove.E(cove.Unavailable, op, eerr, "the server is stopping; try again")
	case eerr != nil:
		return eerr
	}
	o.cfg.Log.Debug("exported", "sandbox", id, "bytes", n, "took", time.Since(begin).Round(100*time.Microsecond))
	return nil
}

// copyExport copies at most most bytes.
func copyExport(to io.Writer, from io.Reader, most int64) (int64, error) {
	n, err := io.Copy(to, io.LimitReader(from, most))
	if err != nil {
		return n, fmt.Errorf("handing on what a sandbox has written: %w", err)
	}
	if more, _ := from.Read(make([]byte, 1)); more > 0 {
		return n, cove.E(cove.Exhausted, "orchestrator.Export", nil,
			"the sandbox's files take more than %d MiB: remove files that have holes", most>>20)
	}
	return n, nil
}

// ended reports whether the sandbox's process has ended.
func (s *sandbox) ended() bool {
	select {
	case <-s.process.Done():
		return true
	default:
		return false
	}
}
