// Package debian makes a Debian root file system as a tar archive, with
// mmdebstrap and the package mirrors this machine is set up to use.
//
// It is not an image writer (package rootfs is) and knows nothing of templates:
// what to install is its caller's recipe. Signatures and dates of the archive
// are always checked. Only package builder and the server import it. It starts
// mmdebstrap in namespaces of its own, so that nothing stays mounted or running
// however either process ends; the goroutines of a Bootstrap end with it.
package debian

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	cove "github.com/cove-sandbox/cove"
)

// Options says what to install and where.
type Options struct {
	Suite    string   // "stable"
	Packages []string // besides mmdebstrap's "minbase"
	DpkgOpts []string // lines of dpkg's configuration, kept in the result
	Files    []File   // written after the packages are installed, before Commands
	Commands []Command
	Host     Host

	// CacheDir keeps downloaded packages and the working files; one Bootstrap
	// at a time uses it. Everything in it may be removed between two.
	CacheDir string
	Out      string // the tar archive; replaced atomically

	Progress func(Event) // may be nil; called from one goroutine at a time
}

// File is a file the host brings along. It belongs to root and has mode 0644.
type File struct {
	Path string // absolute
	Data []byte
}

// Command is a shell script that runs inside the new system as root.
type Command struct {
	Name   string // what it does, for progress and errors: "create the user"
	Script string // for sh -eu
}

// Event is one piece of progress.
type Event struct {
	Step    string // what mmdebstrap is doing
	Detail  string // its latest line; may be empty
	Bytes   int64  // downloaded in this step
	Total   int64  // to download in this step; 0: not known
	Warning bool   // Detail is something the operator should know
}

// CommandError says which command failed, during what, and its last lines.
type CommandError struct {
	Command string   // "mmdebstrap"
	Step    string   // "installing essential packages"; may be empty
	Lines   []string // at most 20, at most 4 KiB together
	Err     error
}

// Error returns it all on several lines.
func (e *CommandError) Error() string {
	s := e.Command + " failed"
	if e.Step != "" {
		s += " while " + e.Step
	}
	s += fmt.Sprintf(" (%v); its last lines:", e.Err)
	for _, l := range e.Lines {
		s += "\n  " + l
	}
	return s
}

// Unwrap returns why the command ended.
func (e *CommandError) Unwrap() error { return e.Err }

const tool = "mmdebstrap"

// Bootstrap makes the archive. If the mirror's updates or security updates have
// expired, which a frozen mirror's do, it warns and goes on without them.
//
// A missing tool or keyring and a failed command are Unavailable, a full disk
// is NoSpace; a second Bootstrap in the same CacheDir is Conflict. After an
// error or a crash the next Bootstrap reuses what was downloaded.
func Bootstrap(ctx context.Context, o Options) error {
	const op = "debian.Bootstrap"
	path, err := exec.LookPath(tool)
	if err != nil {
		return cove.E(cove.Unavailable, op, err, "%s is not installed on the server: install it with \"apt-get install %s\"", tool, tool)
	}
	if !o.Host.Keyring {
		return cove.E(cove.Unavailable, op, nil, "the server lacks Debian's archive keys: install them with \"apt-get install debian-archive-keyring\"")
	}
	w, err := openWork(o.CacheDir)
	if err != nil {
		return diskError(op, err)
	}
	defer w.close()

	b := &bootstrap{Options: o, work: w, path: path}
	if b.Progress == nil {
		b.Progress = func(Event) {}
	}
	err = b.attempt(ctx, o.Host.lines(o.Suite, true))
	if fallback := b.mainOnly(err); fallback != nil {
		b.Progress(Event{Step: "updates", Warning: true,
			Detail: "the mirror's update suites have expired; building from the main suite alone, without security updates"})
		err = b.attempt(ctx, fallback)
	}
	if err != nil {
		return b.describe(ctx, op, err)
	}
	return diskError(op, w.publish(o.Out))
}

// A bootstrap is one call of Bootstrap.
type bootstrap struct {
	Options
	work *work
	path string // of the tool

	log *transcript // of the latest attempt
}

// attempt runs the tool once, with the given lines of sources.list; none means
// the tool's own defaults.
func (b *bootstrap) attempt(ctx context.Context, sources []string) error {
	if err := b.work.reset(); err != nil {
		return err
	}
	if err := b.work.writeFiles(b.Files); err != nil {
		return err
	}
	b.log = newTranscript(b.Progress)
	stop := b.work.keepPackages(ctx)
	err := execute(ctx, b.path, b.arguments(sources), b.work.environ(b.Host.Environ), b.log)
	b.log.flush()
	if stopErr := stop(); err == nil {
		err = stopErr
	}
	return err
}

// mainOnly returns the sources to try again with after err, or nil.
func (b *bootstrap) mainOnly(err error) []string {
	if _, failed := errors.AsType[*exec.ExitError](err); !failed || !b.log.expired {
		return nil
	}
	if lines := b.Host.lines(b.Suite, false); len(lines) > 0 {
		return lines
	}
	// The tool chose the mirror; what it called the main suite's is in its log.
	if uri := b.log.mirrorOf(b.Suite); uri != "" {
		return []string{fmt.Sprintf("deb %s %s main", uri, b.Suite)}
	}
	return nil
}

func (b *bootstrap) describe(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", op, context.Cause(ctx))
	}
	if b.log == nil {
		return diskError(op, err)
	}
	failure := &CommandError{Command: tool, Step: b.log.step, Lines: b.log.tail(), Err: err}
	if b.log.full {
		return cove.E(cove.NoSpace, op, failure, "the disk of the server is full: free some space and start the build again")
	}
	msg := "building the Debian base system failed"
	if b.log.step != "" {
		msg += fmt.Sprintf(" while %s", b.log.step)
	}
	return cove.E(cove.Unavailable, op, failure, "%s; the server's log has the last lines of %s", msg, tool)
}

// diskError gives a full disk its words.
func diskError(op string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return cove.E(cove.NoSpace, op, err, "the disk of the server is full: free some space and start the build again")
	}
	if err == nil || cove.KindOf(err) != cove.Internal {
		return err
	}
	return fmt.Errorf("%s: %w", op, err)
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	d, err := os.Open(filepath.Clean(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
