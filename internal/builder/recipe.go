package builder

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"runtime"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/rootfs/debian"
)

// recipeFormat is raised when the same recipe would give another result, such
// as after a change of how images are written.
const recipeFormat = 1

// A recipe is everything that decides what a template has in it.
type recipe struct {
	Alias    string
	Suite    string
	Packages []string
	DpkgOpts []string
	Commands []debian.Command
	Files    []file // the layer on top of what Debian installs
	User     string
	Workdir  string

	Host debian.Host
}

// treeKey names the package tree, which is worth keeping when a later step
// fails. Proxies are left out: they say how to get it, not what it is.
func (r recipe) treeKey() string {
	return digest(
		recipeFormat, runtime.GOARCH, r.Suite, r.Packages, r.DpkgOpts, r.Commands, r.Host.Sources, r.Host.Certificates,
	)
}

// key names the whole result.
func (r recipe) key() string {
	return digest(r.treeKey(), r.Alias, r.Files, r.User, r.Workdir)
}

func digest(parts ...any) string {
	h := sha256.New()
	// Plain values cannot fail to encode, and a hash takes every byte.
	_ = json.NewEncoder(h).Encode(parts)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// basePackages are what base has besides Debian's minimal system.
var basePackages = [...]string{
	"python3", "python3-pip", "python3-venv", "python-is-python3",
	"nodejs", "npm",
	"git", "openssh-client", "curl", "wget", "ca-certificates", "gpg", "rsync", "netcat-openbsd",
	"build-essential",
	"sudo", "procps", "iproute2", "less", "nano", "file", "tzdata",
	"jq", "ripgrep", "xz-utils", "bzip2", "zip", "unzip",
}

// baseDpkgOpts leave out what nobody reads in a sandbox; they stay in force for
// packages installed later. Licences stay.
//
// Python's marker keeps pip from installing outside of a virtual environment.
// A sandbox is one already, and pip install is what agents do all day.
var baseDpkgOpts = [...]string{
	"path-exclude=/usr/share/doc/*",
	"path-include=/usr/share/doc/*/copyright",
	"path-exclude=/usr/share/man/*",
	"path-exclude=/usr/share/info/*",
	"path-exclude=/usr/share/lintian/*",
	"path-exclude=/usr/share/locale/*",
	"path-include=/usr/share/locale/locale.alias",
	"path-exclude=/usr/lib/python3*/EXTERNALLY-MANAGED",
}

// The user of base. Clients of the protocol rely on its name and its home.
const (
	baseUser = "user"
	baseHome = "/home/user"
	baseID   = 1000
)

// baseCommands run inside the new system, in order.
var baseCommands = [...]debian.Command{
	{Name: "creating the user", Script: `
		groupadd --gid 1000 user
		useradd --uid 1000 --gid user --create-home --home-dir /home/user --shell /bin/bash user
		chmod -R a+rwX /usr/local`}, // pip install and npm install -g without sudo
	{Name: "trusting what the host trusts", Script: `update-ca-certificates`},
	{Name: "removing leftovers", Script: `
		rm -f /etc/*- /var/lib/dpkg/*-old /var/cache/debconf/*-old /var/cache/ldconfig/aux-cache
		rm -rf /var/log/apt /var/log/*.log`},
}

// baseRecipe is the recipe of base on this machine.
func (b *Builder) baseRecipe(ctx context.Context) (recipe, error) {
	host, err := debian.ReadHost(ctx, cmp.Or(b.cfg.Host, "/"), b.cfg.Environ)
	if err != nil {
		return recipe{}, err
	}
	return recipe{
		Alias: cove.BaseTemplate, Suite: "stable",
		Packages: basePackages[:], DpkgOpts: baseDpkgOpts[:], Commands: baseCommands[:],
		Files: baseFiles(len(host.Certificates) > 0),
		User:  baseUser, Workdir: baseHome,
		Host: host,
	}, nil
}
