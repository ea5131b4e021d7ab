package api

import (
	"fmt"
	"path"
	"strings"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// Limits of what a sandbox carries, in bytes of all names and values together.
// Metadata is read with every list; the environment is copied into every process
// and must stay well below what Linux takes.
const (
	maxMetadata = 64 << 10
	maxEnv      = 256 << 10
	maxTokens   = 5 // of an identity; the reference's limit
)

// The checks below refuse, as Invalid, what cannot be meant.

func checkMetadata(b wire.NewSandbox) error {
	if size(b.Metadata) > maxMetadata {
		return invalid(`"metadata" is larger than %d bytes`, maxMetadata)
	}
	return nil
}

func checkEnv(b wire.NewSandbox) error {
	if size(b.EnvVars) > maxEnv {
		return invalid(`"envVars" is larger than %d bytes`, maxEnv)
	}
	for name, value := range stringsOf(b.EnvVars) {
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00"):
			return invalid(`"envVars" has the name %q: a name must not be empty nor hold '=' or a NUL byte`, clip(name))
		case strings.ContainsRune(value, 0):
			return invalid(`"envVars" has a NUL byte in the value of %q`, clip(name))
		}
	}
	return nil
}

func size(m *wire.Strings) int {
	n := 0
	for k, v := range stringsOf(m) {
		n += len(k) + len(v)
	}
	return n
}

func checkPause(b wire.NewSandbox) error {
	switch {
	case !isFalse(b.AutoPauseMemory):
		return nil
	case !isTrue(b.AutoPause):
		return invalid(`"autoPauseMemory" can be false only if "autoPause" is true`)
	case b.AutoResume != nil && b.AutoResume.Enabled:
		return invalid(`"autoPauseMemory" cannot be false if "autoResume" is enabled: without its memory a sandbox is not woken by traffic`)
	}
	return nil
}

// Limits of onIdle.pauseAfter, in seconds. Less than the least would be two
// measurements.
const (
	minIdle = 10
	maxIdle = 86400
)

func checkIdle(b wire.NewSandbox) error {
	if b.OnIdle != nil && (b.OnIdle.PauseAfter < minIdle || b.OnIdle.PauseAfter > maxIdle) {
		return invalid(`"onIdle.pauseAfter" must be from %d to %d seconds`, minIdle, maxIdle)
	}
	return nil
}

func checkTraffic(b wire.NewSandbox) error {
	if b.Network != nil && isFalse(b.Network.AllowPublicTraffic) && !isTrue(b.Secure) {
		return invalid(`"network.allowPublicTraffic" can be false only if "secure" is true`)
	}
	return nil
}

func checkIAM(b wire.NewSandbox) error {
	if b.Iam == nil {
		return nil
	}
	if len(b.Iam.Tokens) > maxTokens {
		return invalid(`"iam.tokens" has %d tokens; %d are allowed`, len(b.Iam.Tokens), maxTokens)
	}
	for name, token := range b.Iam.Tokens {
		if token.Audience == "" {
			return invalid(`"iam.tokens" needs an "audience" for %q`, clip(name))
		}
		if token.TokenType != "JWT-SVID" {
			return invalid(`"iam.tokens" has an unknown "tokenType" for %q; use "JWT-SVID"`, clip(name))
		}
	}
	return nil
}

func checkMounts(b wire.NewSandbox) error {
	var wrong []string
	seen := make(map[string]bool)
	for i, m := range b.VolumeMounts {
		var why string
		switch {
		case m.Name == "":
			why = "the name is missing"
		case !path.IsAbs(m.Path) || path.Clean(m.Path) != m.Path:
			why = "the path must be absolute and clean"
		case seen[m.Path]:
			why = "the path is used twice"
		}
		seen[m.Path] = true
		if why != "" {
			wrong = append(wrong, fmt.Sprintf("\n\t- volume mount #%d: %s", i, why))
		}
	}
	if wrong == nil {
		return nil
	}
	const most = 10
	if len(wrong) > most {
		wrong = append(wrong[:most], "\n\t- and more")
	}
	return invalid("invalid mounts:%s", strings.Join(wrong, ""))
}

// checkServed refuses, as Unimplemented, fields that ask for what this server
// does not do yet. A field that asks for what happens anyway is fine. So is
// "mcp": the client starts the gateway itself, with a command in the sandbox.
func checkServed(b wire.NewSandbox) error {
	var names []string
	add := func(name string, used bool) {
		if used {
			names = append(names, `"`+name+`"`)
		}
	}
	add("iam", b.Iam != nil && len(b.Iam.Tokens) > 0)
	add("volumeMounts", len(b.VolumeMounts) > 0)
	if n := b.Network; n != nil {
		add("network.allowPublicTraffic", isFalse(n.AllowPublicTraffic))
		add("network.allowOut", len(n.AllowOut) > 0)
		add("network.denyOut", len(n.DenyOut) > 0)
		add("network.dnsServers", len(n.DnsServers) > 0)
		add("network.egressProxy", n.EgressProxy != nil)
		add("network.httpsPorts", len(n.HttpsPorts) > 0)
		add("network.maskRequestHost", n.MaskRequestHost != nil && *n.MaskRequestHost != "")
		add("network.rules", len(n.Rules) > 0)
	}
	if names == nil {
		return nil
	}
	return cove.E(cove.Unimplemented, "api.checkServed", nil,
		"this server does not support %s yet: leave it out", strings.Join(names, ", "))
}

func invalid(format string, args ...any) error {
	return cove.E(cove.Invalid, "api.check", nil, format, args...)
}
