package guard

import (
	"cmp"
	"slices"
	"time"
)

const (
	// growth is faster than memory goes, in bytes a second. In gVisor two
	// processors were seen to take 1.5 GB/s.
	growth = 2 << 30

	soonest = 10 * time.Millisecond // between two looks
	latest  = time.Second
	newest  = 50 * time.Millisecond // while something is new
	newTime = 5 * time.Second       // how long it is so

	// patience is how long a killed process may take to give its memory back,
	// crowdPatience how long a killed crowd may take to go before it is looked at
	// again.
	patience      = 500 * time.Millisecond
	crowdPatience = time.Second

	// shrinkage is how much less free memory there must be than when nobody was
	// found to end for another attempt, in bytes.
	shrinkage = 8 << 20

	// crowdSize is how many tasks, threads too, are looked at closely.
	crowdSize = 256

	// gateSize is how many tasks there must be, and rise how many more than ever
	// of late, for each process that was started and one, to let nothing be
	// started until there was no such rise for calmTime, or until maxHold.
	gateSize = 64
	rise     = 4
	maxRise  = 1000
	calmTime = 200 * time.Millisecond
	maxHold  = 3 * time.Second

	maxRounds  = 500 // of stopping what forks
	sameRounds = 4   // without anybody new, until all are taken to be stopped

	// forkTime is about what it takes to fork.
	forkTime = 2 * time.Millisecond
	maxTries = 4 // of ending processes until there is room
)

// What the engine needs for the sandbox's processes, in bytes of the memory that
// the host grants it beside the sandbox's own; measured with two hundred idle
// processes and four hundred threads. That for the first freeTasks is left
// aside: there is room for it.
const (
	processCost = 448 << 10
	threadCost  = 32 << 10
	freeTasks   = 128
)

// reserve returns how much memory must stay free for the guard to act in time.
func reserve(total uint64) uint64 {
	return max(min(64<<20, total/8), total/32)
}

// effective returns the free memory less what the engine needs for that many
// processes, of which the host counts every byte.
func effective(s Sample, processes int) uint64 {
	if s.Tasks <= freeTasks {
		return s.Free
	}
	threads := max(s.Tasks-processes, 0)
	cost := processes*processCost + threads*threadCost - freeTasks*processCost
	if cost <= 0 {
		return s.Free
	}
	return s.Free - min(s.Free, uint64(cost))
}

// maxProcesses returns how many processes there may be: one for each four
// megabytes, within reason. The engine alone needs half a megabyte for one, and
// two of the 16,384 threads that the host grants it; and with more of them that
// run, the daemon comes too late to stop what goes on multiplying.
func maxProcesses(total uint64) int {
	return int(min(max(total/(4<<20), crowdSize), 2000))
}

// interval returns when to look again: before memory can be short, and soon as
// long as something new was started, since a fork bomb gives no notice. news is
// how long ago that was. A look costs most of a millisecond of processor time,
// nearly all of it for waking up.
func interval(s state, news time.Duration) time.Duration {
	room := s.free - min(s.free, reserve(s.Total))
	wait := time.Duration(float64(room) / growth * float64(time.Second))
	switch {
	case s.Tasks > gateSize/2 && news < newTime:
		wait = soonest
	case news < newTime:
		wait = min(wait, newest)
	}
	return min(max(wait, soonest), latest)
}

// A Process is one of the sandbox's.
type Process struct {
	PID, Parent, Group int
	Name               string // anything at all; for the log only
	Start              int64  // in ticks since the sandbox's boot
	RSS                uint64 // bytes
}

// A verdict is who has to go, and why.
type verdict struct {
	processes []Process
	reason    string
}

// chooseHungry picks the processes that hold most, until enough would come
// free. If not all of them together hold that much, files do, and whoever wrote
// most is picked.
func (g *Guard) chooseHungry(all []Process, s state) verdict {
	need := g.least(s) + reserve(s.Total) - min(s.free, g.least(s)) // more than is waited for
	var sum uint64
	for _, p := range all {
		sum += p.RSS
	}
	if sum+uint64(len(all))*processCost < need {
		return g.chooseWriter(all)
	}
	slices.SortFunc(all, func(a, b Process) int { return cmp.Compare(b.RSS, a.RSS) })
	if group := largestGroup(all); group.size >= gateSize && group.rss > all[0].RSS {
		// One at a time would never catch up with what multiplies.
		members := slices.DeleteFunc(slices.Clone(all), func(p Process) bool { return p.Group != group.id })
		return verdict{members, "part of the largest group"}
	}
	score := map[int]int64{}
	for i, p := range all {
		score[p.PID] = int64(p.RSS)
		if i < maxScored {
			// As Linux does it: a thousand stands for all of the memory.
			score[p.PID] += int64(adjustment(g.cfg.Proc, p.PID)) * int64(s.Total/1000)
		}
	}
	slices.SortStableFunc(all, func(a, b Process) int { return cmp.Compare(score[b.PID], score[a.PID]) })
	n := 0
	for freed := uint64(0); freed < need && n < len(all); n++ {
		freed += all[n].RSS + processCost
	}
	return verdict{all[:n], "holds most"}
}

// maxScored bounds the files read for one decision.
const maxScored = 32

// muchWritten is what a process must have written to be taken for the one that
// fills the memory, in bytes.
const muchWritten = 16 << 20

// chooseWriter picks the process that has written most, if that is a lot.
func (g *Guard) chooseWriter(all []Process) verdict {
	var worst Process
	most := uint64(muchWritten)
	for _, p := range all {
		if n := wrote(g.cfg.Proc, p.PID); n > most {
			worst, most = p, n
		}
	}
	if worst.PID == 0 {
		return verdict{}
	}
	return verdict{[]Process{worst}, "has written most"}
}

// A group is a process group.
type group struct {
	id, size int
	rss      uint64 // of all together; what they share counts for each
}

// largestGroup returns the group with the most processes.
func largestGroup(all []Process) group {
	groups := map[int]group{}
	var largest group
	for _, p := range all {
		g := groups[p.Group]
		g.id, g.size, g.rss = p.Group, g.size+1, g.rss+p.RSS
		groups[p.Group] = g
		if g.id > 1 && g.size > largest.size {
			largest = g
		}
	}
	if largest.id > 1 {
		return groups[largest.id]
	}
	return group{}
}

// youngest returns when the last process was started.
func youngest(all []Process) int64 {
	var last int64
	for _, p := range all {
		last = max(last, p.Start)
	}
	return last
}

// newcomers returns the processes started at since or later, and those older
// ones that made many of them.
func newcomers(all []Process, since int64) []Process {
	var out []Process
	children := map[int]int{}
	for _, p := range all {
		if p.Start >= since {
			out = append(out, p)
			children[p.Parent]++
		}
	}
	for _, p := range all {
		if p.Start < since && children[p.PID] > max(len(out)/8, 1) {
			out = append(out, p)
		}
	}
	return out
}

// ticks is d in the unit of Process.Start.
func ticks(d time.Duration) int64 { return int64(d / (time.Second / 100)) }
