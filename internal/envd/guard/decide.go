package guard

import (
	"cmp"
	"slices"
	"time"

	cove "github.com/cove-sandbox/cove"
)

const (
	// growth is faster than memory goes, in bytes a second. In gVisor two
	// processors were seen to take 1.5 GB/s.
	growth = 2 << 30

	soonest = 10 * time.Millisecond // between two looks
	latest  = 5 * time.Second       // a crowd may go on for as long
	brief   = 50 * time.Millisecond // is waited for in the kernel

	// patience is how long a killed process may take to give its memory back,
	// crowdPatience how long a crowd that was ended is left alone.
	patience      = 500 * time.Millisecond
	crowdPatience = 100 * time.Millisecond

	// shrinkage is how much less free memory there must be than when nobody was
	// found to end for another attempt, in bytes.
	shrinkage = 8 << 20

	// crowdSize is how many processes of one command are ended all at once when
	// memory is short.
	crowdSize = 64

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

// maxProcesses returns how many processes there may be for long: nearly as many
// as one command can make at all.
func maxProcesses(total uint64) int {
	return (cove.MaxProcesses(int(total>>20)) - cove.SpareProcesses) * 7 / 8
}

// Limits returns how many tasks, processes and their threads, the pens of a
// sandbox with that much memory may hold, and how many of them one pen leaves to
// the others. How many of them are processes is the engine's matter.
func Limits(total uint64) (all, spare int) {
	return int(min(max(total>>20, 512), 8000)), 64
}

// interval returns when to look again: before memory can be short. A look costs
// most of a millisecond of processor time, nearly all of it for waking up.
func interval(s state) time.Duration {
	room := s.free - min(s.free, reserve(s.Total))
	wait := time.Duration(float64(room) / growth * float64(time.Second))
	return min(max(wait, soonest), latest)
}

// A Process is one of the sandbox's.
type Process struct {
	PID  int
	Name string // anything at all; for people only
	RSS  uint64 // bytes
}

// A verdict is who has to go, and why.
type verdict struct {
	processes []Process
	wrote     uint64 // bytes, if that is why; 0: they hold most
}

// chooseHungry picks the processes that hold most, until enough would come
// free. If not all of them together hold that much, files do, and whoever wrote
// most is picked.
func (g *Guard) chooseHungry(all []Process, s state) verdict {
	need := 2*reserve(s.Total) - min(s.free, reserve(s.Total)) // more than is waited for
	var sum uint64
	for _, p := range all {
		sum += p.RSS
	}
	if sum+uint64(len(all))*processCost < need {
		return g.chooseWriter(all)
	}
	slices.SortFunc(all, func(a, b Process) int { return cmp.Compare(b.RSS, a.RSS) })
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
	return verdict{processes: all[:n]}
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
	return verdict{[]Process{worst}, most}
}

// holds returns how many bytes those of the crowd hold; what they share counts
// for each.
func (c crowd) holds(all []Process) (sum uint64) {
	members := map[int]bool{}
	for _, pid := range c.pen.Processes() {
		members[pid] = true
	}
	for _, p := range all {
		if members[p.PID] {
			sum += p.RSS
		}
	}
	return sum
}

// mostHeld returns how many bytes the largest process holds.
func mostHeld(all []Process) (most uint64) {
	for _, p := range all {
		most = max(most, p.RSS)
	}
	return most
}
