package control

import (
	"context"
	"sync"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
)

// speakers remembers whose the sandboxes are that have said something, so that
// the records are not read for every line.
type speakers struct {
	mu    sync.Mutex
	teams map[cove.ExecutionID]cove.TeamID // of executions that have not ended; guarded by mu
}

func (s *speakers) team(e cove.ExecutionID) (cove.TeamID, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	team, ok := s.teams[e]
	return team, ok
}

func (s *speakers) add(e cove.ExecutionID, team cove.TeamID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.teams == nil {
		s.teams = map[cove.ExecutionID]cove.TeamID{}
	}
	s.teams[e] = team
}

// forget forgets an execution that has ended: it says no more.
func (s *speakers) forget(e cove.ExecutionID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.teams, e)
}

// said adds a line that a sandbox says to its log. Anybody inside may have said
// it, so it is marked, and is never taken for one of ours.
func (c *Control) said(ctx context.Context, l node.Line) {
	ctx = context.WithoutCancel(ctx)
	team, ok := c.speakers.team(l.Execution)
	if !ok {
		sb, err := c.cfg.Store.SandboxByID(ctx, l.ID)
		if err != nil || sb.Execution != l.Execution {
			return // nobody was told of it, or it has ended
		}
		team = sb.Team
		c.speakers.add(l.Execution, team)
	}
	logger := l.Logger
	if logger == lifecycle || logger == "" {
		logger = sandboxSource
	}
	many := c.journal.addSaid(cove.LogLine{
		Team: team, Sandbox: l.ID, At: l.At, Level: l.Level, Logger: logger, Message: clip(l.Message),
		Fields: map[string]string{"source": sandboxSource, "execution": string(l.Execution)},
	})
	if many {
		// Whoever says a lot waits for it to be written.
		c.settle("logs", c.flushLines(ctx))
	}
}

// sandboxSource marks what is said inside.
const sandboxSource = "sandbox"
