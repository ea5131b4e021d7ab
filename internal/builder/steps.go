package builder

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
		j.info(number, "%s %s", s.Label, s.Text())
		if !s.Works() {
			continue
		}
		if err := j.step(ctx, s); err != nil {
			return atStep(number, placed(s.Line, err))
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
	j.stages.keep(s.Key)
	j.info(strconv.Itoa(s.Number), "%s done in %s, kept in %s", s.Label,
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
	number, prefix := strconv.Itoa(s.Number), s.Label+" "
	asRoot := func(name, script string, args ...string) error {
		c := Command{Args: append([]string{"/bin/sh", "-c", script, "sh"}, args...), User: "root", Dir: "/"}
		return j.sb.run(ctx, name, c, number, prefix)
	}
	switch s.Type {
	case cove.RunStep:
		user := s.User
		if len(s.Args) > 1 && s.Args[1] != "" {
			user = s.Args[1]
		}
		env := maps.Clone(s.Env)
		maps.Copy(env, s.Extra)
		c := Command{Args: j.shell(s.Args[0], env), Env: env, Dir: s.Workdir, User: login(user)}
		return j.sb.run(ctx, s.Args[0], c, number, prefix)
	case cove.CopyStep:
		return j.copy(ctx, s)
	case cove.WorkdirStep:
		if j.bare() {
			return j.makeDir(ctx, s)
		}
		return asRoot("mkdir -p "+s.Args[0], workdirScript, s.Args[0], s.User)
	case cove.UserStep:
		if j.bare() {
			return nil
		}
		return asRoot("useradd "+s.Args[0], userScript, s.Args[0])
	}
	return fmt.Errorf("a step of the type %q cannot be carried out", s.Type)
}

// shell returns the command that runs text with variables. A login shell sets a
// PATH of its own, or the image's; one that the build has set instead is set
// again in it.
func (j *job) shell(text string, env map[string]string) []string {
	if path, ok := env["PATH"]; ok && path != j.base.start.Setup.Env["PATH"] {
		text = "export PATH=\"" + quoted(path) + "\"\n" + text
	}
	return shell(text)
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
	env := s.Vars()
	return Command{Args: j.shell(text, env), Env: env, Dir: s.Workdir, User: login(s.User), GoesOn: goesOn}
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
