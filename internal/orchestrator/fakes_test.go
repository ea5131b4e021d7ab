package orchestrator_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/orchestrator"
	"github.com/cove-sandbox/cove/internal/runtime"
	"github.com/cove-sandbox/cove/internal/runtime/runtimetest"
)

var errBroken = errors.New("broken on purpose")

// machine is a host made of fakes. Several orchestrators may come and go on it.
type machine struct {
	dir  string
	host *runtimetest.Host

	mu     sync.Mutex
	broken string // name of the part that fails; guarded by mu
	slots  map[int]bool
	groups map[cove.SandboxID]bool
	next   int
	memory int64           // what each sandbox uses
	mute   bool            // no daemon answers
	hang   chan struct{}   // not nil: a dial announces itself here and waits for its context
	local  map[uint16]bool // ports open on the sandbox's localhost
	open   map[uint16]bool // ports open on its address
	peers  []net.Conn      // the sandbox's ends of connections
	stock  []orchestrator.Item
	balk   int                         // how often a slot cannot be adopted yet
	heard  []*listening                // every time somebody began to listen
	tooOld bool                        // the daemons have no journal
	begun  []string                    // start commands
	begin  func(context.Context) error // not nil: what beginning one comes to
}

func newMachine(t *testing.T) *machine {
	return &machine{
		dir: filepath.Join(t.TempDir(), "sandboxes"), host: runtimetest.NewHost(),
		slots: map[int]bool{}, groups: map[cove.SandboxID]bool{}, open: map[uint16]bool{49983: true}, local: map[uint16]bool{},
	}
}

func (m *machine) fails(part string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken == part {
		return errBroken
	}
	return nil
}

// left lists what the machine holds.
func (m *machine) left(t *testing.T, id cove.SandboxID) []string {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	var left []string
	if len(m.slots) > 0 {
		left = append(left, "slot")
	}
	if len(m.groups) > 0 {
		left = append(left, "cgroup")
	}
	if m.host.Running(string(id)) > 0 {
		left = append(left, "process")
	}
	if _, err := os.Stat(filepath.Join(m.dir, string(id))); err == nil {
		left = append(left, "directory")
	}
	return left
}

func (m *machine) orchestrator(t *testing.T, change func(*orchestrator.Config)) *orchestrator.Orchestrator {
	t.Helper()
	cfg := orchestrator.Config{
		Dir: m.dir, Snapshots: m.dir + "-snapshots", Network: (*network)(m), Cgroups: (*cgroups)(m), Images: (*images)(m), Daemon: (*daemon)(m), Stock: (*stock)(m),
		Runtime: &runtimetest.Fake{Host: m.host, Fail: func(runtime.Spec) error { return m.fails("runtime") }},
		Log:     slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	o, err := orchestrator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

type network machine

func (n *network) Acquire(_ context.Context, _ bool) (orchestrator.Slot, error) {
	if err := (*machine)(n).fails("network"); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	n.slots[n.next] = true
	return &slot{n, n.next}, nil
}

func (n *network) Adopt(_ context.Context, index int, _ bool) (orchestrator.Slot, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.balk > 0 {
		n.balk--
		return nil, cove.E(cove.Conflict, "test", nil, "the slot is in use")
	}
	if !n.slots[index] {
		return nil, cove.E(cove.NotFound, "test", nil, "no such slot")
	}
	return &slot{n, index}, nil
}

func (n *network) Sweep(_ context.Context, keep map[int]bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for index := range n.slots {
		if !keep[index] {
			delete(n.slots, index)
		}
	}
	return nil
}

type slot struct {
	n     *network
	index int
}

func (s *slot) Index() int               { return s.index }
func (s *slot) Runtime() runtime.Network { return runtime.Network{NetNS: "netns"} }

func (s *slot) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	if s.n.hang != nil {
		s.n.hang <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	if !s.n.open[port] {
		return nil, syscall.ECONNREFUSED
	}
	here, there := net.Pipe()
	s.n.peers = append(s.n.peers, there)
	return here, nil
}

func (s *slot) Release(context.Context) error {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	delete(s.n.slots, s.index)
	return nil
}

type cgroups machine

func (c *cgroups) Create(_ context.Context, id cove.SandboxID, _ cove.Resources) ([]string, error) {
	c.mu.Lock()
	c.groups[id] = true // even a failing one may have made something
	c.mu.Unlock()
	return []string{"group"}, (*machine)(c).fails("cgroup")
}

func (c *cgroups) Memory(context.Context, cove.SandboxID) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.memory, nil
}

func (c *cgroups) Load(_ context.Context, id cove.SandboxID) (orchestrator.Load, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.groups[id] || c.broken == "load" {
		return orchestrator.Load{}, errBroken
	}
	return orchestrator.Load{CPU: 3 * time.Second, Cache: 5}, nil
}

func (c *cgroups) Remove(_ context.Context, id cove.SandboxID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.groups, id)
	return nil
}

func (c *cgroups) List(context.Context) ([]cove.SandboxID, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.groups)), nil
}

type images machine

func (i *images) Root(context.Context, cove.BuildID) (string, error) {
	return "root.erofs", (*machine)(i).fails("images")
}

func (i *images) Tools(context.Context, string) (runtime.Image, error) {
	return runtime.Image{Source: "tools.erofs", Destination: "/.cove"}, nil
}

type daemon machine

func (d *daemon) Command(cove.Spec, netip.Addr) (args, env []string) {
	return []string{"/.cove/envd"}, nil
}

func (d *daemon) Init(_ context.Context, _ cove.SandboxID, _ cove.Spec, _ orchestrator.DialFunc) error {
	return (*machine)(d).fails("identity")
}

func (d *daemon) Begin(ctx context.Context, spec cove.Spec, _ orchestrator.DialFunc) error {
	if d.begin != nil {
		return d.begin(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begun = append(d.begun, spec.Start.Command)
	return nil
}

func (d *daemon) Health(context.Context, orchestrator.DialFunc) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mute {
		return errBroken
	}
	return nil
}

func (d *daemon) Connect(_ context.Context, _ cove.SandboxID, _ orchestrator.DialFunc, port uint16) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.local[port] {
		return nil, node.ErrPortClosed
	}
	here, there := net.Pipe()
	d.peers = append(d.peers, there)
	return here, nil
}

// A listening is one call of Listen.
type listening struct {
	identity cove.SandboxID
	after    int64
	lines    chan orchestrator.Said
	broken   chan struct{} // closed to break it off
	over     chan struct{} // closed when it has returned
}

func (d *daemon) Listen(ctx context.Context, identity cove.SandboxID, _ orchestrator.DialFunc, after int64, said func(orchestrator.Said) bool) error {
	l := &listening{identity, after, make(chan orchestrator.Said), make(chan struct{}), make(chan struct{})}
	defer close(l.over)
	d.mu.Lock()
	d.heard = append(d.heard, l)
	tooOld := d.tooOld
	d.mu.Unlock()
	if tooOld {
		return cove.E(cove.Unimplemented, "test", nil, "no journal")
	}
	if !said(orchestrator.Said{Seq: max(after, 0)}) {
		return nil
	}
	for {
		select {
		case line := <-l.lines:
			if !said(line) {
				return nil
			}
		case <-l.broken:
			return errBroken
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// listenings returns how often somebody began to listen.
func (m *machine) listenings() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.heard)
}

// listening returns the nth time that somebody began to listen, from 0 on, once
// it has come.
func (m *machine) listening(t *testing.T, n int) *listening {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for tick := time.NewTicker(time.Millisecond); ; {
		m.mu.Lock()
		if len(m.heard) > n {
			defer m.mu.Unlock()
			return m.heard[n]
		}
		m.mu.Unlock()
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("nobody began to listen for time %d", n)
		}
	}
}

func (d *daemon) ReadyLine() string {
	if (*machine)(d).fails("daemon") != nil {
		return "a line that never comes"
	}
	return "ready"
}

func (d *daemon) Port() uint16 { return 49983 }

type stock machine

func (s *stock) List(context.Context) ([]orchestrator.Item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.stock), nil
}

func (s *stock) KeepEngine(context.Context, string) error { return (*machine)(s).fails("engine") }

func (s *stock) Remove(_ context.Context, item orchestrator.Item) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stock = slices.DeleteFunc(s.stock, func(i orchestrator.Item) bool { return i == item })
	return nil
}
