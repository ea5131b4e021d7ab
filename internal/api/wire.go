package api

import (
	"cmp"
	"maps"
	"time"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// clientID is said of every sandbox: clients demand the field and do nothing
// with it. The value is the reference's.
const clientID = "6532622b"

// toSandbox says how to use sb.
func (s *server) toSandbox(sb cove.Sandbox) wire.Sandbox {
	return wire.Sandbox{
		TemplateID:      string(sb.Template),
		SandboxID:       string(sb.ID),
		ClientID:        clientID,
		Alias:           optional(sb.Alias),
		EnvdVersion:     s.envdOf(sb),
		EnvdAccessToken: s.tokenOf(sb),
	}
}

// toDetail says everything about sb.
func (s *server) toDetail(sb cove.Sandbox) wire.SandboxDetail {
	return wire.SandboxDetail{
		TemplateID:          string(sb.Template),
		SandboxID:           string(sb.ID),
		ClientID:            clientID,
		Alias:               optional(sb.Alias),
		StartedAt:           sb.StartedAt.UTC(),
		EndAt:               sb.EndAt.UTC(),
		EnvdVersion:         s.envdOf(sb),
		EnvdAccessToken:     s.tokenOf(sb),
		AllowInternetAccess: sb.Internet,
		CpuCount:            int32(sb.Resources.CPUs),
		MemoryMB:            int32(sb.Resources.MemoryMB),
		DiskSizeMB:          int32(sb.Resources.DiskMB),
		State:               stateOf(sb),
		PauseMode:           pauseModeOf(sb),
		Metadata:            metadataOf(sb),
		Lifecycle:           lifecycleOf(sb),

		EnvdUnresponsiveAtPause: unresponsiveOf(sb),
	}
}

// pauseModeOf says what was saved of a sandbox whose pause is over.
func pauseModeOf(sb cove.Sandbox) *wire.PauseMode {
	switch {
	case sb.State != cove.Paused:
		return nil
	case sb.FilesOnly:
		return new(wire.Filesystem)
	default:
		return new(wire.Full)
	}
}

func unresponsiveOf(sb cove.Sandbox) *bool {
	if sb.State != cove.Paused || !sb.Unresponsive {
		return nil
	}
	return new(true)
}

// toList returns list items; never nil, which would not be a list on the wire.
func (s *server) toList(sandboxes []cove.Sandbox) []wire.ListedSandbox {
	items := make([]wire.ListedSandbox, 0, len(sandboxes))
	for _, sb := range sandboxes {
		items = append(items, wire.ListedSandbox{
			TemplateID:  string(sb.Template),
			SandboxID:   string(sb.ID),
			ClientID:    clientID,
			Alias:       optional(sb.Alias),
			StartedAt:   sb.StartedAt.UTC(),
			EndAt:       sb.EndAt.UTC(),
			CpuCount:    int32(sb.Resources.CPUs),
			MemoryMB:    int32(sb.Resources.MemoryMB),
			DiskSizeMB:  int32(sb.Resources.DiskMB),
			State:       stateOf(sb),
			EnvdVersion: s.envdOf(sb),
			Metadata:    metadataOf(sb),
		})
	}
	return items
}

// stateOf says a state in the wire's two words: what is on its way into or out
// of a snapshot cannot be used, and so is paused.
func stateOf(sb cove.Sandbox) wire.State {
	if sb.State == cove.Running {
		return wire.Running
	}
	return wire.Paused
}

func lifecycleOf(sb cove.Sandbox) wire.Lifecycle {
	l := wire.Lifecycle{AutoResume: sb.Lifecycle.AutoResume, OnTimeout: wire.Kill}
	if sb.Lifecycle.OnTimeout == cove.PauseOnTimeout {
		l.OnTimeout = wire.Pause
	}
	if after := sb.Lifecycle.IdleAfter; after > 0 {
		l.OnIdle = &wire.OnIdle{PauseAfter: int32(after / time.Second)}
	}
	return l
}

// tokenOf returns the token of a secured sandbox.
func (s *server) tokenOf(sb cove.Sandbox) *string {
	if !sb.Secure {
		return nil
	}
	return new(s.tokens.Envd(sb.ID))
}

func (s *server) envdOf(sb cove.Sandbox) string { return s.envdVersionOf(sb.Envd) }

// envdVersionOf returns what a record says of its daemon; this server's, if it
// does not tell.
func (s *server) envdVersionOf(recorded string) string { return cmp.Or(recorded, s.envdVersion) }

func metadataOf(sb cove.Sandbox) wire.Strings {
	if sb.Metadata == nil {
		return wire.Strings{}
	}
	return maps.Clone(sb.Metadata)
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
