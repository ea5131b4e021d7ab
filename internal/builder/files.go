package builder

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"strings"
	"time"
)

// A file is an entry of the layer that goes on top of the packages: a regular
// file, or a directory if Dir is set.
type file struct {
	Path string
	Mode int64
	UID  int // and group
	Text string
	Dir  bool
}

// gone returns the whiteout of a file that the packages brought.
func gone(dir, name string) file { return file{Path: dir + "/.wh." + name, Mode: 0o600} }

func dir(path string, mode int64) file { return file{Path: path, Mode: mode, Dir: true} }

func text(path, content string) file { return file{Path: path, Mode: 0o644, Text: content} }

// Every command of a sandbox runs in a login shell, and starting a process is
// the dearest thing such a shell can do. So these start none, where Debian's
// start id, mesg and clear_console.
const (
	profileText = `# For login shells. Every command of a sandbox starts one, so keep it free of processes.
export PATH="${HOME:-/root}/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
export LANG="${LANG:-C.UTF-8}"

if [ -n "${PS1-}" ] && [ -n "${BASH-}" ] && [ "$BASH" != /bin/sh ] && [ -r /etc/bash.bashrc ]; then
	. /etc/bash.bashrc
fi

for f in /etc/profile.d/*.sh; do
	if [ -r "$f" ]; then
		. "$f"
	fi
done
unset f
`
	homeProfileText = `# For login shells; /etc/profile has already put ~/.local/bin into PATH.
if [ -n "${BASH_VERSION-}" ] && [ -r "$HOME/.bashrc" ]; then
	. "$HOME/.bashrc"
fi
`
	sudoersText = "user ALL=(ALL:ALL) NOPASSWD: ALL\n"
	hostsText   = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
)

// caBundle is where Debian keeps the certificates it trusts in one file.
const caBundle = "/etc/ssl/certs/ca-certificates.crt"

// caVariables are for programs that bring their own certificates along and
// have to be told about the system's.
var caVariables = [...]string{"NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"}

// baseFiles returns the top layer of base. extraCA says that the host has
// certificates of its own; without them no program needs to be told anything,
// and node starts faster if it is not.
func baseFiles(extraCA bool) []file {
	files := []file{
		text("/etc/profile", profileText),
		text("/etc/skel/.profile", homeProfileText),
		text("/root/.profile", homeProfileText),
		{Path: baseHome + "/.profile", Mode: 0o644, UID: baseID, Text: homeProfileText},
		gone("/etc/skel", ".bash_logout"),
		gone(baseHome, ".bash_logout"),
		{Path: "/etc/sudoers.d/user", Mode: 0o440, Text: sudoersText},
		text("/etc/apt/apt.conf.d/90no-translations", "Acquire::Languages \"none\";\n"), // as big as the packages' index
	}
	files = append(files, commonFiles()...)
	files = append(files, dir("/var/log/apt", 0o755)) // apt wants its own, and makes none
	// Packages that install a manual page by hand fail where its directory is
	// missing.
	for section := '1'; section <= '8'; section++ {
		files = append(files, dir("/usr/share/man/man"+string(section), 0o755))
	}
	pip := "[global]\nbreak-system-packages = true\n"
	if extraCA {
		pip += "cert = " + caBundle + "\n"
		var env, profile strings.Builder
		for _, v := range caVariables {
			env.WriteString(v + "=" + caBundle + "\n")
			profile.WriteString("export " + v + "=" + caBundle + "\n")
		}
		files = append(files,
			text("/etc/environment", env.String()),
			text("/etc/profile.d/certificates.sh", profile.String()),
			text("/etc/npmrc", "cafile="+caBundle+"\n"),
			file{Path: "/etc/sudoers.d/certificates", Mode: 0o440,
				Text: `Defaults env_keep += "` + strings.Join(caVariables[:], " ") + `"` + "\n"},
		)
	}
	return append(files, text("/etc/pip.conf", pip))
}

// commonFiles are what any root file system of ours has.
func commonFiles() []file {
	return []file{
		// Written anew when a sandbox starts; they only have to be plain files.
		text("/etc/hosts", hostsText),
		text("/etc/hostname", "sandbox\n"),
		text("/etc/resolv.conf", ""),
		text("/etc/machine-id", ""),

		// Where the engine and the daemon mount things.
		dir("/.cove", 0o755), dir("/proc", 0o555), dir("/sys", 0o555), dir("/run", 0o755),
		dir("/dev", 0o755), dir("/dev/pts", 0o755), dir("/dev/shm", 0o1777),
		dir("/tmp", 0o1777), dir("/var/tmp", 0o1777),
		// The engine mounts memory over an empty /tmp. With the directory that a
		// desktop has there anyway, /tmp stays on the sandbox's disk.
		dir("/tmp/.X11-unix", 0o1777), dir("/tmp/.ICE-unix", 0o1777),
	}
}

// layer returns files as a tar archive.
func layer(files []file) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: strings.TrimPrefix(f.Path, "/"), Mode: f.Mode,
			Uid: f.UID, Gid: f.UID, Size: int64(len(f.Text)), ModTime: time.Unix(0, 0),
		}
		if f.Dir {
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, f.Text); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// opener makes a layer of bytes.
func opener(data []byte) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}
