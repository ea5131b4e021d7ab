package debian

import (
	"fmt"
	"path/filepath"
	"strings"
)

// insidePath is the PATH of commands inside the new system.
const insidePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// stepMark starts the lines by which our hooks announce themselves; mmdebstrap
// announces its own steps the same way.
const stepMark = "I: "

// arguments returns mmdebstrap's arguments. Hooks are shell commands that get
// the new system's directory as $1.
func (b *bootstrap) arguments(sources []string) []string {
	args := []string{
		"--mode=root", "--variant=minbase", "--format=tar",
		"--verbose", // apt's and dpkg's own lines are the progress
		`--aptopt=Acquire::Languages "none"`,
	}
	if len(b.Packages) > 0 {
		args = append(args, "--include="+strings.Join(b.Packages, ","))
	}
	for _, opt := range b.DpkgOpts {
		args = append(args, "--dpkgopt="+opt)
	}
	for _, p := range b.Host.Proxies {
		args = append(args, fmt.Sprintf(`--aptopt=%s "%s"`, p.Key, p.Value))
	}
	if !b.work.reachable {
		// apt downloads as its own user, who cannot enter the data directory.
		args = append(args, `--aptopt=APT::Sandbox::User "root"`)
	}
	args = append(args, "--setup-hook="+seed(b.work.packages))
	if len(b.Files) > 0 {
		args = append(args, "--customize-hook="+hook("copying the host's files",
			`tar -C "$1" --extract --no-same-owner --file `+quote(b.work.filesTar())))
	}
	for _, c := range b.Commands {
		args = append(args, "--customize-hook="+hook(c.Name, inside(c.Script)))
	}
	// What the build needed and the system must not keep: proxies of the host
	// are often out of a sandbox's reach.
	args = append(args, "--customize-hook="+hook("tidying up", `rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"`))
	args = append(args, b.Suite, b.work.tarball())
	return append(args, sources...)
}

// seed gives apt the packages that an earlier attempt downloaded, as hard
// links: mmdebstrap removes its copy when it is done or fails. apt checks what
// it finds there like what it downloads.
func seed(packages string) string {
	const to = `"$1/var/cache/apt/archives"`
	return fmt.Sprintf(`mkdir -p %s && find %s -name '*.deb' -exec ln -f -t %s {} +`, to, quote(packages), to)
}

func hook(name, command string) string {
	return fmt.Sprintf("echo %s && %s", quote(stepMark+name), command)
}

// inside runs script in the new system with nothing of the host's environment.
func inside(script string) string {
	return fmt.Sprintf(`chroot "$1" /usr/bin/env -i PATH=%s HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive /bin/sh -euc %s`,
		insidePath, quote(script))
}

// quote makes s one word of a shell command.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func (w *work) filesTar() string { return filepath.Join(w.dir, "files.tar") }
func (w *work) tarball() string  { return filepath.Join(w.dir, "out.tar") }
func (w *work) tmp() string      { return filepath.Join(w.dir, "tmp") }
