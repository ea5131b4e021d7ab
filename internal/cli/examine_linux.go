package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/cgroup"
	"github.com/cove-sandbox/cove/internal/network"
)

// examine looks at the host. What it tries, it takes away again.
func examine(ctx context.Context, dataDir string) []finding {
	return []finding{
		examineUser(), examinePrograms(), examineCgroups(ctx), examineNetwork(ctx), examineForwarding(ctx),
		examineBootstrap(), examineDisk(dataDir), examineMaps(), examineHugePages(),
	}
}

func examineUser() finding {
	f := finding{Check: "user", Status: ok, Detail: "root"}
	if uid := os.Geteuid(); uid != 0 {
		f.Status, f.Detail, f.Advice = failure, fmt.Sprintf("uid %d", uid), "run cove serve as root: it makes network namespaces and cgroups"
	}
	return f
}

func examinePrograms() finding {
	f := finding{Check: "programs", Status: ok, Detail: "cove-runsc and cove-envd are there, " + runtime.GOARCH}
	dir, err := programDir()
	for _, name := range []string{"cove-runsc", "cove-envd"} {
		if _, serr := os.Stat(filepath.Join(dir, name)); err != nil || serr != nil {
			f.Status, f.Detail, f.Advice = failure, name+" is not beside this program", "run make build, or copy the three programs into one directory"
		}
	}
	return f
}

// trialName is the name of a server that exists for the examination only.
func trialName() string { return "doctor-" + strconv.Itoa(os.Getpid()) }

func examineCgroups(ctx context.Context) finding {
	f := finding{Check: "cgroups", Status: ok, Detail: "version 1"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		f.Detail = "version 2"
	}
	tree, err := cgroup.New(cgroup.Config{Parent: "cove-" + trialName()})
	if err != nil {
		return f.failed(err, "mount cgroups, as systemd does")
	}
	missing := slices.DeleteFunc(tree.Missing(), func(name string) bool {
		return name != "cpu" && name != "memory" && name != "pids" // the others limit nothing
	})
	if len(missing) > 0 {
		f.Status, f.Advice = warning, "mount the controllers "+strings.Join(missing, ", ")+": without them sandboxes are not limited"
	}
	if os.Geteuid() != 0 {
		return f.untried()
	}
	if err := tree.Try(ctx); err != nil {
		return f.failed(err, "without cgroups no sandbox starts")
	}
	f.Detail += "; a group with limits can be made"
	return f
}

func examineNetwork(ctx context.Context) finding {
	f := finding{Check: "network", Status: ok}
	if os.Geteuid() != 0 {
		f.Detail = "a namespace, links and rules"
		return f.untried()
	}
	err := network.Try(ctx, network.Config{Instance: trialName(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return f.failed(err, "as root, with the kernel modules veth, nf_tables, nft_ct, nft_limit, nft_connlimit and nft_masq, it should work")
	}
	f.Detail = "a namespace, links and rules can be made"
	return f
}

func examineForwarding(ctx context.Context) finding {
	f := finding{Check: "forwarding"}
	if os.Geteuid() != 0 {
		f.Detail = "other firewalls"
		return f.untried()
	}
	return forwarding(network.Firewalls(ctx))
}

// forwarding says what other firewalls do to sandboxes. They start without
// internet too, but it is not what anybody wants.
func forwarding(walls []network.Firewall, err error) finding {
	f := finding{Check: "forwarding", Status: ok, Detail: "no other firewall keeps sandboxes from the internet"}
	if len(walls) == 0 && err != nil {
		f.Status, f.Detail = warning, err.Error()
		f.Advice = "if sandboxes have no internet, let the firewall forward from and to interfaces cove*"
		return f
	}
	if len(walls) == 0 {
		return f
	}
	var names, commands []string
	for _, w := range walls {
		names, commands = append(names, w.Name), append(commands, w.Remedy...)
	}
	f.Status, f.Detail = failure, "sandboxes have no internet, their packets are dropped by "+strings.Join(names, " and ")
	f.Advice = strings.Join(commands, "; ")
	return f
}

// untried marks a finding for which this process would have to be root.
func (f finding) untried() finding {
	f.Status, f.Detail, f.Advice = warning, f.Detail+"; not tried", "run cove doctor as root"
	return f
}

// failed marks a finding whose trial failed. What the error says to others says
// best what to do; else there is the advice.
func (f finding) failed(err error, advice string) finding {
	f.Status, f.Advice = failure, advice
	if kind, msg := cove.Describe(err); kind != cove.Internal {
		f.Advice = msg
	}
	f.Detail = strings.ReplaceAll(err.Error(), "\n", "; ")
	return f
}

func examineBootstrap() finding {
	f := finding{Check: "mmdebstrap", Status: ok, Detail: "found; it builds the base template"}
	if _, err := exec.LookPath("mmdebstrap"); errors.Is(err, exec.ErrNotFound) {
		f.Status, f.Detail, f.Advice = failure, "not found; it builds the base template", "apt-get install mmdebstrap"
	}
	return f
}

// roomForBase is what the base template's build takes at its largest, in bytes.
const roomForBase = 6 << 30

func examineDisk(dataDir string) finding {
	f := finding{Check: "disk", Status: ok}
	dir := dataDir
	var st unix.Statfs_t
	for unix.Statfs(dir, &st) != nil && dir != "/" {
		dir = filepath.Dir(dir) // it may not be there yet
	}
	free := st.Bavail * uint64(st.Bsize)
	f.Detail = fmt.Sprintf("%.1f GB free for %s", float64(free)/1e9, dataDir)
	if free < roomForBase {
		f.Status, f.Advice = warning, "building the base template takes up to 6 GB: free some space, or choose another --data-dir"
	}
	return f
}

func examineMaps() finding {
	const want = 4194304 // gVisor's own advice
	f := finding{Check: "vm.max_map_count", Status: ok}
	content, err := os.ReadFile("/proc/sys/vm/max_map_count")
	n, nerr := strconv.Atoi(strings.TrimSpace(string(content)))
	f.Detail = strconv.Itoa(n)
	if err != nil || nerr != nil || n < want {
		f.Status, f.Advice = warning, fmt.Sprintf("sysctl vm.max_map_count=%d, for programs with very many memory mappings", want)
	}
	return f
}

func examineHugePages() finding {
	f := finding{Check: "shared huge pages", Status: ok}
	content, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
	f.Detail = strings.TrimSpace(string(content))
	if err != nil {
		f.Detail = "not known to this kernel"
		return f
	}
	if !strings.Contains(f.Detail, "[advise]") {
		f.Status, f.Advice = warning, "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled, for memory speed"
	}
	return f
}
