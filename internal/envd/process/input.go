package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"connectrpc.com/connect"

	pb "github.com/cove-sandbox/cove/internal/gen/process"
)

// An input is where the input of a process is written. Writing waits while the
// process does not read, for as long as the caller does.
type input struct {
	file *os.File      // nil: the process reads the end of its input at once
	pty  bool          // file is a terminal, which is closed with the output
	turn chan struct{} // holds one token; who has it writes or closes
	open bool          // the holder of the token alone touches it
}

func newInput(file *os.File, pty bool) *input {
	in := &input{file: file, pty: pty, turn: make(chan struct{}, 1), open: file != nil}
	in.turn <- struct{}{}
	return in
}

var errStdinClosed = errors.New("stdin not enabled or closed")

func (in *input) take(ctx context.Context) error {
	select {
	case <-in.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (in *input) give() { in.turn <- struct{}{} }

// write writes all of b, or as much as it can until ctx is done.
func (in *input) write(ctx context.Context, b []byte) error {
	if err := in.take(ctx); err != nil {
		return err
	}
	defer in.give()
	if !in.open {
		return errStdinClosed
	}
	stopped := make(chan struct{}) // closed when the deadline is set
	stop := context.AfterFunc(ctx, func() {
		in.file.SetWriteDeadline(time.Unix(1, 0))
		close(stopped)
	})
	_, err := in.file.Write(b)
	if !stop() {
		<-stopped
		in.file.SetWriteDeadline(time.Time{}) // it must not meet the next one
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return ctx.Err()
		}
	}
	if pathErr, ok := errors.AsType[*os.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

// close lets the process read the end of its input.
func (in *input) close(ctx context.Context) error {
	if err := in.take(ctx); err != nil {
		return err
	}
	defer in.give()
	if !in.open {
		return nil
	}
	in.open = false
	return in.file.Close()
}

// shut closes when the process has ended, without waiting for a turn: closing
// is what makes a writer that waits give up.
func (in *input) shut() {
	if in.file != nil && !in.pty {
		in.file.Close() // a second time if CloseStdin was first, which os allows
	}
}

// send writes one piece of input.
func (p *process) send(ctx context.Context, piece *pb.ProcessInput) error {
	switch kind := piece.GetInput().(type) {
	case *pb.ProcessInput_Stdin:
		if p.pty != nil {
			return connect.NewError(connect.CodeInternal, errors.New("error writing to stdin: tty assigned to process"))
		}
		return p.wrote("stdin", p.input.write(ctx, kind.Stdin))
	case *pb.ProcessInput_Pty:
		if p.pty == nil {
			return connect.NewError(connect.CodeInternal, errors.New("error writing to tty: tty not assigned to process"))
		}
		return p.wrote("tty", p.input.write(ctx, kind.Pty))
	}
	return connect.NewError(connect.CodeInvalidArgument, errors.New("input is neither stdin nor pty"))
}

// wrote gives the outcome of a write its code.
func (p *process) wrote(where string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	case errors.Is(err, os.ErrClosed), errors.Is(err, syscall.EIO):
		// The process ended between being found and being written to.
		return connect.NewError(connect.CodeNotFound, fmt.Errorf("process with pid %d not found", p.pid))
	}
	return connect.NewError(connect.CodeInternal, fmt.Errorf("error writing to %s: %w", where, err))
}

// SendInput writes one piece of input.
func (s *Service) SendInput(ctx context.Context, req *connect.Request[pb.SendInputRequest]) (*connect.Response[pb.SendInputResponse], error) {
	if _, err := s.user(req.Header()); err != nil {
		return nil, err
	}
	p, err := s.table.live(req.Msg.GetProcess())
	if err != nil {
		return nil, err
	}
	if err := p.send(ctx, req.Msg.GetInput()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.SendInputResponse{}), nil
}

// StreamInput writes pieces of input to the process that the first message names.
func (s *Service) StreamInput(ctx context.Context, stream *connect.ClientStream[pb.StreamInputRequest]) (*connect.Response[pb.StreamInputResponse], error) {
	if _, err := s.user(stream.RequestHeader()); err != nil {
		return nil, err
	}
	var p *process
	for stream.Receive() {
		switch ev := stream.Msg().GetEvent().(type) {
		case *pb.StreamInputRequest_Start:
			if p != nil {
				return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("only the first message selects the process"))
			}
			found, err := s.table.live(ev.Start.GetProcess())
			if err != nil {
				return nil, err
			}
			p = found
		case *pb.StreamInputRequest_Data:
			if p == nil {
				return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("the first message must select the process"))
			}
			if err := p.send(ctx, ev.Data.GetInput()); err != nil {
				return nil, err
			}
		case *pb.StreamInputRequest_Keepalive:
		default:
			return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("a message has no event"))
		}
	}
	if err := stream.Err(); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return connect.NewResponse(&pb.StreamInputResponse{}), nil
}

// CloseStdin lets the process read the end of its input.
func (s *Service) CloseStdin(ctx context.Context, req *connect.Request[pb.CloseStdinRequest]) (*connect.Response[pb.CloseStdinResponse], error) {
	if _, err := s.user(req.Header()); err != nil {
		return nil, err
	}
	p, err := s.table.live(req.Msg.GetProcess())
	if err != nil {
		return nil, err
	}
	if p.pty != nil {
		return nil, connect.NewError(connect.CodeUnknown, errors.New("cannot close stdin for PTY process — send Ctrl+D (0x04) instead"))
	}
	if err := p.input.close(ctx); err != nil && !errors.Is(err, os.ErrClosed) {
		return nil, p.wrote("stdin", err)
	}
	return connect.NewResponse(&pb.CloseStdinResponse{}), nil
}
