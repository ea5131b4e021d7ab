package debian

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Host is what this machine knows about getting Debian packages, and what its
// administrator has it trust.
type Host struct {
	Sources      []Source  // the Debian archive's; none: mmdebstrap's default
	Proxies      []Setting // of apt
	Certificates []File    // extra CA certificates, in the order of their paths
	Keyring      bool      // Debian's archive keys are installed
	Environ      []string  // only the variables about proxies are used
}

// Setting is one line of apt's configuration.
type Setting struct{ Key, Value string }

// Where Debian and its relatives keep these things.
const (
	certificateDir = "usr/local/share/ca-certificates"
	maxConfig      = 1 << 20 // bytes of one configuration file
)

var keyrings = []string{
	"usr/share/keyrings/debian-archive-keyring.gpg",
	"usr/share/keyrings/debian-archive-keyring.pgp",
	"etc/apt/trusted.gpg.d/debian-archive-*",
}

// ReadHost reads the configuration of the machine whose root directory is root,
// "/" for this one. A file that is missing is no error.
func ReadHost(ctx context.Context, root string, environ []string) (Host, error) {
	h := Host{Environ: environ}
	var err error
	if h.Keyring, err = anyMatch(root, keyrings); err != nil {
		return Host{}, err
	}
	if h.Certificates, err = certificates(root); err != nil {
		return Host{}, err
	}
	if h.Proxies, err = proxies(ctx); err != nil {
		return Host{}, err
	}
	release, err := readConfig(filepath.Join(root, "etc/os-release"))
	if err != nil {
		return Host{}, err
	}
	if osID.Match(release) { // a relative's mirrors have no Debian on them
		if h.Sources, err = readSources(root); err != nil {
			return Host{}, err
		}
	}
	return h, nil
}

var osID = regexp.MustCompile(`(?m)^ID=["']?debian["']?\s*$`)

func anyMatch(root string, patterns []string) (bool, error) {
	for _, p := range patterns {
		found, err := filepath.Glob(filepath.Join(root, p))
		if err != nil || len(found) > 0 {
			return err == nil, err
		}
	}
	return false, nil
}

// certificates collects what update-ca-certificates(8) calls local certificates.
func certificates(root string) ([]File, error) {
	var files []File
	base := filepath.Join(root, certificateDir)
	err := filepath.WalkDir(base, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() || filepath.Ext(p) != ".crt" {
			return err
		}
		data, err := readConfig(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(base, p)
		if err == nil && len(data) > 0 {
			files = append(files, File{Path: "/" + certificateDir + "/" + filepath.ToSlash(rel), Data: data})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the host's certificates: %w", err)
	}
	return files, nil
}

var proxyLine = regexp.MustCompile(`^(Acquire::https?::Proxy(?:::[A-Za-z0-9.-]+)?) "([^"]+)";$`)

// proxies asks apt; a machine without apt has none to tell of.
func proxies(ctx context.Context) ([]Setting, error) {
	path, err := exec.LookPath("apt-config")
	if err != nil {
		return nil, nil
	}
	out, err := exec.CommandContext(ctx, path, "dump").Output()
	if err != nil {
		return nil, fmt.Errorf("read apt's configuration: %w", err)
	}
	var settings []Setting
	for line := range strings.Lines(string(out)) {
		if m := proxyLine.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			settings = append(settings, Setting{Key: m[1], Value: m[2]})
		}
	}
	return settings, nil
}

// readConfig reads a file that may be missing.
func readConfig(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(data) > maxConfig {
		err = fmt.Errorf("%s is too long", path)
	}
	return data, err
}

// readSources reads sources.list and sources.list.d, the way sources.list(5)
// describes them.
func readSources(root string) ([]Source, error) {
	paths := []string{filepath.Join(root, "etc/apt/sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		found, err := filepath.Glob(filepath.Join(root, "etc/apt/sources.list.d", pattern))
		if err != nil {
			return nil, err
		}
		paths = append(paths, found...)
	}
	var sources []Source
	for _, p := range paths {
		data, err := readConfig(p)
		if err != nil {
			return nil, fmt.Errorf("read the host's package sources: %w", err)
		}
		lines := bufio.NewScanner(bytes.NewReader(data))
		lines.Buffer(nil, maxConfig+1)
		if filepath.Ext(p) == ".sources" {
			sources = append(sources, parseDeb822(lines)...)
		} else {
			sources = append(sources, parseOneLine(lines)...)
		}
	}
	return slices.DeleteFunc(sources, func(s Source) bool { return !s.isDebian() }), nil
}
