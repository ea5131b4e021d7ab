package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// examine looks at the host; it changes nothing.
func examine(dataDir string) []finding {
	return []finding{
		examineUser(), examinePrograms(), examineCgroups(), examineNetwork(),
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

func examineCgroups() finding {
	f := finding{Check: "cgroups", Status: ok}
	if content, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		f.Detail = "version 2"
		return lacking(f, func(name string) bool { return strings.Contains(string(content), name) }, "cpu", "memory", "pids")
	}
	f.Detail = "version 1"
	return lacking(f, func(name string) bool {
		_, err := os.Stat("/sys/fs/cgroup/" + name)
		return err == nil
	}, "cpu", "memory", "pids")
}

func lacking(f finding, has func(string) bool, names ...string) finding {
	var missing []string
	for _, name := range names {
		if !has(name) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		f.Status, f.Advice = warning, "mount the controllers "+strings.Join(missing, ", ")+": without them sandboxes are not limited"
	}
	return f
}

func examineNetwork() finding {
	f := finding{Check: "network", Status: ok, Detail: "nftables can be reached"}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)
	if err != nil {
		f.Status, f.Detail, f.Advice = failure, "the kernel has no nftables", "load the kernel modules nf_tables, nft_masq and veth"
		return f
	}
	unix.Close(fd)
	if rules, err := os.ReadFile("/proc/net/ip_tables_names"); err == nil && strings.Contains(string(rules), "filter") {
		f.Status, f.Detail = warning, "iptables rules are in use beside nftables"
		f.Advice = "if sandboxes have no internet, let iptables forward from and to links named cove*"
	}
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
