package control

import (
	"cmp"
	"context"
	"fmt"
	"unicode/utf8"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
)

// lifecycle is who says what becomes of a sandbox.
const lifecycle = "lifecycle"

// note adds a line to a sandbox's log. event names what happened for programs;
// message is for people.
func (c *Control) note(sb cove.Sandbox, level cove.LogLevel, event, message string) {
	c.journal.addLine(cove.LogLine{
		Team: sb.Team, Sandbox: sb.ID, At: c.cfg.Now(), Level: level, Logger: lifecycle, Message: clip(message),
		Fields: map[string]string{"event": event, "execution": string(sb.Execution)},
	})
}

// clip shortens a message to what a line may hold.
func clip(message string) string {
	if len(message) <= maxLine {
		return message
	}
	cut := maxLine
	for cut > 0 && !utf8.RuneStart(message[cut]) {
		cut--
	}
	return message[:cut]
}

func (c *Control) noteCreated(sb cove.Sandbox) {
	c.note(sb, cove.LogInfo, "created", fmt.Sprintf("the sandbox was created from the template %q and runs", cmp.Or(sb.Alias, string(sb.Template))))
}

func (c *Control) notePaused(sb cove.Sandbox) {
	message := "the sandbox was paused, with its memory"
	if sb.FilesOnly {
		message = "the sandbox was paused, its files only"
	}
	c.note(sb, cove.LogInfo, "paused", message)
}

func (c *Control) noteForked(origin, made cove.Sandbox) {
	c.note(origin, cove.LogInfo, "forked", fmt.Sprintf("the sandbox was copied to %s and runs on", made.ID))
	c.note(made, cove.LogInfo, "created", fmt.Sprintf("the sandbox was created as a copy of %s and runs", origin.ID))
}

func (c *Control) noteKept(sb cove.Sandbox, n cove.NamedSnapshot) {
	c.note(sb, cove.LogInfo, "snapshot", fmt.Sprintf("a snapshot of the sandbox was made and is kept as %s:%s", n.Template.Alias, n.Tag))
}

func (c *Control) noteExpired(sb cove.Sandbox) {
	c.note(sb, cove.LogInfo, "expired", "the sandbox's time was up, and it was ended")
}

func (c *Control) noteKilled(sb cove.Sandbox) {
	c.note(sb, cove.LogInfo, "killed", "the sandbox was ended, as somebody asked")
}

// noteEnd notes why a sandbox ended by itself. One that nobody was told of yet
// has no log.
func (c *Control) noteEnd(ctx context.Context, e node.Event) {
	sb, err := c.cfg.Store.SandboxByID(context.WithoutCancel(ctx), e.ID)
	if err != nil || sb.Execution != e.Execution || sb.State == cove.Starting || sb.State == cove.Killing {
		return
	}
	switch {
	case e.What == node.Expired:
		c.noteExpired(sb)
	case e.Reason != "":
		c.note(sb, cove.LogError, "crashed", "the sandbox ended by itself, and its engine said: "+e.Reason)
	default:
		c.note(sb, cove.LogError, "crashed", "the sandbox ended by itself")
	}
}

// noteLost notes why a sandbox is not there any more after the server was
// restarted.
func (c *Control) noteLost(sb cove.Sandbox) {
	switch sb.State {
	case cove.Starting: // nobody was told of it
	case cove.Killing:
		c.noteKilled(sb)
	default:
		if !sb.EndAt.After(c.cfg.Now()) && sb.Lifecycle.OnTimeout != cove.PauseOnTimeout {
			c.noteExpired(sb)
			return
		}
		c.note(sb, cove.LogError, "lost", "the sandbox ended while the server was down, or its host was")
	}
}
