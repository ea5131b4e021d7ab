// Package metadata keeps the metadata of files, which the protocol's clients
// set when they upload, in extended attributes.
//
// It is not a store: the attributes belong to the file, so they are renamed and
// removed with it, and whoever can write the file can write them. Only the
// packages of the daemon import it; it starts no goroutines.
package metadata

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	attrPrefix   = "user.e2b."
	headerPrefix = "X-Metadata-"

	maxKey   = 255 - len(attrPrefix) // the kernel's limit of a name
	maxTotal = 4096                  // bytes of keys and values
	maxList  = 64 << 10              // the kernel's limit of a list
)

// FromHeader returns the metadata that an upload's headers ask for, keys in
// lower case. The error's text is for the client.
func FromHeader(h http.Header) (map[string]string, error) {
	set := map[string]string{}
	total := 0
	for _, name := range slices.Sorted(maps.Keys(h)) {
		key, ok := strings.CutPrefix(name, headerPrefix)
		if !ok {
			continue
		}
		key = strings.ToLower(key)
		value := h.Get(name)
		total += len(key) + len(value)
		switch {
		case key == "":
			return nil, errors.New("invalid metadata: a key is empty")
		case len(key) > maxKey:
			return nil, fmt.Errorf("invalid metadata: a key is longer than %d bytes", maxKey)
		case !printable(key) || !printable(value):
			return nil, fmt.Errorf("invalid metadata: key or value of '%s' has characters other than printable ASCII", strings.ToValidUTF8(key, "?"))
		case total > maxTotal:
			return nil, fmt.Errorf("invalid metadata: keys and values are longer than %d bytes", maxTotal)
		}
		set[key] = value
	}
	return set, nil
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// Read returns the metadata of the file at path, of a symbolic link's target.
// It is nil where there is none, for whatever reason: a file is worth listing
// even if its attributes cannot be read.
func Read(path string) map[string]string {
	names, err := list(func(buf []byte) (int, error) { return unix.Listxattr(path, buf) })
	if err != nil || len(names) == 0 {
		return nil
	}
	set := make(map[string]string, len(names))
	buf := make([]byte, maxList)
	for _, name := range names {
		n, err := unix.Getxattr(path, name, buf)
		if err != nil {
			continue
		}
		// Anybody in the sandbox can write anything here; the wire is UTF-8.
		key := strings.ToValidUTF8(strings.TrimPrefix(name, attrPrefix), "\uFFFD")
		set[key] = strings.ToValidUTF8(string(buf[:n]), "\uFFFD")
	}
	if len(set) == 0 {
		return nil
	}
	return set
}

// Replace makes set the whole metadata of f. A file system without extended
// attributes is an error only if there is something to set.
func Replace(f *os.File, set map[string]string) error {
	fd := int(f.Fd())
	old, err := list(func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) })
	if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("list attributes: %w", err)
	}
	for _, name := range old {
		if _, stays := set[strings.TrimPrefix(name, attrPrefix)]; stays {
			continue
		}
		if err := unix.Fremovexattr(fd, name); err != nil && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("remove attribute: %w", err)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		if err := unix.Fsetxattr(fd, attrPrefix+key, []byte(set[key]), 0); err != nil {
			return fmt.Errorf("set attribute: %w", err)
		}
	}
	return nil
}

// list returns the names of ours that call, a variant of listxattr, fills in.
func list(call func([]byte) (int, error)) ([]string, error) {
	// Most files have none, which the size alone tells.
	n, err := call(nil)
	if err != nil || n == 0 {
		return nil, err
	}
	buf := make([]byte, maxList)
	if n, err = call(buf); err != nil {
		return nil, err
	}
	var names []string
	for name := range bytes.SplitSeq(buf[:n], []byte{0}) {
		if bytes.HasPrefix(name, []byte(attrPrefix)) {
			names = append(names, string(name))
		}
	}
	return names, nil
}
