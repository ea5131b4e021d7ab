package runsc

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cove-sandbox/cove/internal/runtime"
)

// capabilities are what root inside a sandbox may do. They are powers over the
// sandbox's own kernel, never over the host's, so the list is generous: agents
// mount, trace and configure. CAP_NET_RAW is left out, because forged packets
// would leave the sandbox.
var capabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH",
	"CAP_FOWNER", "CAP_FSETID", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_KILL",
	"CAP_LEASE", "CAP_LINUX_IMMUTABLE", "CAP_MKNOD", "CAP_NET_ADMIN",
	"CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP",
	"CAP_SETUID", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SYS_NICE",
	"CAP_SYS_PTRACE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG",
}

// openFiles is the limit of open files of every process of a sandbox. Node and
// databases ask for many; the sentry accounts for them itself.
const openFiles = 1 << 20

// ociSpec describes the sandbox in the engine's terms. Its shape (mounts,
// namespaces, capabilities) is part of every memory snapshot: a restore demands
// the same.
func ociSpec(s runtime.Spec) *specs.Spec {
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "nodev", "mode=1777"}},
	}
	for _, image := range s.Images {
		mounts = append(mounts, specs.Mount{
			Destination: image.Destination, Type: "erofs", Source: image.Source, Options: []string{"ro"},
		})
	}
	return &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			Args: s.Args,
			Env:  s.Env,
			Cwd:  "/",
			Capabilities: &specs.LinuxCapabilities{
				Bounding: capabilities, Effective: capabilities, Permitted: capabilities,
			},
			Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: openFiles, Hard: openFiles}},
		},
		Root:     &specs.Root{Path: "rootfs"},
		Hostname: s.Hostname,
		Mounts:   mounts,
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace},
			{Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
		}},
	}
}
