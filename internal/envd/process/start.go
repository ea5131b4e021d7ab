package process

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/cove-sandbox/cove/internal/envd/account"
	pb "github.com/cove-sandbox/cove/internal/gen/process"
)

// Start starts a program and streams its life. When the call's deadline passes,
// the program is killed, even if the caller has gone away by then.
func (s *Service) Start(ctx context.Context, req *connect.Request[pb.StartRequest], stream *connect.ServerStream[pb.StartResponse]) error {
	u, err := s.user(req.Header())
	if err != nil {
		return err
	}
	p, l, err := s.start(ctx, u, req.Msg)
	if err != nil {
		return err
	}
	defer p.hub.leave(l)
	return p.stream(ctx, req.Header(), l, true, func(ev *pb.ProcessEvent) error {
		return stream.Send(&pb.StartResponse{Event: ev})
	})
}

// Connect streams the rest of the life of a process.
func (s *Service) Connect(ctx context.Context, req *connect.Request[pb.ConnectRequest], stream *connect.ServerStream[pb.ConnectResponse]) error {
	if _, err := s.user(req.Header()); err != nil {
		return err
	}
	p, err := s.table.find(req.Msg.GetProcess())
	if err != nil {
		return err
	}
	l := p.hub.listen()
	defer p.hub.leave(l)
	return p.stream(ctx, req.Header(), l, false, func(ev *pb.ProcessEvent) error {
		return stream.Send(&pb.ConnectResponse{Event: ev})
	})
}

// start starts what req says. The listener was there before the process was, so
// it misses nothing.
func (s *Service) start(ctx context.Context, u account.User, req *pb.StartRequest) (*process, *listener, error) {
	cmd, err := s.command(u, req.GetProcess())
	if err != nil {
		return nil, nil, err
	}
	p := &process{
		config:  req.GetProcess(),
		tag:     req.Tag,
		hub:     newHub(s.cfg.Stall),
		reaper:  s.cfg.Reaper,
		abandon: make(chan struct{}),
		reaped:  make(chan struct{}),
	}
	l := p.hub.listen()
	ends, err := open(p, u.UID, req)
	if err != nil {
		p.close()
		return nil, nil, connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("error opening pipes: %w", err))
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		ends.close()
		p.close()
		return nil, nil, connect.NewError(connect.CodeUnavailable, errors.New("the sandbox is shutting down"))
	}
	pid, status, err := s.exec(cmd, ends)
	ends.close()
	if err != nil {
		p.close()
		failure, ok := errors.AsType[*execError](err)
		if !ok {
			return nil, nil, err
		}
		s.unborn(p, failure)
		return p, l, nil
	}
	p.pid = uint32(pid)
	s.setOOMScore(pid)
	s.table.add(p)
	if deadline, ok := ctx.Deadline(); ok {
		// Not the context itself: that ends with the connection, too.
		p.deadline = time.AfterFunc(time.Until(deadline), p.expire)
	}
	s.running.Go(func() {
		p.follow(status)
		s.table.ended(p)
	})
	return p, l, nil
}

// unborn makes p what a shell would have made of a command it cannot execute: a
// process that says so and exits with 126 or 127.
func (s *Service) unborn(p *process, failure *execError) {
	s.table.add(p)
	text := []byte(failure.Error() + "\n")
	if p.pty != nil {
		p.hub.send(ptyEvent(text))
	} else {
		p.hub.send(stderrEvent(text))
	}
	p.hub.finish(endEvent(syscall.WaitStatus(failure.status << 8)))
	s.table.ended(p)
}

// close closes what open opened for a process that did not come to be.
func (p *process) close() {
	for _, out := range p.outputs {
		out.file.Close()
	}
	if p.input != nil {
		p.input.shut()
	}
}

// environ returns the environment of a process. Later ones win: what the user
// implies, the variables of the sandbox, those of the request. Nothing of the
// daemon's own environment is in it.
func (s *Service) environ(u account.User, own map[string]string) map[string]string {
	env := map[string]string{"PATH": s.cfg.Path, "HOME": u.Home, "USER": u.Name, "LOGNAME": u.Name}
	maps.Copy(env, s.cfg.Settings.Get().Env)
	maps.Copy(env, own)
	return env
}

func joined(env map[string]string) []string {
	out := make([]string, 0, len(env))
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
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

// stream sends the life of p as l hears it. The call that started the process
// owns its deadline, and is told of it instead of the end that it causes.
func (p *process) stream(ctx context.Context, h http.Header, l *listener, owner bool, send func(*pb.ProcessEvent) error) error {
	silence := keepaliveAfter(h)
	keepalive := time.NewTimer(silence)
	defer keepalive.Stop()

	start := &pb.ProcessEvent{Event: &pb.ProcessEvent_Start{Start: &pb.ProcessEvent_StartEvent{Pid: p.pid}}}
	if err := send(start); err != nil {
		return err
	}
	for {
		var ev *pb.ProcessEvent
		select {
		case <-ctx.Done():
			return ctxError(ctx)
		case <-l.cut:
			return connect.NewError(connect.CodeResourceExhausted, errors.New("the output was not read for too long; connect to the process again to read on"))
		case <-keepalive.C:
			ev = &pb.ProcessEvent{Event: &pb.ProcessEvent_Keepalive{Keepalive: &pb.ProcessEvent_KeepAlive{}}}
		case ev = <-l.events:
		case <-p.hub.done:
			return p.finish(ctx, l, owner, send)
		}
		if err := send(ev); err != nil {
			return err
		}
		keepalive.Reset(silence)
	}
}

// finish sends what l has not heard yet and then the end.
func (p *process) finish(ctx context.Context, l *listener, owner bool, send func(*pb.ProcessEvent) error) error {
	for {
		select {
		case ev := <-l.events:
			if err := send(ev); err != nil {
				return err
			}
			continue
		default:
		}
		break
	}
	select {
	case <-l.cut:
		return connect.NewError(connect.CodeResourceExhausted, errors.New("the end of the output was lost because it was not read for too long"))
	default:
	}
	if owner && p.expired.Load() {
		return connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded)
	}
	if ctx.Err() != nil {
		return ctxError(ctx)
	}
	return send(p.hub.end) // safe to read: done is closed
}

func ctxError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return connect.NewError(connect.CodeDeadlineExceeded, ctx.Err())
	}
	return connect.NewError(connect.CodeCanceled, ctx.Err())
}

// workdir returns the directory a process starts in.
func (s *Service) workdir(u account.User, asked string) (string, error) {
	dir, err := u.Resolve(asked, s.cfg.Settings.Get().Workdir)
	if err != nil {
		return "", connect.NewError(connect.CodeInvalidArgument, err)
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("cwd '%s' does not exist", dir))
	case err != nil:
		return "", connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("cwd '%s' cannot be used", dir))
	case !info.IsDir():
		return "", connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("cwd '%s' is not a directory", dir))
	case !may(u, dir, execute):
		return "", connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("cwd '%s' cannot be entered: permission denied", dir))
	}
	return dir, nil
}
