package process

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cove-sandbox/cove/internal/envd/reap"
	pb "github.com/cove-sandbox/cove/internal/gen/process"
)

const (
	chunkStd = 32 << 10 // bytes of one piece from a pipe
	chunkPTY = 16 << 10 // bytes of one piece from a terminal

	// leftover bounds what is still read once nobody waits for the end of the
	// output: more than a pipe holds, so nothing written before is lost.
	leftover = 1 << 20
)

// A process is a program that was started, until it is forgotten.
type process struct {
	config *pb.ProcessConfig
	tag    *string
	pid    uint32 // set by the table if there is no real one
	order  uint64 // set by the table
	hub    *hub
	reaper *reap.Reaper

	outputs []output // read until their ends; closed by follow
	pty     *os.File // nil without a terminal; also the only output
	input   *input   // where SendInput writes; never nil

	abandon     chan struct{} // closed when the end of the output is not waited for
	reaped      chan struct{} // closed once the process has ended and been collected
	abandonOnce sync.Once

	deadline *time.Timer // kills; nil without one
	expired  atomic.Bool // the deadline has killed
}

// output is one of the files a process writes to and how its bytes are labelled.
type output struct {
	file *os.File
	size int
	wrap func([]byte) *pb.ProcessEvent
}

func stdoutEvent(b []byte) *pb.ProcessEvent {
	return dataEvent(&pb.ProcessEvent_DataEvent{Output: &pb.ProcessEvent_DataEvent_Stdout{Stdout: b}})
}

func stderrEvent(b []byte) *pb.ProcessEvent {
	return dataEvent(&pb.ProcessEvent_DataEvent{Output: &pb.ProcessEvent_DataEvent_Stderr{Stderr: b}})
}

func ptyEvent(b []byte) *pb.ProcessEvent {
	return dataEvent(&pb.ProcessEvent_DataEvent{Output: &pb.ProcessEvent_DataEvent_Pty{Pty: b}})
}

func dataEvent(d *pb.ProcessEvent_DataEvent) *pb.ProcessEvent {
	return &pb.ProcessEvent{Event: &pb.ProcessEvent_Data{Data: d}}
}

// endEvent describes an end the way package os would.
func endEvent(status syscall.WaitStatus) *pb.ProcessEvent {
	end := &pb.ProcessEvent_EndEvent{ExitCode: -1}
	switch {
	case status.Exited():
		end.ExitCode = int32(status.ExitStatus())
		end.Exited = true
		end.Status = "exit status " + strconv.Itoa(status.ExitStatus())
	case status.Signaled():
		end.Status = "signal: " + status.Signal().String()
		if status.CoreDump() {
			end.Status += " (core dumped)"
		}
	}
	if end.ExitCode != 0 {
		end.Error = &end.Status
	}
	return &pb.ProcessEvent{Event: &pb.ProcessEvent_End{End: end}}
}

// signal signals the process. From then on its end does not wait for the end of
// its output, which its children may hold open for as long as they like.
func (p *process) signal(sig syscall.Signal) error {
	err := p.reaper.Signal(int(p.pid), sig)
	p.abandonOnce.Do(func() { close(p.abandon) })
	return err
}

// expire is what happens at the deadline.
func (p *process) expire() {
	p.expired.Store(true)
	p.signal(syscall.SIGKILL) // that it has just ended is no failure
}

// follow reads the output and announces the end, once the process has ended
// and so has its output. It returns when everything of the process is closed.
func (p *process) follow(status <-chan syscall.WaitStatus) {
	drained := make(chan struct{}) // closed when all outputs are read
	var readers sync.WaitGroup
	for _, out := range p.outputs {
		readers.Go(func() { p.read(out) })
	}
	go func() {
		readers.Wait()
		close(drained)
	}()

	end := <-status
	close(p.reaped)
	// The terminal goes with the process it was opened for, whatever else still
	// holds it: that is what a hang-up is.
	if p.pty == nil {
		select {
		case <-drained:
		case <-p.abandon:
		}
	}
	for _, out := range p.outputs {
		out.file.SetReadDeadline(time.Unix(1, 0)) // fails only if there is nothing to stop
	}
	<-drained
	if p.deadline != nil {
		p.deadline.Stop()
	}
	p.input.shut()
	for _, out := range p.outputs {
		out.file.Close()
	}
	p.hub.finish(endEvent(end))
}

// read passes on what the process writes to out.
func (p *process) read(out output) {
	buf := make([]byte, out.size)
	for {
		n, err := out.file.Read(buf)
		if n > 0 {
			p.hub.send(out.wrap(bytes.Clone(buf[:n])))
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.readLeftover(out, buf)
			return
		}
		if err != nil { // the end: EOF of a pipe, EIO of a terminal
			return
		}
	}
}

// readLeftover passes on what had been written when reading was stopped.
func (p *process) readLeftover(out output, buf []byte) {
	if out.file.SetReadDeadline(time.Time{}) != nil {
		return
	}
	raw, err := out.file.SyscallConn()
	if err != nil {
		return
	}
	for total := 0; total < leftover; {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			n, _ = unix.Read(int(fd), buf) // EAGAIN: there is no more
			return true
		})
		if err != nil || n <= 0 {
			return
		}
		total += n
		p.hub.send(out.wrap(bytes.Clone(buf[:n])))
	}
}
