package guard

import "fmt"

// What the sandbox's owner is told: what was ended, why, and what to do.

func tooLarge(p Process, wrote uint64, s state) string {
	did := fmt.Sprintf("it held %d MiB", p.RSS>>20)
	if wrote > 0 {
		did = fmt.Sprintf("files in memory fill it, and it had written most (%d MiB)", wrote>>20)
	}
	return fmt.Sprintf("process %d (%q) was ended because the sandbox's memory ran out: %s, and %s. %s", p.PID, p.Name, did, leftOver(s), advice)
}

func crowdTooLarge(processes int, held uint64, s state) string {
	return fmt.Sprintf("a command was ended, with the %d processes it had started, because the sandbox's memory ran out: together they held %d MiB, and %s. %s",
		processes, held>>20, leftOver(s), advice)
}

func nobodyHolds(s state) string {
	return fmt.Sprintf("the sandbox's memory has nearly run out (%s), and it is no process that holds it: files in memory do, as in /dev/shm. Delete some, or give the sandbox more memory.", leftOver(s))
}

func tooMany(its, all, most int) string {
	return fmt.Sprintf("a command was ended, with all that it had started, because there were too many processes: it had %d, of %d in the sandbox, and %d are allowed for long. Start fewer at a time, or give the sandbox more memory: it may then have more.", its, all, most)
}

const advice = "Give the sandbox more memory, or use less at a time."

// leftOver says how much memory there was.
func leftOver(s state) string {
	if s.free < s.Free {
		return fmt.Sprintf("%d of %d MiB were free, and that many processes and threads need all but %d of them", s.Free>>20, s.Total>>20, s.free>>20)
	}
	return fmt.Sprintf("%d of %d MiB were free", s.Free>>20, s.Total>>20)
}
