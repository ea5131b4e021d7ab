package builder

import "time"

// How many steps a build reports: those of mmdebstrap that package debian
// passes on (update, download, extract, essential, remaining, the host's files,
// tidying up, cleaning, tarball), and ours.
const (
	debianSteps = 9
	imageSteps  = 3 // merging, writing, finished
)

// A reporter numbers the steps of a build as they come by.
type reporter struct {
	to    func(Progress) // may be nil
	start time.Time
	step  string
	n, of int
}

func newReporter(to func(Progress), of int) *reporter {
	if to == nil {
		to = func(Progress) {}
	}
	return &reporter{to: to, start: time.Now(), of: of}
}

func (r *reporter) report(step, detail string, bytes, total int64) {
	if step != r.step {
		r.step, r.n = step, min(r.n+1, r.of)
	}
	r.send(Progress{Detail: detail, Bytes: bytes, TotalBytes: total})
}

// skip passes over n steps.
func (r *reporter) skip(n int, why string) {
	r.step, r.n = why, min(r.n+n, r.of)
	r.send(Progress{})
}

func (r *reporter) warn(what string) { r.send(Progress{Detail: what, Warning: true}) }

func (r *reporter) send(p Progress) {
	p.Step, p.N, p.Of, p.Elapsed = r.step, r.n, r.of, time.Since(r.start)
	r.to(p)
}
