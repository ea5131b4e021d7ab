// Package envdclient is the host's side of the daemon inside a sandbox.
//
// It is not the daemon and does not link it. What answers may be in hostile
// hands, so nothing is believed: answers are read up to a limit and no further.
// The orchestrator and the edge may import it. A Client starts goroutines only
// within package http's transport, which Close ends, and for a command that
// runs, with which they end.
package envdclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/envd/paths"
	"github.com/cove-sandbox/cove/internal/gen/process/processconnect"
)

// maxAnswer bounds what is read of an answer, headers and body alike, in bytes.
const maxAnswer = 64 << 10

// ErrPortClosed says that nobody listens on a port of the sandbox.
var ErrPortClosed = errors.New("port is closed")

// Config is what a Client is made of.
type Config struct {
	// Dial connects to the daemon's port. Required.
	Dial func(ctx context.Context) (net.Conn, error)
	// ControlToken is the secret the daemon was started with.
	ControlToken string
	// Token returns the present access token; empty: the daemon is open. Nil
	// means that it always is.
	Token func() string
	// Silence is how long a daemon may say nothing of a process that it runs,
	// not even that it lives; 0: 2 minutes.
	Silence time.Duration
}

// A Client talks to one daemon. It is safe for concurrent use.
type Client struct {
	cfg  Config
	http *http.Client
	idle func() // closes idle connections

	process processconnect.ProcessClient
}

// New returns a Client; it connects to nothing yet.
func New(cfg Config) *Client {
	if cfg.Token == nil {
		cfg.Token = func() string { return "" }
	}
	if cfg.Silence == 0 {
		cfg.Silence = 2 * time.Minute
	}
	transport := &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return cfg.Dial(ctx) },
		DisableCompression:     true,
		MaxIdleConns:           1,
		IdleConnTimeout:        5 * time.Second,
		MaxResponseHeaderBytes: maxAnswer,
	}
	client := &http.Client{
		Transport: transport,
		// A sandbox must not send its host anywhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &Client{cfg: cfg, http: client, idle: transport.CloseIdleConnections, process: newProcessClient(client)}
}

// Close closes the connections that are not in use.
func (c *Client) Close() { c.idle() }

// Init is what a sandbox is told of itself. Every Init replaces the variables
// and the token; empty User and Workdir leave the ones there are.
type Init struct {
	AccessToken    string            `json:"accessToken,omitempty"` // empty: no token from now on
	EnvVars        map[string]string `json:"envVars,omitempty"`
	Timestamp      time.Time         `json:"timestamp"` // now; an older Init that arrives later is dropped
	DefaultUser    string            `json:"defaultUser,omitempty"`
	DefaultWorkdir string            `json:"defaultWorkdir,omitempty"`

	// Identity after a restore; empty: as it was.
	SandboxID  cove.SandboxID  `json:"sandboxID,omitempty"`
	TemplateID cove.TemplateID `json:"templateID,omitempty"`
}

// Init tells the daemon what its sandbox is. It may be repeated.
func (c *Client) Init(ctx context.Context, init Init) error {
	body, err := json.Marshal(init)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	_, err = c.call(ctx, "envdclient.Init", http.MethodPost, paths.Init, body, http.StatusNoContent)
	return err
}

// Health reports whether the daemon answers.
func (c *Client) Health(ctx context.Context) error {
	_, err := c.call(ctx, "envdclient.Health", http.MethodGet, paths.Health, nil, http.StatusNoContent)
	return err
}

// Metrics is what a sandbox says it uses. It is the sandbox's word: fit to be
// shown to its owner, not to be trusted.
type Metrics struct {
	Timestamp  int64   `json:"ts"` // Unix seconds
	CPUCount   int     `json:"cpu_count"`
	CPUUsedPct float64 `json:"cpu_used_pct"` // of all processors
	MemTotal   uint64  `json:"mem_total"`    // bytes, as all below
	MemUsed    uint64  `json:"mem_used"`
	MemCache   uint64  `json:"mem_cache"`
	DiskUsed   uint64  `json:"disk_used"`
	DiskTotal  uint64  `json:"disk_total"`
}

// Metrics asks the daemon what its sandbox uses.
func (c *Client) Metrics(ctx context.Context) (Metrics, error) {
	const op = "envdclient.Metrics"
	body, err := c.call(ctx, op, http.MethodGet, paths.Metrics, nil, http.StatusOK)
	if err != nil {
		return Metrics{}, err
	}
	var m Metrics
	if err := json.Unmarshal(body, &m); err != nil {
		return Metrics{}, cove.E(cove.Unavailable, op, err, "the sandbox gave an answer that makes no sense")
	}
	return m, nil
}

// call makes a request and returns the body of the answer. The error is a
// *cove.Error of kind Unavailable, or Unauthorized if a token was refused.
func (c *Client) call(ctx context.Context, op, method, path string, body []byte, want int) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://envd"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	req.Header.Set(paths.ControlHeader, c.cfg.ControlToken)
	if token := c.cfg.Token(); token != "" {
		req.Header.Set(paths.TokenHeader, token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	status, answer, err := c.exchange(req)
	if err != nil {
		return nil, cove.E(cove.Unavailable, op, err, "the sandbox does not answer")
	}
	switch status {
	case want:
		return answer, nil
	case http.StatusUnauthorized:
		return nil, cove.E(cove.Unauthorized, op, nil, "the sandbox refused the token")
	}
	return nil, cove.E(cove.Unavailable, op, fmt.Errorf("status %d", status), "the sandbox refused the request")
}
