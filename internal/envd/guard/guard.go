// Package guard keeps the sandbox alive when its user asks for too much: it
// ends the process that eats the memory, and the crowd that a fork bomb makes.
// While it decides, for some milliseconds, and until the memory has come back,
// everybody else is stopped.
//
// It stands in for the kernel's out-of-memory killer, which gVisor does not
// have. There the limit is the host's and ends the whole sandbox at once, so
// somebody inside must act a little before. It is not an accountant and no
// quota: as long as there is room, nobody is bothered. The room is the
// sandbox's memory; the engine's own needs for each process come out of what
// the host grants beside it, and this package estimates them.
//
// It does not win against everybody. What makes it lose is to come too late, and
// a sandbox whose user means to end it has other ways as well: a fork bomb whose
// parts leave their process groups, while commands are being started; one that
// root, whom no limit binds, makes larger than any; hogs by the hundred.
//
// What no process owns it cannot take back: files in memory, in /dev/shm and
// other mounts of tmpfs, stay. Whoever still writes them is ended. The daemon
// limits /dev/shm; a root user who mounts another tmpfs and fills it can end
// the sandbox.
//
// Only the daemon imports it. A Guard owns no goroutine but that of its Run,
// which sleeps for good while there is no process but the daemon.
package guard

import (
	"context"
	"log/slog"
	"syscall"
	"time"
)

// Children are the processes to be guarded against.
type Children interface {
	Any() bool                // there are some; does not wait for anything
	Started() <-chan struct{} // gets a value when that may have become true
	Starts() uint64           // how many were started; does not wait either

	// Groups are the process groups that were started and may have members. None
	// of who is between fork and exec is in one. It does not wait either.
	Groups() []int

	// Hold waits until none is between fork and exec, and lets none get there
	// until Release. In between the child borrows a thread of the daemon's; if
	// it were stopped there, the next garbage collection would wait for it, and
	// with it everybody else. TryHold does not wait, but may fail.
	Hold()
	TryHold() bool
	Release()
}

// Config is what a Guard is made of. All of it is required.
type Config struct {
	Children Children
	Log      *slog.Logger
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
	cfg Config

	// What was found when everybody was last stopped and counted; 0: not since
	// there were few.
	tasks, processes int

	rising bool      // there are more and more tasks
	held   bool      // Children is, while rising
	starts uint64    // what Children said the last time
	peak   int       // the most tasks of late
	grown  time.Time // when that was
	news   time.Time // when there last was something new

	calm  time.Time // when there last were not more and more
	again time.Time // when to count again after a crowd was ended
	stuck uint64    // free memory when nobody was found to end; 0: not so
}

// New returns a Guard that has not looked yet.
func New(cfg Config) *Guard { return &Guard{cfg: cfg} }

// Run guards until ctx is done.
func (g *Guard) Run(ctx context.Context) error {
	defer g.release()
	g.calm = time.Now()
	wait := soonest
	for ctx.Err() == nil {
		if g.cfg.Children.Any() {
			g.rest(ctx, wait)
			wait = g.look(ctx)
			continue
		}
		g.release()
		select {
		case <-g.cfg.Children.Started():
		case <-ctx.Done():
		}
		g.calm, g.news, g.peak = time.Now(), time.Now(), 0
	}
	return ctx.Err()
}

// rest waits. Under load every system call waits its turn among all that runs,
// and so does every thread that another must wake; then the kernel is the one
// to wait in. Otherwise that costs ten times as much as a timer does, because it
// wakes the runtime's monitor each time.
func (g *Guard) rest(ctx context.Context, d time.Duration) {
	if d <= newest {
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

// measure measures without counting the processes, which takes long when there
// are many: those that came since the last count are taken for processes, though
// they may be threads, which cost less.
func (g *Guard) measure() (state, error) {
	sample, err := g.cfg.Measure()
	if err != nil {
		return state{}, err
	}
	processes := sample.Tasks
	if g.tasks > 0 {
		processes = g.processes + max(sample.Tasks-g.tasks, 0)
	}
	return state{sample, processes, effective(sample, processes)}, nil
}

// look looks once, acts if it must, and returns when to look again.
func (g *Guard) look(ctx context.Context) time.Duration {
	s, err := g.measure()
	if err != nil {
		g.cfg.Log.Error("the memory cannot be measured", "err", err)
		return latest
	}
	if s.Tasks < gateSize {
		g.tasks = 0
	}
	if s.free >= reserve(s.Total) {
		g.stuck = 0
	}
	g.gate(s)
	short := s.free < g.least(s) && (g.stuck == 0 || s.free+shrinkage < g.stuck)
	if short || g.crowded(s) {
		g.act(ctx)
		return soonest
	}
	return interval(s, time.Since(g.news))
}

// gate lets nothing be started while the number of tasks rises beyond what it
// has been, as it does at the beginning of a fork bomb, and faster than from
// what was started. To start something takes seconds then, during which nobody
// can be stopped.
func (g *Guard) gate(s state) {
	now := time.Now()
	starts := g.cfg.Children.Starts()
	started := int(min(starts-g.starts, maxRise))
	if started > 0 {
		g.starts, g.news = starts, now
	}
	switch {
	case s.Tasks >= g.peak+rise+started*rise:
		g.peak, g.grown, g.news = s.Tasks, now, now
	case now.Sub(g.grown) > newTime:
		g.peak = s.Tasks
	}
	g.rising = s.Tasks > gateSize && now.Sub(g.grown) < calmTime
	switch {
	case !g.rising:
		g.calm = now
		g.release()
	case now.Sub(g.calm) > maxHold:
		g.release()
	case !g.held:
		g.held = g.cfg.Children.TryHold()
	}
}

func (g *Guard) release() {
	if g.held {
		g.held = false
		g.cfg.Children.Release()
	}
}

// crowded reports whether there are enough more tasks than when they were last
// looked at closely to do it again. While they rise, every closer look is also a
// brake.
func (g *Guard) crowded(s state) bool {
	many := s.Tasks > crowdSize || g.rising && s.Tasks > gateSize
	return many && (s.Tasks > g.tasks+g.tasks/4 || !g.again.IsZero() && time.Now().After(g.again))
}

// least returns how much memory must be free: more if the crowd that grows may
// keep the guard from looking soon.
func (g *Guard) least(s state) uint64 {
	if g.rising {
		return 4 * reserve(s.Total)
	}
	return reserve(s.Total)
}

// act looks more closely, while everybody is stopped, and does what it must.
func (g *Guard) act(ctx context.Context) {
	defer g.signal(everybody, syscall.SIGCONT)
	if !g.held {
		// It takes seconds while many run: most are stopped first.
		for _, group := range g.cfg.Children.Groups() {
			g.signal(-group, syscall.SIGSTOP)
		}
		g.cfg.Children.Hold()
		g.held = true
	}
	defer g.release()
	n := g.freeze(ctx)
	sample, err := g.cfg.Measure()
	if err != nil {
		g.cfg.Log.Error("the memory cannot be measured", "err", err)
		return
	}
	g.tasks, g.processes, g.again = sample.Tasks, n, time.Time{}
	s := state{sample, n, effective(sample, n)}
	switch {
	case n > maxProcesses(s.Total):
		g.disperse(s)
	case s.free < g.least(s):
		g.relieve(ctx, s)
	}
}

// everybody is all processes but the first, as kill(2) has it.
const everybody = -1

// freeze stops everybody and returns how many there are. Under the load that is
// to be ended, reading about sixty processes takes the better part of a second;
// with nobody else running, milliseconds, in which nothing grows. What the user
// had stopped before will go on afterwards: there is no telling it apart.
func (g *Guard) freeze(ctx context.Context) int {
	n, same := 0, 0
	for rounds := 0; rounds < maxRounds && same < sameRounds && ctx.Err() == nil; rounds++ {
		g.stop()
		now := count(g.cfg.Proc)
		if same++; now != n {
			n, same = now, 0
		}
		g.cfg.Sleep(forkTime)
	}
	return n
}

// stop stops everybody but those that are being born, who are missed and go on
// to multiply; whoever repeats this is faster than they are.
func (g *Guard) stop() { g.signal(everybody, syscall.SIGSTOP) }

// relieve makes room: it ends the process that holds most, or several.
func (g *Guard) relieve(ctx context.Context, s state) {
	for range maxTries {
		v := g.chooseHungry(list(g.cfg.Proc, g.cfg.Self, g.stop), s)
		if len(v.processes) == 0 {
			g.cfg.Log.Warn("memory is short, and no process holds it", "free", s.free)
			break
		}
		for _, p := range v.processes {
			g.cfg.Log.Warn("memory is short: ending a process", "pid", p.PID, "name", p.Name, "rss", p.RSS, "free", s.free, "because", v.reason)
			g.signal(p.PID, syscall.SIGKILL)
		}
		if s = g.await(ctx, s); s.free >= g.least(s) || ctx.Err() != nil {
			return
		}
	}
	g.stuck = s.free
}

// disperse ends a crowd: the process group that is most of it, or else
// everybody who has come since it began to form.
func (g *Guard) disperse(s state) {
	g.again = time.Now().Add(crowdPatience)
	all := list(g.cfg.Proc, g.cfg.Self, g.stop)
	if len(all) <= maxProcesses(s.Total) {
		return // the others have ended and wait for their parents, or for us
	}
	if group := largestGroup(all); 2*group.size >= len(all) {
		g.cfg.Log.Warn("too many processes: ending a group of them", "group", group.id, "size", group.size, "processes", s.processes)
		g.signal(-group.id, syscall.SIGKILL)
	} else {
		since := time.Since(g.calm)
		g.cfg.Log.Warn("too many processes: ending those that came last", "processes", s.processes, "since", since)
		for _, p := range newcomers(all, youngest(all)-ticks(since+time.Second)) {
			g.signal(p.PID, syscall.SIGKILL)
		}
	}
}

// await waits until memory has come back, for as long as that may take, and
// returns what it measured last.
func (g *Guard) await(ctx context.Context, s state) state {
	for end := time.Now().Add(patience); time.Now().Before(end) && ctx.Err() == nil; {
		if now, err := g.measure(); err == nil {
			s = now
		}
		if s.free >= g.least(s)+reserve(s.Total)/4 {
			break
		}
		g.cfg.Sleep(soonest / 2)
	}
	return s
}

// signal signals a process, a group if pid is negative, or everybody. That
// nobody is there by now is as good.
func (g *Guard) signal(pid int, sig syscall.Signal) {
	if pid == g.cfg.Self || pid == -g.cfg.Self && pid != everybody || pid == 0 {
		return
	}
	if err := g.cfg.Signal(pid, sig); err != nil && err != syscall.ESRCH {
		g.cfg.Log.Error("a process cannot be signalled", "pid", pid, "err", err)
	}
}
