package envdclient

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"connectrpc.com/connect"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/envd/paths"
	"github.com/cove-sandbox/cove/internal/gen/process"
	"github.com/cove-sandbox/cove/internal/gen/process/processconnect"
)

const (
	// maxEvent bounds one message about a process, in bytes: a piece of output
	// has at most half as many.
	maxEvent = 128 << 10
	// killTime bounds what is done about a process nobody waits for any more.
	killTime = 5 * time.Second
)

// errSilent ends a call to a daemon from which nothing is heard.
var errSilent = errors.New("nothing was heard for too long")

// Command is a program to be run in the sandbox. Its standard input is empty.
type Command struct {
	Args []string          // the program, a path or a name for PATH, and its arguments; required
	Env  map[string]string // on top of the sandbox's own variables
	Dir  string            // empty: the sandbox's default directory
	User string            // a name; empty: the sandbox's default user
	Tag  string            // a name to find the process by; may be empty
	Keep bool              // when the context ends, the process goes on
}

// Exit is how a process ended, as the sandbox says.
type Exit struct {
	Code  int    // -1 after a signal
	Error string // "exit status 3", "signal: killed"; empty after success
}

// Run runs cmd and returns when it has ended and so has its output. What it
// writes is given to said, which may keep it, one piece after the other and
// always by the goroutine that called Run. While said is busy nothing is read
// and the process waits; after some time the daemon gives up.
//
// There is no limit of time besides ctx, but a daemon that says nothing for
// Config.Silence, not even that it lives, is given up. When ctx ends, Run kills
// the process, unless cmd.Keep, and returns an error with the cause; it takes a
// few seconds at the most. The children of the process are left alone.
//
// The error is a *RefusedError if the daemon does not start the process or
// breaks off, and otherwise a *cove.Error: of kind Unavailable, or Unauthorized
// if a token was refused. What was started may then still run. A program that
// does not exist is no error: as with a shell it is an exit with 126 or 127.
func (c *Client) Run(ctx context.Context, cmd Command, said func(stderr bool, text []byte)) (Exit, error) {
	return c.run(ctx, "envdclient.Run", &running{cmd: cmd, said: said})
}

// Begin starts cmd and returns once it runs. It goes on by itself then: nobody
// hears what it writes, or how it ends. When ctx ends before, and for errors, it
// is as with Run.
func (c *Client) Begin(ctx context.Context, cmd Command) error {
	_, err := c.run(ctx, "envdclient.Begin", &running{cmd: cmd, leave: true})
	return err
}

// run is one call of Run or Begin, which have filled in what they want of r.
func (c *Client) run(ctx context.Context, op string, r *running) (Exit, error) {
	if len(r.cmd.Args) == 0 {
		return Exit{}, cove.E(cove.Invalid, op, nil, "there is no program to run")
	}
	if ctx.Err() != nil {
		return Exit{}, ended(op, context.Cause(ctx))
	}
	// Not ctx: its deadline would go along and become the process's own, which
	// may be there to stay; and its end would come before the kill.
	call, hangUp := context.WithCancelCause(context.WithoutCancel(ctx))
	defer hangUp(nil)
	r.client, r.pid, r.over = c, make(chan uint32, 1), make(chan struct{})
	stopped := make(chan struct{}) // closed when all is done that the end of ctx demands
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		if !r.cmd.Keep {
			r.kill(call)
		}
		hangUp(nil)
	})
	exit, err := r.follow(call, hangUp)
	if err != nil || !r.leave { // else it runs, and is what kill waits for
		close(r.over)
	}
	if !stop() {
		<-stopped
		return Exit{}, ended(op, context.Cause(ctx))
	}
	if context.Cause(call) == errSilent {
		return Exit{}, cove.E(cove.Unavailable, op, errSilent, "the sandbox does not answer")
	}
	if errors.Is(err, errNonsense) {
		return Exit{}, cove.E(cove.Unavailable, op, err, "the sandbox gave an answer that makes no sense")
	}
	if err != nil {
		return Exit{}, callError(op, err)
	}
	return exit, nil
}

// A running is one call of Run or Begin.
type running struct {
	client *Client
	cmd    Command
	said   func(stderr bool, text []byte)
	leave  bool          // that it runs is enough; said is nil
	pid    chan uint32   // sent once, if the process starts; never closed
	over   chan struct{} // closed when nothing runs that could be killed, as far as one knows
}

// errNonsense is the error for events that no daemon sends.
var errNonsense = errors.New("the events of a process are not in order")

// follow starts the process and returns how it ended, or only that it runs. The
// error is as it came.
func (r *running) follow(ctx context.Context, hangUp context.CancelCauseFunc) (Exit, error) {
	silence := r.client.cfg.Silence
	timer := time.AfterFunc(silence, func() { hangUp(errSilent) })
	defer timer.Stop()
	stream, err := r.client.process.Start(ctx, r.request())
	if err != nil {
		return Exit{}, err
	}
	defer stream.Close() // of what is left, nothing is read
	for started := false; ; started = true {
		timer.Reset(silence)
		more := stream.Receive()
		timer.Stop()
		if !more {
			if err := stream.Err(); err != nil {
				return Exit{}, err
			}
			return Exit{}, errNonsense // it ended without an end
		}
		event := stream.Msg().GetEvent()
		if start := event.GetStart(); (start != nil) == started {
			return Exit{}, errNonsense
		} else if start != nil {
			r.pid <- start.GetPid()
			if r.leave {
				return Exit{}, nil
			}
		}
		if end := event.GetEnd(); end != nil {
			return Exit{Code: int(end.GetExitCode()), Error: plain(end.GetError())}, nil
		}
		data := event.GetData()
		for _, text := range [][]byte{data.GetStdout(), data.GetPty()} {
			if len(text) > 0 {
				r.said(false, text)
			}
		}
		if text := data.GetStderr(); len(text) > 0 {
			r.said(true, text)
		}
	}
}

func (r *running) request() *connect.Request[process.StartRequest] {
	no := false
	start := &process.StartRequest{
		Process: &process.ProcessConfig{Cmd: r.cmd.Args[0], Args: r.cmd.Args[1:], Envs: r.cmd.Env},
		Stdin:   &no,
	}
	if r.cmd.Dir != "" {
		start.Process.Cwd = &r.cmd.Dir
	}
	if r.cmd.Tag != "" {
		start.Tag = &r.cmd.Tag
	}
	req := connect.NewRequest(start)
	r.identify(req.Header())
	// Often enough that one may be late.
	ping := math.Ceil(r.client.cfg.Silence.Seconds() / 4)
	req.Header().Set("Keepalive-Ping-Interval", strconv.Itoa(int(ping)))
	return req
}

// identify says who calls, and for which user.
func (r *running) identify(h http.Header) {
	if r.cmd.User != "" {
		(&http.Request{Header: h}).SetBasicAuth(r.cmd.User, "")
	}
	if token := r.client.cfg.Token(); token != "" {
		h.Set(paths.TokenHeader, token)
	}
}

// kill kills the process as soon as it is known which one that is. There is
// nobody to tell if that fails.
func (r *running) kill(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	select {
	case pid := <-r.pid:
		req := connect.NewRequest(&process.SendSignalRequest{
			Process: &process.ProcessSelector{Selector: &process.ProcessSelector_Pid{Pid: pid}},
			Signal:  process.Signal_SIGNAL_SIGKILL,
		})
		r.identify(req.Header())
		r.client.process.SendSignal(ctx, req)
	case <-r.over:
	case <-ctx.Done():
	}
}

// newProcessClient returns a client that reads messages up to a limit, and
// nothing that grows when it is unpacked.
func newProcessClient(client *http.Client) processconnect.ProcessClient {
	return processconnect.NewProcessClient(client, "http://envd",
		connect.WithProtoJSON(), connect.WithReadMaxBytes(maxEvent), connect.WithAcceptCompression("gzip", nil, nil))
}
