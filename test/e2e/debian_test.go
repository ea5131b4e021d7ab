package e2e_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/cove-sandbox/cove/test/stand"
)

// debianImage makes an image of Debian's minimal system, as Debian's own images
// have it: without sudo, curl or certificates.
func debianImage(t *testing.T) v1.Image {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "debian.tar")
	// The host's own release: its archive is there.
	release, err := exec.Command("sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME").Output()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mmdebstrap", "--variant=minbase", strings.TrimSpace(string(release)), tree).CombinedOutput(); err != nil {
		t.Fatalf("mmdebstrap: %v\n%s", err, out)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return os.Open(tree) })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

func TestDebianImage(t *testing.T) {
	host := registryWith(t, debianImage(t), "")
	s := stand.Start(t, "--registry-private", host)
	b := s.Build(t, "debian", map[string]any{
		"fromImage": host + "/team/image:1",
		"steps": []map[string]any{
			{"type": "RUN", "args": []string{"apt-get update && apt-get install -y --no-install-recommends tree", "root"}},
			{"type": "RUN", "args": []string{"sudo id -un > who; git --version; curl --version"}},
		},
		"startCmd": "sleep 600", "readyCmd": "pgrep sleep && ss -Htuln",
	}).Ready(t)
	sb := s.Create(t, map[string]any{"templateID": "debian", "timeout": 60})
	if got := sb.Run(t, "cat /home/user/who; which tree sudo; pgrep -x sleep | wc -l; ls /etc/ssl/certs/ca-certificates.crt"); got.Stdout != "root\n/usr/bin/tree\n/usr/bin/sudo\n1\n/etc/ssl/certs/ca-certificates.crt\n" {
		t.Errorf("%+v\n%s", got, b.Log)
	}
}
