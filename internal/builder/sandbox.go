package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/id"
	"github.com/cove-sandbox/cove/internal/node"
)

// daemonPort is where the daemon in a sandbox listens; the protocol's.
const daemonPort = 49983

// A sandbox is one in which a build works. No record names it: should the server
// die, the next one ends it.
type sandbox struct {
	t      *Templates
	spec   cove.Spec
	daemon Guest
	log    func(level cove.LogLevel, step, message string)
}

// spec describes a sandbox of the build.
func (j *job) spec(root cove.BuildID, snapshot cove.SnapshotID) cove.Spec {
	t := j.t
	return cove.Spec{
		ID: id.Sandbox(), Execution: id.Execution(), Template: j.Build.Template, Build: root, Resources: j.Build.Resources,
		Env: j.base.start.Setup.Env, Token: id.Secret(32), Internet: true, Snapshot: snapshot, User: "root",
		EndAt: t.cfg.Now().Add(t.cfg.StepLimit + t.cfg.ReadyLimit), OnTimeout: cove.KillOnTimeout,
	}
}

// launch starts a sandbox.
func (t *Templates) launch(ctx context.Context, spec cove.Spec, log func(cove.LogLevel, string, string)) (*sandbox, error) {
	if err := t.cfg.Node.Create(ctx, spec); err != nil {
		return nil, err
	}
	return &sandbox{t: t, spec: spec, log: log, daemon: t.cfg.Connect(spec.Token, func(ctx context.Context) (net.Conn, error) {
		return t.cfg.Node.Dial(ctx, spec.ID, daemonPort)
	})}, nil
}

// work starts a sandbox that is ended with the build, or before.
func (j *job) work(ctx context.Context, root cove.BuildID, layer *cove.Layer) error {
	var snapshot cove.SnapshotID
	if layer != nil {
		snapshot = layer.Snapshot
	}
	sb, err := j.t.launch(ctx, j.spec(root, snapshot), j.Log)
	if err != nil {
		return err
	}
	j.sb = sb
	j.undo.Add("sandbox", sb.kill)
	return nil
}

// kill ends the sandbox. It may be repeated.
func (s *sandbox) kill(ctx context.Context) error {
	s.daemon.Close()
	return s.t.cfg.Node.Kill(ctx, s.spec.ID, s.spec.Execution)
}

func (s *sandbox) pause(ctx context.Context, how node.Save) (node.Saved, error) {
	return s.t.cfg.Node.Pause(ctx, s.spec.ID, s.spec.Execution, how)
}

// stay gives the sandbox time for a step.
func (s *sandbox) stay(ctx context.Context, limit time.Duration) error {
	return s.t.cfg.Node.SetEnd(ctx, s.spec.ID, s.spec.Execution, s.t.cfg.Now().Add(limit+time.Minute))
}

// shell returns the command that runs text as the protocol wants it.
func shell(text string) []string { return []string{"/bin/bash", "-l", "-c", text} }

// run runs a command and passes its output on to the build's log, each line
// after prefix. The error says how the command failed, with its last lines.
func (s *sandbox) run(ctx context.Context, name string, c Command, step, prefix string) error {
	out := newLines(func(stderr bool, line string) { s.log(cove.LogInfo, step, prefix+stream(stderr)+line) })
	code, err := s.daemon.Run(ctx, c, out.write)
	out.flush()
	if ctx.Err() != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return failure(name, code, err, out.tail)
}

func stream(stderr bool) string {
	if stderr {
		return "[stderr]: "
	}
	return "[stdout]: "
}

// failure returns what is to be said of a command that has ended; nil if it did
// so well. The first words are the protocol's; clients compare them.
func failure(name string, code int, err error, tail []string) error {
	const op = "builder.run"
	if err != nil {
		return cove.E(cove.KindOf(err), op, err, "failed to run command '%s': command failed: %s", name, words(err))
	}
	if code == 0 {
		return nil
	}
	last := ""
	if len(tail) > 0 {
		last = "\n" + strings.Join(tail, "\n")
	}
	return cove.E(cove.Invalid, op, nil, "failed to run command '%s': exit status %d%s", name, code, last)
}

// words returns what the caller may read of an error of the guest.
func words(err error) string {
	if _, ok := errors.AsType[*cove.Error](err); ok {
		return said(err)
	}
	return err.Error()
}

// escapes are what programs colour and move about with on a terminal.
var escapes = regexp.MustCompile("\x1b(\\[[0-9;?]*[ -/]*[@-~]|\\][^\x07\x1b]*(\x07|\x1b\\\\)|[@-Z\\\\^_])")

// lines cuts output into lines for a log. What is inside may print anything, so
// a line has a greatest length, and control characters are left out.
type lines struct {
	emit    func(stderr bool, line string)
	partial [2][]byte
	tail    []string // the last lines
}

const (
	maxLine  = 4 << 10 // bytes
	maxTail  = 10      // lines
	tailLine = 300     // bytes of each of them
)

func newLines(emit func(stderr bool, line string)) *lines { return &lines{emit: emit} }

func (l *lines) write(stderr bool, text []byte) {
	i := 0
	if stderr {
		i = 1
	}
	l.partial[i] = append(l.partial[i], text...)
	for {
		end := bytes.IndexByte(l.partial[i], '\n')
		switch {
		case end >= 0:
			l.line(stderr, l.partial[i][:end])
			l.partial[i] = l.partial[i][end+1:]
		case len(l.partial[i]) >= maxLine:
			l.line(stderr, l.partial[i][:maxLine])
			l.partial[i] = l.partial[i][maxLine:]
		default:
			l.partial[i] = slices.Clone(l.partial[i])
			return
		}
	}
}

func (l *lines) flush() {
	for i, rest := range l.partial {
		if len(rest) > 0 {
			l.line(i == 1, rest)
		}
		l.partial[i] = nil
	}
}

func (l *lines) line(stderr bool, raw []byte) {
	// Progress bars draw over themselves; the last state is the line.
	raw = bytes.TrimRight(raw, "\r")
	if i := bytes.LastIndexByte(raw, '\r'); i >= 0 {
		raw = raw[i+1:]
	}
	raw = escapes.ReplaceAll(raw, nil)
	text := strings.Map(func(r rune) rune {
		if r == '\t' || r >= ' ' && r != 0x7f {
			return r
		}
		return -1
	}, strings.ToValidUTF8(string(raw), "\uFFFD"))
	l.emit(stderr, text)
	if strings.TrimSpace(text) == "" {
		return
	}
	if len(text) > tailLine {
		text = strings.ToValidUTF8(text[:tailLine], "") + "..."
	}
	if l.tail = append(l.tail, text); len(l.tail) > maxTail {
		l.tail = l.tail[1:]
	}
}

// needs returns the error for a sandbox that has something missing.
func needs(what string, err error) error {
	return cove.E(cove.Invalid, "builder.prepare", err, "the image cannot be used: %s", fmt.Sprintf("%s (%s)", what, words(err)))
}
