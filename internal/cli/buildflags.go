package cli

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/cove-sandbox/cove/internal/server"
)

// buildFlags are the flags of serve about builds of templates.
type buildFlags struct {
	atOnce, ofTeam          int
	limit, ready            time.Duration
	local, mirrors, private []string
}

func (b *buildFlags) add(f *pflag.FlagSet) {
	f.IntVar(&b.atOnce, "builds", 2, "template builds that are done at a time; others wait")
	f.IntVar(&b.ofTeam, "team-builds", 20, "template builds of a team that may be under way or wait")
	f.DurationVar(&b.limit, "build-limit", 2*time.Hour, "how long a template build may take")
	f.DurationVar(&b.ready, "ready-limit", 10*time.Minute, "how long a template's start command may take to become ready")
	f.StringArrayVar(&b.local, "image", nil, "NAME=PATH: an image that is taken from this host's disk, an OCI layout or an archive; may be repeated, and * in NAME stands for anything")
	f.StringArrayVar(&b.mirrors, "registry-mirror", nil, "REGISTRY=PREFIX: a mirror that is asked before a registry; may be repeated")
	f.StringArrayVar(&b.private, "registry-private", nil, "HOST[:PORT]: a registry that may be on a private network; may be repeated")
}

// images returns what the flags say of where images come from.
func (b *buildFlags) images() (server.Images, error) {
	images := server.Images{Local: map[string]string{}, Mirrors: map[string][]string{}, Private: b.private}
	if b.atOnce < 1 || b.ofTeam < 1 || b.limit <= 0 || b.ready <= 0 {
		return images, fmt.Errorf("at least one build must be allowed, and given some time; %w", errUsage)
	}
	for _, pair := range b.local {
		name, file, ok := strings.Cut(pair, "=")
		if !ok || name == "" || file == "" {
			return images, fmt.Errorf("--image must be NAME=PATH, not %q; %w", pair, errUsage)
		}
		path, err := filepath.Abs(file)
		if err != nil {
			return images, err
		}
		images.Local[name] = path
	}
	for _, pair := range b.mirrors {
		registry, prefix, ok := strings.Cut(pair, "=")
		if !ok || registry == "" || prefix == "" {
			return images, fmt.Errorf("--registry-mirror must be REGISTRY=PREFIX, not %q; %w", pair, errUsage)
		}
		images.Mirrors[registry] = append(images.Mirrors[registry], prefix)
	}
	return images, nil
}
