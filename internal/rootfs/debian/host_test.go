package debian_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cove-sandbox/cove/internal/rootfs/debian"
	"github.com/google/go-cmp/cmp"
)

// root writes files below a directory that stands for a host's root.
func root(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tools puts scripts at the front of PATH.
func tools(t *testing.T, scripts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
}

const (
	debianID = "PRETTY_NAME=\"Debian GNU/Linux\"\nID=debian\n"
	keyring  = "/usr/share/keyrings/debian-archive-keyring.gpg"
)

func TestSources(t *testing.T) {
	mainOf := func(signedBy string, components ...string) debian.Source {
		return debian.Source{URI: "http://mirror.example/debian", Suite: "bookworm", Components: components, SignedBy: signedBy}
	}
	tests := map[string]struct {
		files map[string]string
		want  []debian.Source
	}{
		"no configuration": {},
		"one line": {
			files: map[string]string{"etc/apt/sources.list": "# a comment\n\ndeb http://mirror.example/debian bookworm main contrib # why\ndeb-src http://mirror.example/debian bookworm main\n"},
			want:  []debian.Source{mainOf("", "main", "contrib")},
		},
		"options": {
			files: map[string]string{"etc/apt/sources.list": "deb [ arch=amd64 Signed-By=" + keyring + " ]\thttp://mirror.example/debian bookworm main\n"},
			want:  []debian.Source{mainOf(keyring, "main")},
		},
		"broken lines": {
			files: map[string]string{"etc/apt/sources.list": "deb\ndeb http://mirror.example/debian\ndeb [arch=amd64 http://mirror.example/debian x main\ndebian http://mirror.example/debian a main\n"},
		},
		"deb822": {
			files: map[string]string{"etc/apt/sources.list.d/debian.sources": "Types: deb deb-src\n# in between\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: " + keyring +
				"\n\nTypes: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main\nSigned-By:\n " + keyring + "\n"},
			want: []debian.Source{
				mainOf(keyring, "main"),
				{URI: "http://mirror.example/debian", Suite: "bookworm-updates", Components: []string{"main"}, SignedBy: keyring},
				{URI: "http://mirror.example/debian-security", Suite: "bookworm-security", Components: []string{"main"}, SignedBy: "\n" + keyring},
			},
		},
		"deb822 that is off, for sources only, or of others": {
			files: map[string]string{"etc/apt/sources.list.d/x.sources": "Enabled: no\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n\n" +
				"Types: deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n\n" +
				"Types: deb\nURIs: https://node.example/node_20.x\nSuites: nodistro\nComponents: main\nSigned-By: /usr/share/keyrings/node.gpg\n\n" +
				"Types: deb\nURIs: https://third.example/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ\n -----END PGP PUBLIC KEY BLOCK-----\n"},
		},
		"third parties": {
			files: map[string]string{"etc/apt/sources.list.d/x.list": "deb https://docker.example/linux/debian bookworm stable\n" +
				"deb [signed-by=/usr/share/keyrings/vpn.gpg] https://vpn.example/stable/debian bookworm main\n" +
				"deb https://php.example/php bookworm main\n" +
				"deb https://cloud.example/apt cloud-sdk-bookworm main\n" +
				"deb https://sql.example/debian bookworm-pgdg main\n"},
		},
		"what we cannot use": {
			files: map[string]string{"etc/apt/sources.list": "deb cdrom:[Debian]/ bookworm main\ndeb file:/srv/debian bookworm main\ndeb http://mirror.example/debian bookworm-backports main\n"},
		},
		"another distribution": {
			files: map[string]string{"etc/os-release": "ID=ubuntu\nID_LIKE=debian\n", "etc/apt/sources.list": "deb http://mirror.example/debian noble main\n"},
		},
	}
	tools(t, map[string]string{"apt-config": "exit 0"})
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"etc/os-release": debianID}
			for k, v := range test.files {
				files[k] = v
			}
			h, err := debian.ReadHost(t.Context(), root(t, files), nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, h.Sources); diff != "" {
				// An empty list may be nil or not.
				if len(test.want)+len(h.Sources) > 0 {
					t.Errorf("sources (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func TestReadHost(t *testing.T) {
	tools(t, map[string]string{"apt-config": `cat <<'END'
Acquire "";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::http::Proxy::mirror.example "DIRECT";
Acquire::https::Proxy "";
Acquire::Check-Valid-Until "false";
END`})
	dir := root(t, map[string]string{
		keyring: "", "usr/local/share/ca-certificates/b.crt": "B", "usr/local/share/ca-certificates/corp/a.crt": "A",
		"usr/local/share/ca-certificates/readme.txt": "no",
	})
	got, err := debian.ReadHost(t.Context(), dir, []string{"X=y"})
	if err != nil {
		t.Fatal(err)
	}
	want := debian.Host{
		Keyring: true,
		Environ: []string{"X=y"},
		Proxies: []debian.Setting{
			{Key: "Acquire::http::Proxy", Value: "http://proxy.example:3128"},
			{Key: "Acquire::http::Proxy::mirror.example", Value: "DIRECT"},
		},
		Certificates: []debian.File{
			{Path: "/usr/local/share/ca-certificates/b.crt", Data: []byte("B")},
			{Path: "/usr/local/share/ca-certificates/corp/a.crt", Data: []byte("A")},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("host (-want +got):\n%s", diff)
	}
}

// TestReadHostWithoutApt: other distributions have none of it.
func TestReadHostWithoutApt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	got, err := debian.ReadHost(t.Context(), t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(debian.Host{}, got); diff != "" {
		t.Errorf("host (-want +got):\n%s", diff)
	}
}
