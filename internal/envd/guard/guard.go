// Package guard keeps the sandbox alive when its user asks for too much: it
// ends the process that eats the memory, and the crowd that a fork bomb makes.
//
// It stands in for the kernel's out-of-memory killer, which gVisor does not
// have. There the limit is the host's and ends the whole sandbox at once, so
// somebody inside must act a little before. It is not an accountant and no
// quota: as long as there is room, nobody is bothered. The room is the
// sandbox's memory; the engine's own needs for each process come out of what
// the host grants beside it, and this package estimates them.
//
// For memory it must be quick: while it decides, for some milliseconds, and
// until the memory has come back, everybody else is stopped. For crowds it need
// not be: package pen's limit holds whether anybody looks or not, so this
// package only ends, at its leisure, the command whose crowd is too large.
//
// What no process owns it cannot take back: files in memory, in /dev/shm and
// other mounts of tmpfs, stay. Whoever still writes them is ended. The daemon
// limits /dev/shm; a root user who mounts another tmpfs and fills it can end
// the sandbox, as can hogs by the hundred.
//
// Only the daemon imports it. A Guard owns no goroutine but that of its Run,
// which sleeps for good while there is no process but the daemon.
package guard

import (
	"context"
	"log/slog"
	"slices"
	"syscall"
	"time"
)

// Children are the processes to be guarded against.
type Children interface {
	Any() bool                // there are some; does not wait for anything
	Started() <-chan struct{} // gets a value when that may have become true

	// Hold waits until none is between fork and exec, and lets none get there
	// until Release. In between the child borrows a thread of the daemon's; if
	// it were stopped there, the next garbage collection would wait for it, and
	// with it everybody else.
	Hold()
	Release()
}

// A Pen holds what came of one command; see package pen.
type Pen interface {
	Processes() []int // none that has ended, none between fork and exec
	End() error       // all of them
	Ended() bool      // End was called
}

// Config is what a Guard is made of. All of it is required.
type Config struct {
	Children Children
	Pens     func() []Pen
	Log      *slog.Logger                    // its messages are read by the sandbox's owner
	Self     int                             // the daemon, which is never signalled
	Proc     string                          // where the processes are described: /proc
	Measure  func() (Sample, error)          // Sysinfo
	Signal   func(int, syscall.Signal) error // like kill(2), by the sandbox's first process
	Sleep    func(time.Duration)             // Sleep
}

// A Sample is the state of the sandbox.
type Sample struct {
	Total, Free uint64 // bytes of memory
	Tasks       int    // processes and their threads, the daemon's too
}

// A Guard watches the memory and the number of processes.
type Guard struct {
	cfg   Config
	stuck uint64 // free memory when nobody was found to end; 0: not so
}

// New returns a Guard that has not looked yet.
func New(cfg Config) *Guard { return &Guard{cfg: cfg} }

// Run guards until ctx is done.
func (g *Guard) Run(ctx context.Context) error {
	wait := soonest
	for ctx.Err() == nil {
		if g.cfg.Children.Any() {
			g.rest(ctx, wait)
			wait = g.look(ctx)
			continue
		}
		select {
		case <-g.cfg.Children.Started():
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// rest waits. Under load every system call waits its turn among all that runs,
// and so does every thread that another must wake; then the kernel is the one
// to wait in. Otherwise that costs ten times as much as a timer does, because it
// wakes the runtime's monitor each time.
func (g *Guard) rest(ctx context.Context, d time.Duration) {
	if d <= brief {
		g.cfg.Sleep(d)
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// A state is a Sample with what follows from it.
type state struct {
	Sample
	processes int    // at most
	free      uint64 // less what the engine needs
}

// measure measures. Tasks are taken for processes, which cost more than threads,
// as long as they are few.
func (g *Guard) measure() (state, error) {
	sample, err := g.cfg.Measure()
	if err != nil {
		return state{}, err
	}
	processes := sample.Tasks
	if processes > freeTasks {
		processes = count(g.cfg.Proc)
	}
	return state{sample, processes, effective(sample, processes)}, nil
}

// look looks once, acts if it must, and returns when to look again.
func (g *Guard) look(ctx context.Context) time.Duration {
	s, err := g.measure()
	if err != nil {
		g.cfg.Log.Error("the sandbox's memory cannot be measured, so nothing is ended when it runs out", "err", err)
		return latest
	}
	if s.free >= reserve(s.Total) {
		g.stuck = 0
	}
	if s.processes > maxProcesses(s.Total) && g.disperse(s) {
		return crowdPatience
	}
	if s.free < reserve(s.Total) && (g.stuck == 0 || s.free+shrinkage < g.stuck) {
		g.act(ctx)
		return soonest
	}
	return interval(s)
}

// disperse ends the largest crowd if all together are too many, and reports
// whether they were: the rest of them may have ended, or be about to.
func (g *Guard) disperse(s state) bool {
	c, sum := g.largest()
	if sum <= maxProcesses(s.Total) {
		return false
	}
	g.end(c)
	g.cfg.Log.Warn(tooMany(c.size, sum, maxProcesses(s.Total)))
	return true
}

// A crowd is who is in a pen.
type crowd struct {
	pen  Pen
	size int
}

// largest returns the largest crowd that was not ended yet, and how many are in
// all such.
func (g *Guard) largest() (largest crowd, sum int) {
	for _, p := range g.cfg.Pens() {
		if p.Ended() {
			continue
		}
		n := len(p.Processes())
		sum += n
		if n > largest.size {
			largest = crowd{p, n}
		}
	}
	return largest, sum
}

func (g *Guard) end(c crowd) {
	if err := c.pen.End(); err != nil {
		g.cfg.Log.Error("a command cannot be ended", "err", err)
	}
}

// act makes room while everybody else is stopped.
func (g *Guard) act(ctx context.Context) {
	defer g.signal(everybody, syscall.SIGCONT)
	// To hold takes long while many run: they are stopped first.
	for _, p := range g.cfg.Pens() {
		for _, pid := range p.Processes() {
			g.signal(pid, syscall.SIGSTOP)
		}
	}
	g.cfg.Children.Hold()
	defer g.cfg.Children.Release()
	g.freeze(ctx)
	s, err := g.measure()
	if err != nil {
		g.cfg.Log.Error("the memory cannot be measured", "err", err)
		return
	}
	if s.free < reserve(s.Total) {
		g.relieve(ctx, s)
	}
}

// everybody is all processes but the first, as kill(2) has it.
const everybody = -1

// freeze stops everybody. Under load, reading about sixty processes takes the
// better part of a second; with nobody else running, milliseconds, in which
// nothing grows. What the user had stopped before will go on afterwards: there is
// no telling it apart.
func (g *Guard) freeze(ctx context.Context) {
	n, same := 0, 0
	for rounds := 0; rounds < maxRounds && same < sameRounds && ctx.Err() == nil; rounds++ {
		g.stop()
		now := count(g.cfg.Proc)
		if same++; now != n {
			n, same = now, 0
		}
		g.cfg.Sleep(forkTime)
	}
}

// stop stops everybody but those that are being born, who are missed and go on
// to multiply; whoever repeats this is faster than they are.
func (g *Guard) stop() { g.signal(everybody, syscall.SIGSTOP) }

// relieve makes room: it ends the process that holds most, or several.
func (g *Guard) relieve(ctx context.Context, s state) {
	for range maxTries {
		if !g.dying() && !g.endSomebody(s) {
			break
		}
		if s = g.await(ctx, s); s.free >= reserve(s.Total) || ctx.Err() != nil {
			return
		}
	}
	g.stuck = s.free
}

// dying reports whether somebody is in a pen that was ended.
func (g *Guard) dying() bool {
	return slices.ContainsFunc(g.cfg.Pens(), func(p Pen) bool { return p.Ended() && len(p.Processes()) > 0 })
}

// endSomebody ends those who hold most, and reports whether there were any.
func (g *Guard) endSomebody(s state) bool {
	all := list(g.cfg.Proc, g.cfg.Self, g.stop)
	if c, _ := g.largest(); c.size >= crowdSize && c.holds(all) > mostHeld(all) {
		// One at a time would never catch up with what multiplies.
		held := c.holds(all)
		g.end(c)
		g.cfg.Log.Warn(crowdTooLarge(c.size, held, s))
		return true
	}
	v := g.chooseHungry(all, s)
	if len(v.processes) == 0 {
		g.cfg.Log.Warn(nobodyHolds(s))
		return false
	}
	for _, p := range v.processes {
		g.signal(p.PID, syscall.SIGKILL)
		g.cfg.Log.Warn(tooLarge(p, v.wrote, s))
	}
	return true
}

// await waits until memory has come back, for as long as that may take, and
// returns what it measured last.
func (g *Guard) await(ctx context.Context, s state) state {
	for end := time.Now().Add(patience); time.Now().Before(end) && ctx.Err() == nil; {
		if now, err := g.measure(); err == nil {
			s = now
		}
		if s.free >= reserve(s.Total)+reserve(s.Total)/4 {
			break
		}
		g.cfg.Sleep(soonest / 2)
	}
	return s
}

// signal signals a process, or everybody. That nobody is there by now is as
// good.
func (g *Guard) signal(pid int, sig syscall.Signal) {
	if pid == g.cfg.Self {
		return
	}
	if err := g.cfg.Signal(pid, sig); err != nil && err != syscall.ESRCH {
		g.cfg.Log.Error("a process cannot be signalled", "pid", pid, "err", err)
	}
}
