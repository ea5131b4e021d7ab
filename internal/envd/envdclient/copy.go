package envdclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"sync"

	"connectrpc.com/connect"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/envd/paths"
)

// CopyOrder says what of an archive goes where, as COPY of a Dockerfile does.
// Package copying of the daemon knows the rules.
type CopyOrder struct {
	Source  string // as the user wrote it
	Dest    string // as the user wrote it
	Workdir string // what Dest is relative to; empty: /
	User    string // "user" or "user:group", names or numbers; empty: root
	Mode    string // octal permissions of what is copied; empty: as in the archive
	// KeepOwners says that what is copied belongs to whom the archive says, and
	// only what the archive does not have to User.
	KeepOwners bool
}

// Copied is what a copy amounted to, as the sandbox says.
type Copied struct {
	Files int64 `json:"files"` // without directories
	Bytes int64 `json:"bytes"`
}

// Copy copies files from archive, a tar or tar.gz of size bytes with names
// relative to the build context, into the sandbox; a size of -1 is not known.
// Once it has returned, archive is not read any more, but how far it was is
// anybody's guess.
//
// The error is a *RefusedError if the daemon says that it cannot be done, and
// otherwise a *cove.Error of kind Unavailable, or what archive returned.
func (c *Client) Copy(ctx context.Context, order CopyOrder, archive io.Reader, size int64) (Copied, error) {
	const op = "envdclient.Copy"
	query := url.Values{
		"source": {order.Source}, "dest": {order.Dest}, "workdir": {order.Workdir}, "user": {order.User}, "mode": {order.Mode},
	}
	if order.KeepOwners {
		query.Set("owners", "kept")
	}
	call, cancel := context.WithCancel(ctx)
	defer cancel()
	body := &lent{from: archive, over: call.Done()}
	req, err := http.NewRequestWithContext(call, http.MethodPost, "http://envd"+paths.Copy+"?"+query.Encode(), body)
	if err != nil {
		return Copied{}, fmt.Errorf("%s: %w", op, err)
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", "application/x-tar")
	if token := c.cfg.Token(); token != "" {
		req.Header.Set(paths.TokenHeader, token)
	}
	status, answer, err := c.exchange(req)
	cancel() // an answer may come before all is sent, and is then a refusal
	failed := body.returned()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	switch {
	case err != nil && failed != nil:
		return Copied{}, fmt.Errorf("%s: the archive: %w", op, failed)
	case err != nil:
		return Copied{}, cove.E(cove.Unavailable, op, err, "the sandbox does not answer")
	case status != http.StatusOK:
		return Copied{}, copyRefusal(op, status, answer)
	}
	var done Copied
	if err := json.Unmarshal(answer, &done); err != nil || done.Files < 0 || done.Bytes < 0 {
		return Copied{}, cove.E(cove.Unavailable, op, err, "the sandbox gave an answer that makes no sense")
	}
	return done, nil
}

// exchange makes a request and returns status and body of the answer.
func (c *Client) exchange(req *http.Request) (int, []byte, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(answer) > maxAnswer {
		err = errors.New("the answer is too long")
	}
	return resp.StatusCode, answer, err
}

// copyRefusal is what comes of an answer that is no success.
func copyRefusal(op string, status int, answer []byte) error {
	codes := map[int]connect.Code{
		http.StatusBadRequest:          connect.CodeInvalidArgument,
		http.StatusUnauthorized:        connect.CodeUnauthenticated,
		http.StatusForbidden:           connect.CodePermissionDenied,
		http.StatusNotFound:            connect.CodeUnimplemented, // a daemon from before
		http.StatusInternalServerError: connect.CodeInternal,
		http.StatusInsufficientStorage: connect.CodeResourceExhausted,
	}
	var said struct {
		Message string `json:"message"`
	}
	code, known := codes[status]
	if err := json.Unmarshal(answer, &said); err != nil || !known {
		return cove.E(cove.Unavailable, op, fmt.Errorf("status %d", status), "the sandbox refused the request")
	}
	return refusal(code, said.Message)
}

// lent is a reader in the hands of package http, which may go on reading it
// after the answer, and waits for it when a call is cancelled.
type lent struct {
	from io.Reader
	over <-chan struct{} // closed when from is not to be read any more

	mu  sync.Mutex // held while from is read: that is what returned waits for
	err error      // guarded by mu; what from returned, if that was not the end
}

// Read reads, and remembers if that fails.
func (l *lent) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.over:
		return 0, fs.ErrClosed
	default:
	}
	n, err := l.from.Read(p)
	if err != nil && err != io.EOF {
		l.err = err
	}
	return n, err
}

// returned waits until nobody reads any more, once over is closed. It returns
// what reading ended with, if that was not the end.
func (l *lent) returned() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
