package builder

import "github.com/cove-sandbox/cove/internal/rootfs/debian"

// imageFiles returns the top layer of an image: what the engine and the daemon
// need, the certificates that the host trusts, and the image's own PATH for
// login shells, which would set another one.
func imageFiles(host debian.Host, path string) []file {
	files := commonFiles()
	for _, c := range host.Certificates {
		files = append(files, text(c.Path, string(c.Data)))
	}
	if path != "" {
		files = append(files, text(pathProfile, "export PATH=\""+quoted(path)+"\"\n"))
	}
	return files
}

// pathProfile is read by login shells after /etc/profile has set PATH.
const pathProfile = "/etc/profile.d/00-image-path.sh"

// quoted returns s for double quotes of a shell.
func quoted(s string) string {
	var out []byte
	for i := range len(s) {
		switch s[i] {
		case '"', '$', '`', '\\':
			out = append(out, '\\')
		}
		out = append(out, s[i])
	}
	return string(out)
}

// prepareScript makes of a strange image one that commands of the protocol can
// run in: with a user, bash, sudo, and what the ready commands of the official
// clients call. It runs as root in a sandbox. What its package manager cannot
// install is told and left out; only without a shell there is nothing to be done.
const prepareScript = `set -e
export DEBIAN_FRONTEND=noninteractive
has() { command -v "$1" >/dev/null 2>&1; }

missing=
has bash || missing="$missing bash"
has sudo || missing="$missing sudo"
has curl || missing="$missing curl"
has ss || missing="$missing iproute2"
has pgrep || missing="$missing procps"
has git || missing="$missing git"
[ -e /etc/ssl/certs/ca-certificates.crt ] || [ -d /etc/pki/tls/certs ] || missing="$missing ca-certificates"
renamed() { # the names that another family of distributions has
	for p in $missing; do
		case $p in
		iproute2) echo "$1" ;;
		procps) echo "$2" ;;
		*) echo "$p" ;;
		esac
	done
}
if [ -n "$missing" ]; then
	echo "installing$missing"
	if has apt-get; then
		mkdir -p /var/log/apt
		listed=$(ls /var/lib/apt/lists 2>/dev/null | head -n 1)
		apt-get -q update && apt-get -q install -y --no-install-recommends $missing && ok=1
		apt-get -q clean || true
		[ -n "$listed" ] || rm -rf /var/lib/apt/lists/*
	elif has apk; then
		apk add --no-cache $missing && ok=1
	elif has dnf; then
		dnf -q install -y $(renamed iproute procps-ng) && ok=1
		dnf -q clean all || true
	elif has yum; then
		yum -q install -y $(renamed iproute procps-ng) && ok=1
		yum -q clean all || true
	elif has pacman; then
		pacman -Sy --noconfirm --needed $(renamed iproute2 procps-ng) && ok=1
		rm -rf /var/cache/pacman/pkg/*
	fi
	[ -n "$ok" ] || echo "could not install:$missing; what needs them does not work" >&2
fi

# Commands of the protocol ask for this very file.
if [ ! -e /bin/bash ]; then
	if has bash; then
		ln -s "$(command -v bash)" /bin/bash
	else
		printf '#!/bin/sh\nexec /bin/sh "$@"\n' > /bin/bash
		chmod 755 /bin/bash
		echo "there is no bash: /bin/sh runs in its place" >&2
	fi
fi

[ -e /etc/passwd ] || echo "root:x:0:0:root:/root:/bin/sh" > /etc/passwd
[ -e /etc/group ] || echo "root:x:0:" > /etc/group
mkdir -p /root /home
user=user
if ! id "$user" >/dev/null 2>&1; then
` + addUser + `
fi
if [ -d /etc/sudoers.d ]; then
	echo "user ALL=(ALL:ALL) NOPASSWD: ALL" > /etc/sudoers.d/user
	chmod 440 /etc/sudoers.d/user
fi
# For pip install and npm install -g without sudo. Only directories: files would
# all be written anew.
[ ! -d /usr/local ] || find /usr/local -type d -exec chmod a+rwx {} +

bundle=/etc/ssl/certs/ca-certificates.crt
if ls /usr/local/share/ca-certificates/*.crt >/dev/null 2>&1; then
	if has update-ca-certificates; then
		update-ca-certificates >/dev/null 2>&1 || true
	elif has update-ca-trust; then
		cp /usr/local/share/ca-certificates/*.crt /etc/pki/ca-trust/source/anchors/ && update-ca-trust || true
	elif [ -f "$bundle" ]; then
		cat /usr/local/share/ca-certificates/*.crt >> "$bundle"
	fi
	if [ -f "$bundle" ]; then
		mkdir -p /etc/profile.d
		for v in NODE_EXTRA_CA_CERTS REQUESTS_CA_BUNDLE SSL_CERT_FILE; do
			echo "export $v=$bundle" >> /etc/profile.d/certificates.sh
		done
		printf '[global]\ncert = %s\n' "$bundle" > /etc/pip.conf
	fi
fi
`
