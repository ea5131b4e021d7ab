package soak_test

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed testdata/counter.py
var counter string

// lifetime is that of a sandbox, in seconds: longer than any run.
const lifetime = 7 * 24 * 3600

// An operation is one thing done to a sandbox. Its number is its own, so that
// one that may have happened can be done again.
type operation struct {
	n     int
	kind  string
	twin  *twin // nil: create
	wakes bool  // for create
	count int   // how many sandboxes come of it
	file  string
	data  []byte

	made []*twin // set when it is done, as far as it was acknowledged
	err  error
}

func (o *operation) String() string {
	s := fmt.Sprintf("operation %d: %s", o.n, o.kind)
	if o.file != "" {
		s += " " + o.file
	}
	if o.kind == "write" {
		s += fmt.Sprintf(" (%d bytes)", len(o.data))
	}
	if o.twin != nil {
		s += " " + o.twin.sb.ID
	}
	return s
}

// kinds are the operations. Each changes the twin when the server has
// acknowledged it, and not before.
var kinds = map[string]func(*soak, *operation) error{
	"create":               create,
	"count by a command":   countByCommand,
	"count through a port": countThroughPort,
	"write":                write,
	"read":                 read,
	"extend":               extend,
	"pause":                func(k *soak, o *operation) error { return pause(k, o, true) },
	"pause without memory": func(k *soak, o *operation) error { return pause(k, o, false) },
	"pause by time":        expire,
	"pause a paused one":   pauseAgain,
	"connect":              connect,
	"wake":                 wake,
	"reboot":               reboot,
	"fork":                 fork,
	"snapshot":             snapshot,
	"kill":                 kill,
}

// draw draws an operation for a sandbox. room is how many more there may be.
func (k *soak) draw(w *twin, room int) *operation {
	o := k.number(&operation{twin: w})
	choices := []string{"connect", "connect", "connect", "pause a paused one", "kill"}
	switch {
	case w.state == running:
		choices = []string{
			"count by a command", "count by a command", "count through a port", "write", "write", "read", "extend",
			"pause", "pause", "pause", "pause without memory", "kill",
		}
		if w.wakes {
			choices = append(choices, "pause by time")
		}
		if room > 0 {
			choices = append(choices, "fork", "snapshot")
		}
	case w.state == paused && w.wakes:
		choices = append(choices, "wake", "wake", "reboot")
	case w.state == paused:
		choices = append(choices, "reboot")
	}
	o.kind = choices[k.rng.IntN(len(choices))]
	switch o.kind {
	case "write":
		o.file, o.data = "f"+strconv.Itoa(k.rng.IntN(4)), contentOf(k.rng)
	case "read":
		if names := slices.Sorted(maps.Keys(w.files)); len(names) > 0 {
			o.file = names[k.rng.IntN(len(names))]
		}
	case "fork":
		o.count = 1 + k.rng.IntN(min(2, room))
	case "snapshot":
		o.count = 1
	}
	return o
}

// contentOf draws the content of a file: often small, at times of some size.
func contentOf(rng *rand.Rand) []byte {
	size := rng.IntN(4 << 10)
	if rng.IntN(4) == 0 {
		size = rng.IntN(3 << 20)
	}
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	return data
}

func create(k *soak, o *operation) error {
	label := strconv.Itoa(o.n)
	var answer struct{ SandboxID, EnvdAccessToken string }
	err := k.call(http.MethodPost, "/v2/sandboxes", map[string]any{
		"templateID": "base", "timeout": lifetime, "metadata": map[string]string{"label": label},
		"autoPause": o.wakes, "autoResume": map[string]bool{"enabled": o.wakes},
	}, http.StatusCreated, &answer)
	if err != nil {
		return err
	}
	w := &twin{sb: k.s.Sandbox(answer.SandboxID, answer.EnvdAccessToken), label: label, wakes: o.wakes, count: []int{}, files: map[string]string{}}
	o.made = []*twin{w}
	return k.begin(w)
}

// begin starts the process that counts, unless it runs, and asks for its birth.
func (k *soak) begin(w *twin) error {
	r, err := w.sb.TryRun(k.t, `mkdir -p /w/files && cat > /w/counter.$$ <<'END' && mv /w/counter.$$ /w/counter.py
`+counter+`
END
pgrep -fx 'python3 /w/counter.py' >/dev/null || (setsid python3 /w/counter.py >/dev/null 2>/w/errors </dev/null &)
until (exec 3<>/dev/tcp/127.0.0.1/8080) 2>/dev/null; do sleep 0.05; done`)
	if err == nil && r.Exit != 0 {
		err = fmt.Errorf("starting the process that counts: %+v", r)
	}
	if err != nil {
		return err
	}
	first, err := k.ask(w, "look")
	if err != nil {
		return err
	}
	w.birth, w.boot = first.Birth, first.Boot
	return nil
}

func countByCommand(k *soak, o *operation) error {
	r, err := o.twin.sb.TryRun(k.t, fmt.Sprintf(`exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /count/%d HTTP/1.0\r\n\r\n' >&3 && cat <&3`, o.n))
	if err != nil {
		return err
	}
	if r.Exit != 0 || !strings.Contains(r.Stdout, " 200 OK") {
		return fmt.Errorf("counting: %+v", r)
	}
	o.twin.count = append(o.twin.count, o.n)
	return nil
}

func countThroughPort(k *soak, o *operation) error {
	if _, err := k.ask(o.twin, fmt.Sprintf("count/%d", o.n)); err != nil {
		return err
	}
	o.twin.count = append(o.twin.count, o.n)
	return nil
}

func filePath(name string) string { return "/files?username=root&path=/w/files/" + name }

func write(k *soak, o *operation) error {
	status, content, err := k.request(o.twin, http.MethodPost, "49983", filePath(o.file), bytes.NewReader(o.data))
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("writing: %d %s", status, content)
	}
	o.twin.files[o.file] = sum(o.data)
	return nil
}

func (k *soak) content(w *twin, name string) ([]byte, error) {
	status, content, err := k.request(w, http.MethodGet, "49983", filePath(name), nil)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("reading %s: %d %s", name, status, content)
	}
	return content, err
}

func read(k *soak, o *operation) error {
	if o.file == "" {
		return nil // it has none
	}
	content, err := k.content(o.twin, o.file)
	if err == nil && sum(content) != o.twin.files[o.file] {
		k.t.Errorf("%s: %d bytes that were never written", o, len(content))
	}
	return err
}

func extend(k *soak, o *operation) error {
	return k.call(http.MethodPost, "/v2/sandboxes/"+o.twin.sb.ID+"/connect", map[string]any{"timeout": lifetime}, http.StatusOK, nil)
}

func pause(k *soak, o *operation, memory bool) error {
	err := k.call(http.MethodPost, "/sandboxes/"+o.twin.sb.ID+"/pause", map[string]any{"memory": memory}, http.StatusNoContent, nil)
	if err == nil {
		o.twin.pausedWith(memory)
	}
	return err
}

// pausedWith takes note that a sandbox is paused.
func (w *twin) pausedWith(memory bool) {
	w.state = paused
	if !memory {
		w.state, w.birth, w.boot = filed, "", ""
	}
}

func pauseAgain(k *soak, o *operation) error {
	return k.call(http.MethodPost, "/sandboxes/"+o.twin.sb.ID+"/pause", nil, http.StatusConflict, nil)
}

// expire lets a sandbox's time run out and waits until it is paused.
func expire(k *soak, o *operation) error {
	if err := k.call(http.MethodPost, "/sandboxes/"+o.twin.sb.ID+"/timeout", map[string]any{"timeout": 1}, http.StatusNoContent, nil); err != nil {
		return err
	}
	return k.comesToPause(o.twin)
}

// comesToPause waits until a sandbox whose time is up is paused. It is called
// paused from the moment it cannot be used; that it will stay so is sure once
// another pause is told the result of this one, or that it comes too late.
func (k *soak) comesToPause(w *twin) error {
	for deadline := time.Now().Add(callLimit); time.Now().Before(deadline); <-time.After(50 * time.Millisecond) {
		s, err := k.stateOf(w)
		if err != nil || s == gone {
			return errors.Join(fmt.Errorf("it is %v", s), err)
		}
		if s != paused {
			continue
		}
		joined := k.call(http.MethodPost, "/sandboxes/"+w.sb.ID+"/pause", nil, http.StatusNoContent, nil)
		late := k.call(http.MethodPost, "/sandboxes/"+w.sb.ID+"/pause", nil, http.StatusConflict, nil)
		if late != nil {
			return errors.Join(joined, late)
		}
		w.pausedWith(true)
		return nil
	}
	return errors.New("its time was up and it was not paused")
}

func connect(k *soak, o *operation) error {
	w := o.twin
	var answer struct{ EnvdAccessToken string }
	err := k.call(http.MethodPost, "/v2/sandboxes/"+w.sb.ID+"/connect", map[string]any{"timeout": lifetime}, http.StatusCreated, &answer)
	if err != nil {
		return err
	}
	if answer.EnvdAccessToken != w.sb.Token {
		k.t.Errorf("%s: another token than before", o)
	}
	w.state = running
	if w.birth != "" {
		return nil
	}
	r, err := w.sb.TryRun(k.t, `pgrep -fx 'python3 /w/counter.py' || echo none`)
	if err != nil {
		return err
	}
	if r.Stdout != "none\n" {
		k.t.Errorf("%s: it was paused without memory, and what ran then runs: %+v", o, r)
	}
	return k.begin(w)
}

// reboot resumes a sandbox that was paused with its memory without it.
func reboot(k *soak, o *operation) error {
	w := o.twin
	err := k.call(http.MethodPost, "/v2/sandboxes/"+w.sb.ID+"/connect", map[string]any{"timeout": lifetime, "memory": false}, http.StatusCreated, nil)
	if err != nil {
		return err
	}
	w.state, w.birth, w.boot = running, "", ""
	return k.begin(w)
}

// wake makes a request to a paused sandbox; that resumes it.
func wake(k *soak, o *operation) error {
	if _, err := k.ask(o.twin, "look"); err != nil {
		return err
	}
	o.twin.state = running
	return nil
}

func fork(k *soak, o *operation) error {
	var results []struct {
		Sandbox *struct{ SandboxID, EnvdAccessToken string }
		Error   *struct{ Message string }
	}
	err := k.call(http.MethodPost, "/sandboxes/"+o.twin.sb.ID+"/fork",
		map[string]any{"count": o.count, "timeout": lifetime}, http.StatusCreated, &results)
	if err != nil {
		return err
	}
	if len(results) != o.count {
		return fmt.Errorf("%d copies instead of %d", len(results), o.count)
	}
	for _, r := range results {
		if r.Sandbox == nil {
			err = errors.Join(err, fmt.Errorf("a copy: %v", r.Error))
			continue
		}
		o.made = append(o.made, o.twin.copyAs(k.s.Sandbox(r.Sandbox.SandboxID, r.Sandbox.EnvdAccessToken)))
	}
	return err
}

// snapshot keeps a snapshot, makes a sandbox from it and deletes it.
func snapshot(k *soak, o *operation) error {
	err := k.call(http.MethodPost, "/sandboxes/"+o.twin.sb.ID+"/snapshots", map[string]any{"name": o.snapshot()}, http.StatusCreated, nil)
	if err != nil {
		return err
	}
	var made struct{ SandboxID, EnvdAccessToken string }
	err = k.call(http.MethodPost, "/v2/sandboxes", map[string]any{
		"templateID": o.snapshot(), "timeout": lifetime, "metadata": map[string]string{"label": o.twin.label},
		"autoPause": o.twin.wakes, "autoResume": map[string]bool{"enabled": o.twin.wakes},
	}, http.StatusCreated, &made)
	if err != nil {
		return err
	}
	o.made = append(o.made, o.twin.copyAs(k.s.Sandbox(made.SandboxID, made.EnvdAccessToken)))
	return k.call(http.MethodDelete, "/templates/"+o.snapshot(), nil, http.StatusNoContent, nil)
}

// snapshot is the name of the snapshot that an operation keeps.
func (o *operation) snapshot() string { return "soak-" + strconv.Itoa(o.n) }

func kill(k *soak, o *operation) error {
	err := k.call(http.MethodDelete, "/sandboxes/"+o.twin.sb.ID, nil, http.StatusNoContent, nil)
	if err == nil {
		o.twin.state = gone
	}
	return err
}
