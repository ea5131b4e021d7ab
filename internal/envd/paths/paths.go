// Package paths is what both sides of a sandbox's wall know about the daemon
// inside: its version, its port and its routes.
//
// It is not the daemon and imports nothing, so that the edge and the host may
// import it without linking the daemon. It starts no goroutines.
package paths

// Version is the version of the protocol that the daemon speaks. Clients switch
// features on by it, so it is the reference's number, not ours.
const Version = "0.6.13"

// Port is where the daemon listens inside a sandbox.
const Port = 49983

// Binary is where the daemon lies inside a sandbox.
const Binary = "/.cove/envd"

// ReadyLine is what the daemon prints, once, when it can be reached.
const ReadyLine = "cove-envd ready " + Version

// ControlHeader carries the secret that the routes for the host ask for.
const ControlHeader = "X-Cove-Control"

// TokenHeader carries the access token of a secured sandbox.
const TokenHeader = "X-Access-Token"

// The routes of the plain HTTP part.
const (
	Health  = "/health"
	Metrics = "/metrics"
	Envs    = "/envs"
	Files   = "/files"
	Compose = "/files/compose"
	Copy    = "/copy"
	Init    = "/init"
	Connect = "/connect"
	Journal = "/journal"
)

// TunnelProtocol is what a connection is upgraded to by Connect.
const TunnelProtocol = "cove-tcp"

// InternalPaths returns the routes that are for the host alone. The edge
// refuses them from outside; they are marked x-internal in spec/envd.yaml.
func InternalPaths() []string { return []string{Connect, Init, Journal} }
