// Package soak does random things to the sandboxes of a server that dies and
// comes back at random, and compares them with a model in memory: what was
// acknowledged is there, and what was under way happened or did not happen.
//
// A run is named by its seed. What is done follows from it; when it is done, and
// so where a death hits, also depends on the machine.
package soak_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/test/stand"
)

var (
	minutes = flag.Float64("minutes", 1, "how long TestSoak goes on")
	seed    = flag.Uint64("seed", 0, "what TestSoak does; 0: something new each time")
)

// Bounds of what is done.
const (
	mostTwins   = 6                      // sandboxes at a time
	mostAtOnce  = 3                      // operations at a time, each on another sandbox
	crashEvery  = 5                      // rounds, on average
	latestCrash = 900 * time.Millisecond // after the operations of its round began
	lookEvery   = 10                     // rounds from one look at everything to the next
)

// soak is one run. Its fields belong to the test's goroutine; an operation has
// its sandbox to itself.
type soak struct {
	t     *testing.T
	s     *stand.Server
	rng   *rand.Rand
	twins []*twin
	last  int // number of the last operation
	tally map[string]int
}

func TestSoak(t *testing.T) {
	number := *seed
	if number == 0 {
		number = uint64(time.Now().UnixNano())
	}
	fmt.Printf("soak: -seed %d -minutes %g\n", number, *minutes)
	k := &soak{t: t, s: stand.Start(t), rng: rand.New(rand.NewPCG(number, 0)), tally: map[string]int{}}
	before := k.s.Census(t)
	end := time.Now().Add(time.Duration(*minutes * float64(time.Minute)))
	for round := 1; time.Now().Before(end) && !t.Failed(); round++ {
		k.round()
		if round%lookEvery == 0 {
			k.look()
		}
	}
	if !t.Failed() {
		k.finish(before)
	}
	fmt.Printf("soak: %d operations: %v\n", k.last, k.tally)
}

// round does some things at once, and may kill the server meanwhile.
func (k *soak) round() {
	ops := k.choose()
	crash := k.rng.IntN(crashEvery) == 0
	gentle, again := k.rng.IntN(3) == 0, k.rng.IntN(3) == 0
	delay, briefly := k.moment(), k.moment()

	var running sync.WaitGroup
	for _, o := range ops {
		k.tally[o.kind]++
		running.Go(func() { o.err = kinds[o.kind](k, o) })
	}
	if crash {
		<-time.After(delay)
		k.die(gentle, delay)
	}
	running.Wait()
	if crash {
		if again {
			k.tally["crash of a starting server"]++
			k.s.RunBriefly(k.t, briefly)
		}
		k.s.Run(k.t)
	}
	for _, o := range ops {
		k.t.Logf("%s: %v", o, errorOr(o.err, "done"))
		k.twins = append(k.twins, o.made...)
		if o.err != nil && !crash {
			k.t.Errorf("%s: %v", o, o.err)
		}
	}
	if crash && !k.t.Failed() {
		k.settle(ops)
		k.look()
		return
	}
	for _, o := range ops {
		if o.twin != nil {
			k.check(o.twin)
		}
	}
	k.forget()
}

// moment draws how long the server has yet to live. Most operations are short,
// and so are most of these.
func (k *soak) moment() time.Duration {
	u := k.rng.Float64()
	return time.Duration(u * u * u * float64(latestCrash))
}

// die ends the server, as a power cut would or gently.
func (k *soak) die(gentle bool, delay time.Duration) {
	if gentle {
		k.tally["stop"]++
		k.t.Logf("the server is stopped after %v", delay)
		k.s.Terminate(k.t)
		return
	}
	k.tally["crash"]++
	k.t.Logf("the server is killed after %v", delay)
	k.s.Kill(k.t)
}

// choose draws the operations of a round.
func (k *soak) choose() []*operation {
	var ops []*operation
	room := mostTwins - len(k.twins)
	for _, i := range k.rng.Perm(len(k.twins))[:min(len(k.twins), 1+k.rng.IntN(mostAtOnce))] {
		o := k.draw(k.twins[i], room)
		room -= o.count
		ops = append(ops, o)
	}
	if room > 0 && (len(k.twins) < 2 || k.rng.IntN(8) == 0) {
		ops = append(ops, k.number(&operation{kind: "create", count: 1, wakes: k.rng.IntN(2) == 0}))
	}
	return ops
}

// number gives an operation its number.
func (k *soak) number(o *operation) *operation {
	k.last++
	o.n = k.last
	return o
}

// forget removes the twins of sandboxes that are gone.
func (k *soak) forget() {
	k.twins = slices.DeleteFunc(k.twins, func(w *twin) bool { return w.state == gone })
}

// look compares everything there is with the model.
func (k *soak) look() {
	k.forget()
	for _, w := range k.twins {
		k.check(w)
	}
	for _, l := range k.list() {
		if !slices.ContainsFunc(k.twins, func(w *twin) bool { return w.sb.ID == l.SandboxID }) {
			k.t.Errorf("a sandbox that nobody created: %+v", l)
		}
	}
}

// finish resumes all, looks at them once more, ends them, and looks for what
// they left on the host.
func (k *soak) finish(before map[string]int) {
	for _, w := range k.twins {
		if w.state != running {
			if err := connect(k, k.number(&operation{kind: "connect", twin: w})); err != nil {
				k.t.Errorf("%s: %v", w, err)
				return
			}
		}
	}
	k.look()
	for _, w := range k.twins {
		w.sb.Kill(k.t)
	}
	if left := k.list(); len(left) > 0 {
		k.t.Errorf("left at the end: %+v", left)
	}
	for what, n := range k.s.Census(k.t) {
		if n != before[what] {
			k.t.Errorf("%s: %d at the beginning, %d at the end", what, before[what], n)
		}
	}
	k.s.Stop(k.t)
	for what, n := range k.s.Census(k.t) {
		if n > 0 {
			k.t.Errorf("%s: %d after the server stopped", what, n)
		}
	}
}

func errorOr(err error, otherwise string) string {
	if err == nil {
		return otherwise
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}
