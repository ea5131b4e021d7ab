package filesystem

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/cove-sandbox/cove/internal/envd/account"
	pb "github.com/cove-sandbox/cove/internal/gen/filesystem"
	"github.com/cove-sandbox/cove/internal/id"
)

// A watcher turns what happens below a directory into events of the wire.
type watcher struct {
	*inotify
	entries bool
	users   *account.Directory
}

// watchRequest is what both ways of watching ask for.
type watchRequest interface {
	GetPath() string
	GetRecursive() bool
	GetIncludeEntry() bool
	GetAllowNetworkMounts() bool
}

func (s *Service) watch(h http.Header, req watchRequest) (*watcher, error) {
	_, path, err := s.target(h, req.GetPath())
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	switch {
	case missing(err):
		return nil, fail(connect.CodeNotFound, "path %s not found", path)
	case err != nil:
		return nil, fail(connect.CodeInternal, "error getting file info: %w", err)
	case !info.IsDir():
		return nil, fail(connect.CodeInvalidArgument, "path %s is not a directory", path)
	}
	if !req.GetAllowNetworkMounts() {
		network, err := onNetwork(path)
		if err != nil {
			return nil, fail(connect.CodeInternal, "error looking at the file system: %w", err)
		}
		if network {
			return nil, fail(connect.CodeInvalidArgument, "cannot watch path on network filesystem: %s", path)
		}
	}
	in, err := newInotify(filepath.Clean(path), req.GetRecursive())
	if err != nil {
		return nil, fail(connect.CodeInternal, "error watching %s: %w", path, err)
	}
	return &watcher{inotify: in, entries: req.GetIncludeEntry(), users: s.cfg.Users}, nil
}

// next waits for events.
func (w *watcher) next() ([]*pb.FilesystemEvent, error) {
	changes, err := w.Read()
	out := make([]*pb.FilesystemEvent, 0, len(changes))
	for _, c := range changes {
		name, relErr := filepath.Rel(w.root, c.path)
		if relErr != nil {
			return out, relErr
		}
		ev := &pb.FilesystemEvent{Name: text(name), Type: c.kind}
		if w.entries && describes(c.kind) {
			// It may be gone by now; then there is nothing to describe.
			ev.Entry, _ = entryOf(owners{w.users, map[[2]uint32][2]string{}}, c.path, c.path)
		}
		out = append(out, ev)
	}
	return out, err
}

func describes(kind pb.EventType) bool {
	return kind == pb.EventType_EVENT_TYPE_CREATE || kind == pb.EventType_EVENT_TYPE_WRITE || kind == pb.EventType_EVENT_TYPE_CHMOD
}

// WatchDir streams what happens in a directory until the caller leaves.
func (s *Service) WatchDir(ctx context.Context, req *connect.Request[pb.WatchDirRequest], stream *connect.ServerStream[pb.WatchDirResponse]) error {
	w, err := s.watch(req.Header(), req.Msg)
	if err != nil {
		return err
	}
	events := make(chan []*pb.FilesystemEvent)
	failed := make(chan error, 1)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer w.Close()
	gone := make(chan struct{}) // closed when nobody takes events any more
	defer close(gone)
	reader.Go(func() {
		for {
			batch, err := w.next()
			select {
			case events <- batch:
			case <-gone:
				return
			}
			if err != nil {
				failed <- err
				return
			}
		}
	})

	start := &pb.WatchDirResponse{Event: &pb.WatchDirResponse_Start{Start: &pb.WatchDirResponse_StartEvent{}}}
	if err := stream.Send(start); err != nil {
		return err
	}
	silence := keepaliveAfter(req.Header())
	keepalive := time.NewTimer(silence)
	defer keepalive.Stop()
	for {
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return connect.NewError(connect.CodeDeadlineExceeded, ctx.Err())
			}
			return connect.NewError(connect.CodeCanceled, ctx.Err())
		case err := <-failed:
			return watchError(err)
		case batch := <-events:
			for _, ev := range batch {
				if err := stream.Send(&pb.WatchDirResponse{Event: &pb.WatchDirResponse_Filesystem{Filesystem: ev}}); err != nil {
					return err
				}
			}
		case <-keepalive.C:
			if err := stream.Send(&pb.WatchDirResponse{Event: &pb.WatchDirResponse_Keepalive{Keepalive: &pb.WatchDirResponse_KeepAlive{}}}); err != nil {
				return err
			}
		}
		keepalive.Reset(silence)
	}
}

func watchError(err error) error {
	if errors.Is(err, errOverflow) {
		return connect.NewError(connect.CodeResourceExhausted, err)
	}
	return fail(connect.CodeInternal, "watcher error: %w", err)
}

// keepaliveAfter is how long a stream may be silent: the request's header in
// seconds, or 90.
func keepaliveAfter(h http.Header) time.Duration {
	const most = 24 * 60 * 60
	n, err := strconv.Atoi(h.Get("Keepalive-Ping-Interval"))
	if err != nil || n <= 0 || n > most {
		return 90 * time.Second
	}
	return time.Duration(n) * time.Second
}

// A polledSet holds the watchers whose events are asked for. It is safe for
// concurrent use.
type polledSet struct {
	maxWatchers, maxEvents int
	readers                sync.WaitGroup

	mu     sync.Mutex
	byID   map[string]*polled // guarded by mu
	closed bool               // guarded by mu
}

// A polled is a watcher with the events nobody has asked for yet. When it holds
// as many as it may, it stops reading, and the kernel's queue fills; a loss is
// then reported by the call that would have delivered what was lost.
type polled struct {
	*watcher
	max int

	mu     sync.Mutex
	room   *sync.Cond            // of mu: events were taken, or the watcher closed
	events []*pb.FilesystemEvent // guarded by mu
	err    error                 // guarded by mu; reading ended with it
	closed bool                  // guarded by mu
}

func newPolledSet(maxWatchers, maxEvents int) *polledSet {
	return &polledSet{maxWatchers: maxWatchers, maxEvents: maxEvents, byID: map[string]*polled{}}
}

func (s *polledSet) add(w *watcher) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return "", fail(connect.CodeUnavailable, "the sandbox is shutting down")
	}
	if len(s.byID) >= s.maxWatchers {
		return "", fail(connect.CodeResourceExhausted, "there are %d watchers already; remove some", len(s.byID))
	}
	p := &polled{watcher: w, max: s.maxEvents}
	p.room = sync.NewCond(&p.mu)
	name := "w" + id.Secret(10)
	s.byID[name] = p
	s.readers.Go(p.read)
	return name, nil
}

func (s *polledSet) get(name string) (*polled, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.byID[name]
	if !ok {
		return nil, fail(connect.CodeNotFound, "watcher with id %s not found", name)
	}
	return p, nil
}

func (s *polledSet) remove(name string) error {
	p, err := s.get(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.byID, name)
	s.mu.Unlock()
	p.close()
	return nil
}

func (s *polledSet) close() {
	s.mu.Lock()
	s.closed = true
	all := s.byID
	s.byID = map[string]*polled{}
	s.mu.Unlock()
	for _, p := range all {
		p.close()
	}
	s.readers.Wait()
}

func (p *polled) close() {
	p.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.room.Broadcast()
}

func (p *polled) read() {
	for {
		events, err := p.next()
		p.mu.Lock()
		for len(p.events) >= p.max && !p.closed {
			p.room.Wait()
		}
		p.events = append(p.events, events...)
		p.err = err
		done := err != nil || p.closed
		p.mu.Unlock()
		if done {
			return
		}
	}
}

// take returns the events so far, or the error that reading ended with once
// those before it are taken.
func (p *polled) take() ([]*pb.FilesystemEvent, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	events := p.events
	p.events = nil
	p.room.Broadcast()
	if len(events) == 0 && p.err != nil {
		return nil, watchError(p.err)
	}
	return events, nil
}

// CreateWatcher starts collecting events.
func (s *Service) CreateWatcher(_ context.Context, req *connect.Request[pb.CreateWatcherRequest]) (*connect.Response[pb.CreateWatcherResponse], error) {
	w, err := s.watch(req.Header(), req.Msg)
	if err != nil {
		return nil, err
	}
	name, err := s.polled.add(w)
	if err != nil {
		w.Close()
		return nil, err
	}
	return connect.NewResponse(&pb.CreateWatcherResponse{WatcherId: name}), nil
}

// GetWatcherEvents hands out the events since the last call.
func (s *Service) GetWatcherEvents(_ context.Context, req *connect.Request[pb.GetWatcherEventsRequest]) (*connect.Response[pb.GetWatcherEventsResponse], error) {
	p, err := s.polled.get(req.Msg.GetWatcherId())
	if err != nil {
		return nil, err
	}
	events, err := p.take()
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.GetWatcherEventsResponse{Events: events}), nil
}

// RemoveWatcher ends a watcher.
func (s *Service) RemoveWatcher(_ context.Context, req *connect.Request[pb.RemoveWatcherRequest]) (*connect.Response[pb.RemoveWatcherResponse], error) {
	if err := s.polled.remove(req.Msg.GetWatcherId()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.RemoveWatcherResponse{}), nil
}
