package rootfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/erofs/go-erofs"
)

// An output is a file that appears under its name only when it is complete.
type output struct {
	f    *os.File // nil once it is kept
	name string
}

func newOutput(name string) (*output, error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*.partial")
	if err != nil {
		return nil, err
	}
	return &output{f: f, name: name}, nil
}

// discard removes the file unless it was kept.
func (o *output) discard() {
	if o.f == nil {
		return
	}
	o.f.Close()
	os.Remove(o.f.Name())
}

// keep makes the file durable and gives it its name.
func (o *output) keep() error {
	tmp := o.f.Name()
	err := errors.Join(o.f.Chmod(0o644), o.f.Sync(), o.f.Close())
	o.f = nil
	if err == nil {
		err = os.Rename(tmp, o.name)
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	dir, err := os.Open(filepath.Dir(o.name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// verify has a reader that is not ours walk the image, and compares what it
// sees with what was meant.
func verify(f io.ReaderAt, want Info) error {
	image, err := erofs.Open(f)
	if err != nil {
		return fmt.Errorf("read the image back: %w", err)
	}
	var entries int
	var content int64
	err = fs.WalkDir(image, ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		entries++
		if !d.Type().IsRegular() {
			return nil
		}
		st, err := d.Info()
		if err == nil {
			content += st.Size()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read the image back: %w", err)
	}
	if entries != want.Entries || content != want.Content {
		return fmt.Errorf("read the image back: it has %d entries and %d bytes instead of %d and %d",
			entries, content, want.Entries, want.Content)
	}
	return nil
}
