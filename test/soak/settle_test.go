package soak_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"

	"github.com/google/go-cmp/cmp"
)

// settle finds out what became of operations that the server did not
// acknowledge before it died. Each happened or did not happen; what can be done
// again is done again, so that the model is sure afterwards.
func (k *soak) settle(ops []*operation) {
	for _, o := range ops {
		for _, w := range o.made {
			if w.birth == "" { // acknowledged, but not yet begun
				k.must(o, k.begin(w))
			}
		}
		if o.err == nil || o.twin == nil {
			continue
		}
		s, err := k.stateOf(o.twin)
		if err != nil {
			k.t.Errorf("%s: %v", o, err)
			return
		}
		k.t.Logf("%s: it was %v, it is %v", o, o.twin.state, s)
		k.settleOne(o, s)
	}
	k.strangers(ops)
}

func (k *soak) must(o *operation, err error) {
	k.t.Helper()
	if err != nil {
		k.t.Errorf("%s, after the crash: %v", o, err)
	}
}

// settleOne settles one operation on a sandbox of which the server says s.
func (k *soak) settleOne(o *operation, s state) {
	w := o.twin
	switch {
	case o.kind == "kill":
		if s == gone {
			w.state = gone
			return
		}
		k.check(w) // it is as it was
		k.must(o, kill(k, o))
		return
	case s == gone:
		k.t.Errorf("%s: the sandbox is lost", o)
		return
	}
	switch o.kind {
	case "count by a command", "count through a port":
		k.settleCount(o)
	case "write":
		k.settleWrite(o)
	case "pause", "pause without memory":
		if s == paused {
			w.pausedWith(o.kind == "pause")
		}
	case "pause by time":
		k.settleExpire(o, s)
	case "snapshot":
		k.settleSnapshot(o)
	case "reboot":
		if s == running {
			w.state, w.birth, w.boot = running, "", ""
			k.must(o, k.begin(w))
		}
	case "connect", "wake":
		if s == running {
			w.state = running
		}
		if w.state == running && w.birth == "" { // resumed without memory
			k.must(o, k.begin(w))
		}
	}
}

// settleCount demands that memory and disk agree on whether the number was
// counted, and counts it if it was not.
func (k *soak) settleCount(o *operation) {
	w := o.twin
	with := slices.Concat(w.count, []int{o.n})
	r, err := k.ask(w, "look")
	if err != nil {
		k.t.Errorf("%s: %v", o, err)
		return
	}
	if !slices.Equal(r.Memory, r.Disk) || (!slices.Equal(r.Memory, w.count) && !slices.Equal(r.Memory, with)) {
		k.t.Errorf("%s: memory %v and disk %v, want %v or %v", o, r.Memory, r.Disk, w.count, with)
	}
	k.must(o, countThroughPort(k, o))
}

// settleWrite demands the old content or the beginning of the new one: an upload
// goes straight into the file, as the protocol's reference does it.
func (k *soak) settleWrite(o *operation) {
	w := o.twin
	r, err := k.ask(w, "look")
	if err != nil {
		k.t.Errorf("%s: %v", o, err)
		return
	}
	old, now := w.files[o.file], r.Files[o.file]
	if now != old {
		content, err := k.content(w, o.file)
		if err != nil || !bytes.HasPrefix(o.data, content) {
			k.t.Errorf("%s: %d bytes that are neither the old nor of the new content: %v", o, len(content), err)
		}
	}
	k.must(o, write(k, o))
}

// settleSnapshot deletes a snapshot that may have been kept, or deleted already.
func (k *soak) settleSnapshot(o *operation) {
	kept := k.call(http.MethodDelete, "/templates/"+o.snapshot(), nil, http.StatusNoContent, nil)
	if kept == nil {
		return
	}
	k.must(o, k.call(http.MethodDelete, "/templates/"+o.snapshot(), nil, http.StatusNotFound, nil))
}

// settleExpire brings it to its end: the time may have been set or not, and the
// sandbox may be paused any moment.
func (k *soak) settleExpire(o *operation, s state) {
	w := o.twin
	if s == running {
		err := k.call(http.MethodPost, "/sandboxes/"+w.sb.ID+"/timeout", map[string]any{"timeout": 0}, http.StatusNoContent, nil)
		k.t.Logf("%s, again: %v", o, errorOr(err, "done")) // refused if it is being paused
	}
	k.must(o, k.comesToPause(w))
}

// strangers finds sandboxes that were created and whose creator was not told,
// and takes them over. They must come from what was under way.
func (k *soak) strangers(ops []*operation) {
	for _, l := range k.list() {
		if slices.ContainsFunc(k.twins, func(w *twin) bool { return w.sb.ID == l.SandboxID }) {
			continue
		}
		i := slices.IndexFunc(ops, func(o *operation) bool { return o.err != nil && len(o.made) < o.count && o.explains(l) })
		if i < 0 {
			k.t.Errorf("a sandbox that nobody created: %+v", l)
			continue
		}
		o := ops[i]
		w, err := k.takeOver(o, l)
		if err != nil {
			k.t.Errorf("%s: %s, which nobody was told of: %v", o, l.SandboxID, err)
			continue
		}
		k.t.Logf("%s: it made %s", o, w)
		o.made = append(o.made, w)
		k.twins = append(k.twins, w)
	}
}

// explains says whether a sandbox may come of an operation.
func (o *operation) explains(l listed) bool {
	switch o.kind {
	case "create":
		return l.Metadata["label"] == fmt.Sprint(o.n)
	case "fork", "snapshot":
		return l.Metadata["label"] == o.twin.label
	}
	return false
}

func (k *soak) takeOver(o *operation, l listed) (*twin, error) {
	var answer struct{ EnvdAccessToken string }
	err := k.call(http.MethodPost, "/v2/sandboxes/"+l.SandboxID+"/connect", map[string]any{"timeout": lifetime}, http.StatusOK, &answer)
	if err != nil {
		return nil, err
	}
	sb := k.s.Sandbox(l.SandboxID, answer.EnvdAccessToken)
	if o.kind == "create" {
		w := &twin{sb: sb, label: l.Metadata["label"], wakes: o.wakes, count: []int{}, files: map[string]string{}}
		return w, k.begin(w)
	}
	w := o.twin.copyAs(sb)
	r, err := k.ask(w, "look")
	if diff := cmp.Diff(w.want(), r); err == nil && diff != "" {
		err = fmt.Errorf("it is not as its origin (-want +got):\n%s", diff)
	}
	return w, err
}
