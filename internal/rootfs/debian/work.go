package debian

import (
	"archive/tar"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A work is a cache directory in use:
//
//	lock        held while it is in use
//	packages/   downloaded packages, kept between attempts
//	work/       everything else of one attempt
type work struct {
	lock      *os.File
	dir       string // work/
	packages  string
	reachable bool // whether users other than root can get there
}

func openWork(cache string) (*work, error) {
	cache, err := filepath.Abs(cache)
	if err != nil {
		return nil, err
	}
	w := &work{dir: filepath.Join(cache, "work"), packages: filepath.Join(cache, "packages")}
	if err := os.MkdirAll(w.packages, 0o755); err != nil {
		return nil, err
	}
	if w.lock, err = lock(filepath.Join(cache, "lock")); err != nil {
		return nil, err
	}
	w.reachable = reachable(cache)
	return w, nil
}

// reachable reports whether everybody may enter dir.
func reachable(dir string) bool {
	for {
		st, err := os.Stat(dir)
		if err != nil || st.Mode().Perm()&0o001 == 0 {
			return false
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return true
		}
		dir = parent
	}
}

// close leaves only the packages. Errors do not matter: the next use begins
// with reset.
func (w *work) close() {
	os.RemoveAll(w.dir)
	w.lock.Close()
}

// reset removes what an earlier attempt, perhaps one that crashed, has left.
// Nothing can be mounted below: mounts were made in a namespace that is gone.
func (w *work) reset() error {
	return errors.Join(os.RemoveAll(w.dir), os.MkdirAll(w.tmp(), 0o755))
}

// writeFiles puts files into an archive for a hook to unpack.
func (w *work) writeFiles(files []File) error {
	f, err := os.Create(w.filesTar())
	if err != nil {
		return err
	}
	tw := tar.NewWriter(f)
	for _, file := range files {
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: strings.TrimPrefix(file.Path, "/"),
			Mode: 0o644, Size: int64(len(file.Data)), ModTime: time.Unix(0, 0),
		}
		if err = tw.WriteHeader(h); err != nil {
			break
		}
		if _, err = tw.Write(file.Data); err != nil {
			break
		}
	}
	return errors.Join(err, tw.Close(), f.Close())
}

// environ is the environment of the tool: nothing but what it needs, and what
// the host says about proxies.
func (w *work) environ(host []string) []string {
	path := insidePath
	if p := os.Getenv("PATH"); p != "" {
		path = p + ":" + path
	}
	env := []string{"PATH=" + path, "HOME=" + w.dir, "TMPDIR=" + w.tmp(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	for _, e := range host {
		switch name, _, _ := strings.Cut(e, "="); strings.ToLower(name) {
		case "http_proxy", "https_proxy", "no_proxy":
			env = append(env, e)
		}
	}
	return env
}

// keepEvery is how often finished downloads are looked for.
const keepEvery = 500 * time.Millisecond

// keepPackages links finished downloads out of the tool's working directory
// while it runs, because the tool removes that directory when it fails. The
// returned function stops this, after a last look.
func (w *work) keepPackages(ctx context.Context) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1) // gets one value when the goroutine ends
	go func() {
		tick := time.NewTicker(keepEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				done <- w.linkPackages()
				return
			case <-tick.C:
				if err := w.linkPackages(); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	return func() error { cancel(); return <-done }
}

func (w *work) linkPackages() error {
	// apt moves a file here once it is complete and its hash is right.
	found, err := filepath.Glob(filepath.Join(w.tmp(), "*", "var/cache/apt/archives", "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range found {
		err := os.Link(deb, filepath.Join(w.packages, filepath.Base(deb)))
		// Gone again, or kept already: both are fine.
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// publish makes the archive durable under its final name.
func (w *work) publish(out string) error {
	f, err := os.Open(w.tarball())
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(w.tarball(), out); err != nil {
		return err
	}
	return syncDir(filepath.Dir(out))
}
