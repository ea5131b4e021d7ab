package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cove-sandbox/cove/internal/runtime/runsc"
)

// engineName names an engine by its version and its content: our launcher is
// part of it, and what one build of it wrote, another may not be able to read.
func engineName(ctx context.Context, engine string) (string, error) {
	version, err := runsc.Version(ctx, engine)
	if err != nil {
		return "", err
	}
	digest, _, err := digestOf(engine)
	if err != nil {
		return "", fmt.Errorf("reading the engine: %w", err)
	}
	return version + "-" + digest[:12], nil
}

// keepEngine puts a copy of the engine where a later server, which comes with
// another, finds it for the snapshots that this one writes. Like those, it is on
// disk when this returns.
func keepEngine(engine, dir, version string) error {
	const failure = "a copy of the engine cannot be kept for the snapshots it writes: %w"
	target := filepath.Join(dir, version, runsc.EngineFile)
	if _, err := os.Stat(target); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return fmt.Errorf(failure, err)
	}
	if err := copyProgram(engine, target+".new"); err != nil {
		return errors.Join(fmt.Errorf(failure, err), os.RemoveAll(filepath.Dir(target)))
	}
	if err := os.Rename(target+".new", target); err != nil {
		return fmt.Errorf(failure, err)
	}
	for _, changed := range []string{filepath.Dir(target), dir, filepath.Dir(dir)} {
		if err := syncDir(changed); err != nil {
			return fmt.Errorf(failure, err)
		}
	}
	return nil
}

// syncDir makes the names in a directory durable.
func syncDir(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// copyProgram copies a program so that the copy is whole and on disk when it
// returns.
func copyProgram(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Sync()
}
