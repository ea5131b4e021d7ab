// Package filesystem is the daemon's file system service: it looks at files,
// makes, moves and removes them, and tells what happens to them. Their contents
// travel through package files.
//
// All work is done as root; the user of a call decides what relative paths mean
// and who owns new directories. Only the daemon imports it. A Service owns the
// goroutines of its watchers and its Run waits for them.
package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"connectrpc.com/connect"

	"github.com/cove-sandbox/cove/internal/envd/account"
	"github.com/cove-sandbox/cove/internal/envd/settings"
	pb "github.com/cove-sandbox/cove/internal/gen/filesystem"
	"github.com/cove-sandbox/cove/internal/gen/filesystem/filesystemconnect"
)

// Config is what a Service is made of.
type Config struct {
	Users    *account.Directory // required
	Settings *settings.Store    // required
	Log      *slog.Logger       // required

	MaxWatchers int // polled watchers that may exist at a time; 0: 256
	MaxEvents   int // events kept for a polled watcher; 0: 16384
}

// Service implements filesystem.Filesystem.
type Service struct {
	filesystemconnect.UnimplementedFilesystemHandler
	cfg    Config
	polled *polledSet
}

// New returns a Service without watchers.
func New(cfg Config) *Service {
	if cfg.MaxWatchers == 0 {
		cfg.MaxWatchers = 256
	}
	if cfg.MaxEvents == 0 {
		cfg.MaxEvents = 16384
	}
	return &Service{cfg: cfg, polled: newPolledSet(cfg.MaxWatchers, cfg.MaxEvents)}
}

// Run waits for ctx and then ends the polled watchers.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	s.polled.close()
	return ctx.Err()
}

func fail(code connect.Code, format string, args ...any) error {
	return connect.NewError(code, fmt.Errorf(format, args...))
}

// target returns whom a call is made for and what path means to them.
func (s *Service) target(h http.Header, path string) (account.User, string, error) {
	now := s.cfg.Settings.Get()
	u, err := s.cfg.Users.FromHeader(h, now.User)
	if err != nil {
		return u, "", connect.NewError(connect.CodeUnauthenticated, err)
	}
	path, err = u.Resolve(path, now.Workdir)
	if err != nil {
		return u, "", connect.NewError(connect.CodeInvalidArgument, err)
	}
	return u, path, nil
}

// Stat describes one file.
func (s *Service) Stat(_ context.Context, req *connect.Request[pb.StatRequest]) (*connect.Response[pb.StatResponse], error) {
	_, path, err := s.target(req.Header(), req.Msg.GetPath())
	if err != nil {
		return nil, err
	}
	entry, err := s.stat(path)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.StatResponse{Entry: entry}), nil
}

// stat is entry with the error a client gets.
func (s *Service) stat(path string) (*pb.EntryInfo, error) {
	entry, err := entryOf(s.owners(), path, path)
	switch {
	case missing(err):
		return nil, fail(connect.CodeNotFound, "file not found: %s", path)
	case err != nil:
		return nil, fail(connect.CodeInternal, "error getting file info: %w", err)
	}
	return entry, nil
}

// missing reports whether err says that there is no such file; a file where a
// directory had to be is one way of not being there.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// MakeDir makes a directory.
func (s *Service) MakeDir(_ context.Context, req *connect.Request[pb.MakeDirRequest]) (*connect.Response[pb.MakeDirResponse], error) {
	u, path, err := s.target(req.Header(), req.Msg.GetPath())
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil, fail(connect.CodeAlreadyExists, "directory already exists: %s", path)
	case err == nil:
		return nil, fail(connect.CodeInvalidArgument, "path already exists but it is not a directory: %s", path)
	case !missing(err):
		return nil, fail(connect.CodeInternal, "error getting file info: %w", err)
	}
	if err := makeDirs(u, path); err != nil {
		return nil, err
	}
	entry, err := s.stat(path)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.MakeDirResponse{Entry: entry}), nil
}

func makeDirs(u account.User, path string) error {
	err := u.MakeDirs(path)
	if notDir, ok := errors.AsType[account.NotDirError](err); ok {
		return connect.NewError(connect.CodeInvalidArgument, notDir)
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fail(connect.CodeResourceExhausted, "not enough disk space available")
	}
	if err != nil {
		return fail(connect.CodeInternal, "error creating directory: %w", err)
	}
	return nil
}

// Move renames a file, replacing what is there.
func (s *Service) Move(_ context.Context, req *connect.Request[pb.MoveRequest]) (*connect.Response[pb.MoveResponse], error) {
	u, source, err := s.target(req.Header(), req.Msg.GetSource())
	if err != nil {
		return nil, err
	}
	_, destination, err := s.target(req.Header(), req.Msg.GetDestination())
	if err != nil {
		return nil, err
	}
	// First of all: a move that cannot be must not leave directories behind.
	if _, err := os.Lstat(source); missing(err) {
		return nil, fail(connect.CodeNotFound, "source file not found: %s", source)
	}
	if err := makeDirs(u, filepath.Dir(destination)); err != nil {
		return nil, err
	}
	err = os.Rename(source, destination)
	switch {
	case missing(err):
		return nil, fail(connect.CodeNotFound, "source file not found: %s", source)
	case err != nil:
		return nil, fail(connect.CodeInternal, "error renaming: %w", err)
	}
	entry, err := s.stat(destination)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.MoveResponse{Entry: entry}), nil
}

// Remove removes a file or a tree.
func (s *Service) Remove(_ context.Context, req *connect.Request[pb.RemoveRequest]) (*connect.Response[pb.RemoveResponse], error) {
	_, path, err := s.target(req.Header(), req.Msg.GetPath())
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(path); err != nil && !missing(err) {
		return nil, fail(connect.CodeInternal, "error removing file or directory: %w", err)
	}
	return connect.NewResponse(&pb.RemoveResponse{}), nil
}

// ListDir lists a directory: each entry before what is in it, in the order of
// names. Symbolic links below the directory are not followed.
func (s *Service) ListDir(ctx context.Context, req *connect.Request[pb.ListDirRequest]) (*connect.Response[pb.ListDirResponse], error) {
	_, path, err := s.target(req.Header(), req.Msg.GetPath())
	if err != nil {
		return nil, err
	}
	if _, err := directory(path); err != nil {
		return nil, err
	}
	depth := max(req.Msg.GetDepth(), 1)
	var out pb.ListDirResponse
	if err := s.list(ctx, &out, strings.TrimRight(path, "/"), depth); err != nil {
		return nil, err
	}
	return connect.NewResponse(&out), nil
}

// directory returns the info of the directory that path leads to.
func directory(path string) (fs.FileInfo, error) {
	info, err := os.Stat(path)
	switch {
	case missing(err):
		return nil, fail(connect.CodeNotFound, "path not found: %s", path)
	case errors.Is(err, syscall.ELOOP):
		return nil, fail(connect.CodeFailedPrecondition, "too many symbolic links: %s", path)
	case err != nil:
		return nil, fail(connect.CodeInternal, "error getting file info: %w", err)
	case !info.IsDir():
		return nil, fail(connect.CodeInvalidArgument, "path is not a directory: %s", path)
	}
	return info, nil
}

// list adds the entries of dir, which exists or did a moment ago; the root is
// the empty string here. What vanishes meanwhile is left out.
func (s *Service) list(ctx context.Context, out *pb.ListDirResponse, dir string, depth uint32) error {
	children, err := os.ReadDir(dir + "/")
	if err != nil && !missing(err) {
		return fail(connect.CodeInternal, "error reading directory %s: %w", dir, err)
	}
	entries, err := s.describe(ctx, dir, children)
	if err != nil {
		return err
	}
	for i, child := range children {
		if entries[i] == nil {
			continue
		}
		out.Entries = append(out.Entries, entries[i])
		if child.IsDir() && depth > 1 {
			if err := s.list(ctx, out, dir+"/"+child.Name(), depth-1); err != nil {
				return err
			}
		}
	}
	return nil
}

// fewChildren are described faster by one than by several.
const fewChildren = 512

// describe returns the entries of the children of dir, nil for one that is gone.
func (s *Service) describe(ctx context.Context, dir string, children []fs.DirEntry) ([]*pb.EntryInfo, error) {
	entries := make([]*pb.EntryInfo, len(children))
	parts := 1
	if len(children) > fewChildren {
		parts = runtime.GOMAXPROCS(0)
	}
	errs := make([]error, parts)
	var workers sync.WaitGroup
	for part := range parts {
		from, to := part*len(children)/parts, (part+1)*len(children)/parts
		workers.Go(func() {
			who := s.owners()
			near := parts > 1 && enter(dir+"/")
			for i := from; i < to && errs[part] == nil; i++ {
				path := dir + "/" + children[i].Name()
				short := path
				if near {
					short = children[i].Name()
				}
				entry, err := entryOf(who, path, short)
				switch {
				case err == nil:
					entries[i] = entry
				case !missing(err):
					errs[part] = fail(connect.CodeInternal, "error getting file info: %w", err)
				}
				if err := ctx.Err(); err != nil {
					errs[part] = err
				}
			}
		})
	}
	workers.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return entries, nil
}
