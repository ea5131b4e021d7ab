package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/mattn/go-isatty"

	"github.com/cove-sandbox/cove/internal/builder"
)

// progress shows a build as it goes: on a terminal in one line a step that is
// written over, elsewhere a line a step and one now and then within it.
type progress struct {
	out      io.Writer
	terminal bool

	mu   sync.Mutex
	step int       // the step shown last
	last time.Time // when it was shown
	open bool      // a terminal's line waits to be written over
}

// quietFor is how long a step may go on, away from a terminal, before another
// line says that it still does.
const quietFor = 10 * time.Second

func newProgress(out io.Writer) *progress {
	f, ok := out.(*os.File)
	return &progress{out: out, terminal: ok && isatty.IsTerminal(f.Fd())}
}

// show is told of every bit of progress.
func (p *progress) show(b builder.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b.Warning {
		p.endLine()
		fmt.Fprintf(p.out, "base template: warning: %s\n", b.Detail)
		return
	}
	line := fmt.Sprintf("base template [%d/%d] %s%s %s", b.N, b.Of, b.Step, amount(b), b.Elapsed.Round(time.Second))
	fresh := b.N != p.step
	switch {
	case p.terminal:
		if fresh {
			p.endLine()
		}
		detail := b.Detail
		if len(detail) > 60 {
			detail = detail[:60] + "…"
		}
		fmt.Fprintf(p.out, "\r\x1b[K%s  %s", line, detail)
		p.open = true
		if b.N == b.Of && b.TotalBytes > 0 && b.Bytes >= b.TotalBytes {
			p.endLine()
		}
	case fresh || time.Since(p.last) >= quietFor:
		fmt.Fprintln(p.out, line)
		p.last = time.Now()
	}
	p.step = b.N
}

func (p *progress) endLine() {
	if p.open {
		fmt.Fprintln(p.out)
		p.open = false
	}
}

func amount(b builder.Progress) string {
	switch {
	case b.TotalBytes > 0:
		return fmt.Sprintf(" %s of %s", megabytes(b.Bytes), megabytes(b.TotalBytes))
	case b.Bytes > 0:
		return " " + megabytes(b.Bytes)
	}
	return ""
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
