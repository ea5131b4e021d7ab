// Package process is the daemon's process service: it starts programs, streams
// what they write and passes on what they are sent.
//
// A process belongs to the sandbox and not to the call that started it. What it
// writes is read whether or not anybody listens, so it never stalls for want of
// a listener; what nobody listened to is gone. A listener that is slow makes
// the process wait, as a full pipe would; one that takes nothing at all for
// Config.Stall is cut off and the process goes on. A listener holds at most
// queueLen pieces of output, so memory is bounded.
//
// The package is not a supervisor: nothing is restarted. Only the daemon
// imports it. A Service owns the goroutines of its processes and its Run waits
// for them.
package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/cove-sandbox/cove/internal/envd/account"
	"github.com/cove-sandbox/cove/internal/envd/reap"
	"github.com/cove-sandbox/cove/internal/envd/settings"
	pb "github.com/cove-sandbox/cove/internal/gen/process"
	"github.com/cove-sandbox/cove/internal/gen/process/processconnect"
)

// Config is what a Service is made of.
type Config struct {
	Users    *account.Directory // required
	Settings *settings.Store    // required
	Reaper   *reap.Reaper       // required; must run as long as the Service
	Log      *slog.Logger       // required
	Path     string             // PATH of processes, unless a variable says otherwise

	OOMScore int           // oom_score_adj of processes; 0: they inherit the daemon's
	Stall    time.Duration // how long a process waits for a listener; 0: 30s
	Retain   time.Duration // how long the end of a process is remembered; 0: 30s
	Grace    time.Duration // between SIGTERM and SIGKILL when Run ends; 0: 2s
}

// Service implements process.Process.
type Service struct {
	processconnect.UnimplementedProcessHandler
	cfg   Config
	table *table

	mu      sync.Mutex
	closing bool           // guarded by mu; nothing is started any more
	running sync.WaitGroup // one for each process; added to under mu, before closing
}

// New returns a Service without processes.
func New(cfg Config) *Service {
	defaultTo(&cfg.Stall, 30*time.Second)
	defaultTo(&cfg.Retain, 30*time.Second)
	defaultTo(&cfg.Grace, 2*time.Second)
	return &Service{cfg: cfg, table: newTable(cfg.Retain)}
}

func defaultTo(d *time.Duration, v time.Duration) {
	if *d == 0 {
		*d = v
	}
}

// Run waits for ctx and then ends the processes: it asks, waits a little, kills
// and waits until they are gone.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	gone := make(chan struct{}) // closed when no process is left
	go func() {
		s.running.Wait()
		close(gone)
	}()
	s.signalAll(syscall.SIGTERM)
	grace := time.NewTimer(s.cfg.Grace)
	defer grace.Stop()
	select {
	case <-gone:
	case <-grace.C:
		s.signalAll(syscall.SIGKILL)
		<-gone
	}
	s.table.close()
	return ctx.Err()
}

func (s *Service) signalAll(sig syscall.Signal) {
	for _, p := range s.table.list() {
		if err := p.signal(sig); err != nil && !errors.Is(err, reap.ErrGone) {
			s.cfg.Log.Warn("signal at the end", "pid", p.pid, "err", err)
		}
	}
}

// user returns whom a call is made for.
func (s *Service) user(h http.Header) (account.User, error) {
	u, err := s.cfg.Users.FromHeader(h, s.cfg.Settings.Get().User)
	if err != nil {
		return account.User{}, connect.NewError(connect.CodeUnauthenticated, err)
	}
	return u, nil
}

// List returns the live processes, oldest first.
func (s *Service) List(_ context.Context, req *connect.Request[pb.ListRequest]) (*connect.Response[pb.ListResponse], error) {
	if _, err := s.user(req.Header()); err != nil {
		return nil, err
	}
	var out pb.ListResponse
	for _, p := range s.table.list() {
		out.Processes = append(out.Processes, &pb.ProcessInfo{Config: p.config, Pid: p.pid, Tag: p.tag})
	}
	return connect.NewResponse(&out), nil
}

// SendSignal signals the process itself, not its group.
func (s *Service) SendSignal(ctx context.Context, req *connect.Request[pb.SendSignalRequest]) (*connect.Response[pb.SendSignalResponse], error) {
	if _, err := s.user(req.Header()); err != nil {
		return nil, err
	}
	p, err := s.table.live(req.Msg.GetProcess())
	if err != nil {
		return nil, err
	}
	sig := req.Msg.GetSignal()
	if sig != pb.Signal_SIGNAL_SIGTERM && sig != pb.Signal_SIGNAL_SIGKILL {
		return nil, connect.NewError(connect.CodeUnimplemented, fmt.Errorf("invalid signal: %s", sig))
	}
	// A process that has ended while something else holds its output open is
	// done with; that nothing is left to be signalled is then no error.
	if err := p.signal(syscall.Signal(sig)); err != nil && !errors.Is(err, reap.ErrGone) {
		return nil, connect.NewError(connect.CodeInternal, fmt.Errorf("error sending signal: %w", err))
	}
	if sig == pb.Signal_SIGNAL_SIGKILL {
		p.awaitEnd(ctx)
	}
	return connect.NewResponse(&pb.SendSignalResponse{}), nil
}

// killTime is how long the answer to a kill waits for the process to be gone.
const killTime = 2 * time.Second

// awaitEnd waits until the process has ended and been collected, so that who
// killed it does not find it there any more.
func (p *process) awaitEnd(ctx context.Context) {
	limit := time.NewTimer(killTime)
	defer limit.Stop()
	select {
	case <-p.reaped:
	case <-limit.C:
	case <-ctx.Done():
	}
}

// Update resizes a terminal.
func (s *Service) Update(_ context.Context, req *connect.Request[pb.UpdateRequest]) (*connect.Response[pb.UpdateResponse], error) {
	if _, err := s.user(req.Header()); err != nil {
		return nil, err
	}
	p, err := s.table.live(req.Msg.GetProcess())
	if err != nil {
		return nil, err
	}
	if size := req.Msg.GetPty().GetSize(); size != nil {
		if p.pty == nil {
			return nil, connect.NewError(connect.CodeInternal, errors.New("error resizing terminal: tty not assigned to process"))
		}
		err := resize(p.pty, size)
		if errors.Is(err, os.ErrClosed) {
			return nil, notFound(req.Msg.GetProcess())
		}
		if err != nil {
			return nil, connect.NewError(connect.CodeInternal, fmt.Errorf("error resizing terminal: %w", err))
		}
	}
	return connect.NewResponse(&pb.UpdateResponse{}), nil
}
