package builder

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder/plan"
	"github.com/cove-sandbox/cove/internal/id"
	"github.com/cove-sandbox/cove/internal/node"
)

// steps carries out the steps that no earlier build has done, in one sandbox,
// and keeps the result of each.
func (j *job) steps(ctx context.Context) error {
	j.cached(j.done)
	for _, s := range j.plan.Steps[j.done:] {
		number := strconv.Itoa(s.Number)
		j.info(number, "[builder %d/%d] %s", s.Number, len(j.plan.Steps), s.Text())
		if !s.Works() {
			continue
		}
		if err := j.step(ctx, s); err != nil {
			return atStep(number, err)
		}
	}
	return nil
}

// end ends the sandbox that the build works in.
func (j *job) end(ctx context.Context) error {
	sb := j.sb
	j.sb = nil
	return sb.kill(ctx)
}

// step carries out one step and keeps what there is then as a layer.
func (j *job) step(ctx context.Context, s plan.Step) error {
	if j.sb == nil {
		if err := j.work(ctx, j.stepRoot(), j.layer); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, j.t.cfg.StepLimit, context.DeadlineExceeded)
	defer cancel()
	begun := j.t.cfg.Now()
	if err := j.sb.stay(ctx, j.t.cfg.StepLimit); err != nil {
		return err
	}
	if err := j.carryOut(ctx, s); err != nil {
		return inTime(ctx, fmt.Sprintf("step %d, which may take %s", s.Number, j.t.cfg.StepLimit), err)
	}
	took := j.t.cfg.Now().Sub(begun)
	if err := j.keep(ctx, s.Key); err != nil {
		return err
	}
	j.info(strconv.Itoa(s.Number), "[builder %d/%d] done in %s, kept in %s", s.Number, len(j.plan.Steps),
		took.Round(10*time.Millisecond), (j.t.cfg.Now().Sub(begun) - took).Round(10*time.Millisecond))
	return nil
}

// stepRoot returns the root file system that the steps run on.
func (j *job) stepRoot() cove.BuildID {
	if j.layer != nil {
		return j.layer.Root
	}
	return j.base.root
}

// carryOut does what a step says.
func (j *job) carryOut(ctx context.Context, s plan.Step) error {
	number, prefix := strconv.Itoa(s.Number), fmt.Sprintf("[builder %d/%d] ", s.Number, len(j.plan.Steps))
	switch s.Type {
	case cove.RunStep:
		user := s.User
		if len(s.Args) > 1 && s.Args[1] != "" {
			user = s.Args[1]
		}
		c := Command{Args: shell(s.Args[0]), Env: s.Env, Dir: s.Workdir, User: login(user)}
		return j.sb.run(ctx, s.Args[0], c, number, prefix)
	case cove.CopyStep:
		return j.copy(ctx, s)
	case cove.WorkdirStep:
		return j.sb.run(ctx, "mkdir -p "+s.Args[0], Command{Args: []string{"/bin/sh", "-c", workdirScript, "sh", s.Args[0], s.User}, User: "root", Dir: "/"}, number, prefix)
	case cove.UserStep:
		return j.sb.run(ctx, "useradd "+s.Args[0], Command{Args: []string{"/bin/sh", "-c", userScript, "sh", s.Args[0]}, User: "root", Dir: "/"}, number, prefix)
	}
	return fmt.Errorf("a step of the type %q cannot be carried out", s.Type)
}

// workdirScript makes a directory; those that were not there before belong to
// the user.
const workdirScript = `set -e
dir=$1 user=$2 first=
while [ "$dir" != / ] && [ ! -e "$dir" ]; do first=$dir; dir=$(dirname "$dir"); done
[ -z "$first" ] || { mkdir -p "$1"; chown -R "${user%%:*}:" "$first" 2>/dev/null || chown -R "$user" "$first"; }
[ -d "$1" ] || { echo "$1 is not a directory" >&2; exit 1; }
`

// userScript makes a user, unless there is one.
const userScript = `set -e
user=${1%%:*}
case $user in *[!0-9]*) ;; *) exit 0 ;; esac
if id "$user" >/dev/null 2>&1; then exit 0; fi
` + addUser

// addUser adds $user by whatever the image has for it.
const addUser = `shell=/bin/bash
if command -v useradd >/dev/null 2>&1; then
	useradd -m -s "$shell" "$user"
elif command -v adduser >/dev/null 2>&1 && adduser -D -s "$shell" "$user" 2>/dev/null; then
	:
else
	id=1000
	while grep -q "^[^:]*:[^:]*:$id:" /etc/passwd; do id=$((id + 1)); done
	echo "$user:x:$id:$id::/home/$user:$shell" >> /etc/passwd
	echo "$user:x:$id:" >> /etc/group
	[ ! -f /etc/shadow ] || echo "$user:!:19000:0:99999:7:::" >> /etc/shadow
	mkdir -p "/home/$user"
	chown "$id:$id" "/home/$user"
fi
`

// copy carries out a step that copies files.
func (j *job) copy(ctx context.Context, s plan.Step) error {
	archive, size, err := j.t.cfg.Files.Open(ctx, j.Team, s.FilesHash)
	if cove.Is(err, cove.NotFound) {
		return cove.E(cove.Invalid, "builder.copy", err, "the files of COPY %s were not uploaded", s.Args[0])
	}
	if err != nil {
		return err
	}
	defer archive.Close()
	order := CopyOrder{Source: s.Args[0], Dest: s.Args[1], Workdir: s.Dir(), User: s.User}
	if len(s.Args) > 2 && s.Args[2] != "" {
		order.User = s.Args[2]
	}
	if len(s.Args) > 3 {
		order.Mode = s.Args[3]
	}
	if err := j.sb.daemon.Copy(ctx, order, archive, size); err != nil {
		if ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		return cove.E(cove.KindOf(err), "builder.copy", err, "failed to copy '%s' to '%s': %s", order.Source, order.Dest, words(err))
	}
	return nil
}

// keep saves the files of the sandbox that the steps run in as the layer of a
// key, and lets it go on.
func (j *job) keep(ctx context.Context, key string) error {
	snapshot := id.Snapshot()
	defer j.Job.Hold(snapshot)()
	saved, err := j.sb.pause(ctx, node.Save{Snapshot: snapshot, FilesOnly: true})
	if err != nil {
		return err
	}
	layer := cove.Layer{
		Team: j.Team, Key: key, Root: j.stepRoot(), Snapshot: snapshot, Bytes: saved.Bytes, UsedAt: j.t.cfg.Now(),
	}
	if err := j.t.cfg.Records.KeepLayer(ctx, layer); err != nil {
		return errors.Join(err, j.t.cfg.Node.DeleteSnapshot(context.WithoutCancel(ctx), snapshot))
	}
	j.layer = &layer
	return j.t.cfg.Node.Thaw(ctx, j.sb.spec.ID, j.sb.spec.Execution)
}

// readyEvery is how long is waited between two tries of the ready command.
const readyEvery = 250 * time.Millisecond

// waitAlone is the ready command of a start command that has none; the
// reference's.
const waitAlone = "sleep 20"

// start runs the start command in a new sandbox and waits until it is ready.
func (j *job) start(ctx context.Context) error {
	if err := j.work(ctx, j.root, nil); err != nil {
		return err
	}
	setup := j.plan.Setup
	ready := setup.Ready
	if setup.Start != "" && ready == "" {
		ready = waitAlone
	}
	if setup.Start == "" && ready == "" {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, j.t.cfg.ReadyLimit, context.DeadlineExceeded)
	defer cancel()
	ended := make(chan error, 1)
	if setup.Start != "" {
		j.info(cove.FinalStep, "Running start command: %s", oneLine(setup.Start))
		// It lives on in the snapshot; what ends is only listening to it.
		listening, stop := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan struct{})
		go func() {
			defer close(done)
			err := j.sb.run(listening, setup.Start, j.command(setup.Start, true), cove.FinalStep, "[start] ")
			if listening.Err() == nil {
				ended <- err
			}
		}()
		defer func() { stop(); <-done }()
	}
	if ready == "" {
		return nil
	}
	return j.awaitReady(ctx, ready, ended)
}

// command runs text as the build's users will.
func (j *job) command(text string, goesOn bool) Command {
	s := j.plan.Setup
	return Command{Args: shell(text), Env: s.Vars(), Dir: s.Workdir, User: login(s.User), GoesOn: goesOn}
}

// login returns the user of what may have a group behind it: the group of a
// process is its user's.
func login(user string) string {
	name, _, _ := strings.Cut(user, ":")
	return name
}

// awaitReady tries the ready command until it succeeds. That the start command
// has failed ends the waiting.
func (j *job) awaitReady(ctx context.Context, ready string, ended <-chan error) error {
	j.info(cove.FinalStep, "Waiting for template to be ready: %s", oneLine(ready))
	var last error
	for tries := 1; ; tries++ {
		if last = j.try(ctx, ready); last == nil {
			j.info(cove.FinalStep, "Template is ready to be saved (%s)", times(tries))
			return nil
		}
		select {
		case err := <-ended:
			if err != nil {
				return cove.E(cove.KindOf(err), "builder.start", err, "the start command ended before it was ready: %s", said(err))
			}
			ended = nil // it went into the background
		case <-ctx.Done():
			if context.Cause(ctx) != context.DeadlineExceeded {
				return context.Cause(ctx)
			}
			return cove.E(cove.DeadlineExceeded, "builder.start", last,
				"the template was not ready after %s: the ready command '%s' has not succeeded once", j.t.cfg.ReadyLimit, oneLine(ready))
		case <-time.After(readyEvery):
		}
	}
}

// try runs the ready command once. What it prints is for nobody.
func (j *job) try(ctx context.Context, ready string) error {
	code, err := j.sb.daemon.Run(ctx, j.command(ready, false), func(bool, []byte) {})
	return failure(ready, code, err, nil)
}

func times(n int) string {
	if n == 1 {
		return "at the first try"
	}
	return fmt.Sprintf("after %d tries", n)
}

// oneLine shortens a command for a line of a log.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	const most = 200
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}
