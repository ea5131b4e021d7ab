package engine

import (
	"sync"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	sentry "gvisor.dev/gvisor/pkg/sentry/syscalls/linux"
	"gvisor.dev/gvisor/pkg/sentry/usage"

	cove "github.com/cove-sandbox/cove"
)

// A bound is how many processes the kernel of this sandbox allows. Beyond it,
// fork(2) and its like fail with EAGAIN. The kernel can limit tasks by itself,
// but a thread costs the host a twentieth of what a process does.
//
// A command and what comes of it leave cove.SpareProcesses to the others, so
// that the daemon can always start something that starts something. Who belongs
// together is told by their control group, which nothing leaves by forking; see
// package envd/pen.
type bound struct {
	mu sync.Mutex // held from counting until there is one more
}

// install puts b into the kernel that this program may be about to boot or to
// restore: a restored task looks its calls up in the same tables.
func (b *bound) install() {
	for _, table := range []*kernel.SyscallTable{sentry.AMD64, sentry.ARM64} {
		for number, call := range table.Table {
			switch call.Name {
			case "fork", "vfork":
				call.Fn = b.limit(call.Fn, func(*kernel.Task, arch.SyscallArguments) bool { return false })
			case "clone":
				call.Fn = b.limit(call.Fn, func(_ *kernel.Task, args arch.SyscallArguments) bool {
					return args[0].Uint64()&linux.CLONE_THREAD != 0
				})
			case "clone3":
				call.Fn = b.limit(call.Fn, makesThread)
			default:
				continue
			}
			table.Table[number] = call
		}
		table.Init()
	}
}

// makesThread reads what clone3 is asked for. Who changes it between here and
// the call gets more processes, and more trouble, than others.
func makesThread(t *kernel.Task, args arch.SyscallArguments) bool {
	var flags [8]byte
	if _, err := t.CopyInBytes(args[0].Pointer(), flags[:]); err != nil {
		return false // the call will say so itself
	}
	return hostarch.ByteOrder.Uint64(flags[:])&linux.CLONE_THREAD != 0
}

// limit returns fork, or clone, that fails if it would make a process too many.
func (b *bound) limit(fork kernel.SyscallFn, thread func(*kernel.Task, arch.SyscallArguments) bool) kernel.SyscallFn {
	return func(t *kernel.Task, number uintptr, args arch.SyscallArguments) (uintptr, *kernel.SyscallControl, error) {
		limit := cove.MaxProcesses(int(usage.MaximumTotalMemoryBytes >> 20))
		// With fewer than half as many tasks there is room even if all of them
		// fork at this moment.
		if t.Kernel().TaskSet().Root.NumTasks() < limit/2 || thread(t, args) {
			return fork(t, number, args)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if all, own := count(t); all >= limit || own >= limit-cove.SpareProcesses {
			return 0, nil, linuxerr.EAGAIN
		}
		return fork(t, number, args)
	}
}

// count returns how many processes have not ended, and how many of them are in
// the control group of t.
func count(t *kernel.Task) (all, own int) {
	group := t.Cgroup2()
	for _, process := range t.Kernel().TaskSet().Root.ThreadGroups() {
		leader := process.Leader()
		if leader == nil || leader.ExitState() >= kernel.TaskExitZombie {
			continue
		}
		all++
		if leader.Cgroup2() == group {
			own++
		}
	}
	return all, own
}
