package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder/plan"
	"github.com/cove-sandbox/cove/internal/image"
)

// ImageSources finds images for builds: those that the operator has put on this
// host under a name, and all others in registries. It implements Sources.
type ImageSources struct {
	// Local are the names of images that lie on this host, with the path of
	// each: an OCI layout directory, an archive of docker save or of the OCI
	// layout, or a plain tar of a file system. A "*" in a name stands for
	// anything but a slash.
	Local map[string]string
	// Mirrors are asked before a registry; see image.Registry.
	Mirrors map[string][]string
	// Transport makes the requests. References come from tenants, so it has to
	// stay away from the networks of the operator.
	Transport http.RoundTripper
}

var _ Sources = ImageSources{}

// Find implements Sources. blobs is a directory for what is downloaded.
func (s ImageSources) Find(ctx context.Context, ref string, login cove.RegistryLogin, blobs string) (*image.Image, string, error) {
	if file, ok := s.local(ref); ok {
		return fromDisk(ctx, ref, file)
	}
	user, password, err := credentials(ctx, s.Transport, login)
	if err != nil {
		return nil, "", err
	}
	r := image.Registry{Mirrors: s.Mirrors, Transport: s.Transport, CacheDir: blobs}
	if user != "" {
		r.Credentials = func(string) (string, string, bool) { return user, password, true }
	}
	img, err := image.FromRegistry(ctx, ref, r)
	if err != nil {
		return nil, "", err
	}
	return img, img.Digest, nil
}

// local returns the path that an image's name stands for on this host.
func (s ImageSources) local(ref string) (string, bool) {
	if file, ok := s.Local[ref]; ok {
		return file, true
	}
	for pattern, file := range s.Local {
		if ok, err := path.Match(pattern, ref); ok && err == nil {
			return file, true
		}
	}
	return "", false
}

// fromDisk reads an image of the operator's. Its key changes with the file.
func fromDisk(ctx context.Context, ref, file string) (img *image.Image, key string, err error) {
	const op = "builder.fromDisk"
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", cove.E(cove.NotFound, op, err, "image %q is to come from this server's disk, and is not there: tell its operator", ref)
	}
	if err != nil {
		return nil, "", err
	}
	if info.IsDir() {
		if img, err = image.FromLayout(ctx, file, ""); err == nil {
			info, err = os.Stat(filepath.Join(file, "index.json"))
		}
	} else {
		img, err = image.FromFile(ctx, file, "")
	}
	if err != nil {
		return nil, "", err
	}
	key = img.Digest
	if key == "" && len(img.DiffIDs) > 0 {
		key = strings.Join(img.DiffIDs, " ")
	}
	if key == "" {
		key = plan.Key(file, fmt.Sprint(info.Size()), info.ModTime().String())
	}
	return img, key, nil
}

// credentials returns user and password for a login.
func credentials(ctx context.Context, transport http.RoundTripper, login cove.RegistryLogin) (user, password string, err error) {
	switch login.Kind {
	case "":
		return "", "", nil
	case cove.BasicLogin:
		return login.User, login.Password, nil
	case cove.GCPLogin:
		// The user name that stands for a service account's key; the registry's own.
		return "_json_key", login.ServiceAccount, nil
	case cove.AWSLogin:
		return awsCredentials(ctx, transport, login)
	}
	return "", "", cove.E(cove.Invalid, "builder.credentials", nil, "the kind of login %q is not known", login.Kind)
}
