package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// Operation is what a signed file URL allows.
type Operation string

// The operations.
const (
	ReadFile  Operation = "read"
	WriteFile Operation = "write"
)

// FileURL is what the signature of a file URL covers.
type FileURL struct {
	Path      string // as in the query, neither cleaned nor resolved
	Operation Operation
	User      string // as in the query; empty if it was not there
	// Expires is the end in Unix seconds; nil: never. The query's
	// signature_expiration.
	Expires *int64
}

// Sign returns the signature of u under a sandbox's access token: "v1_" and the
// unpadded base64, in the standard alphabet, of the SHA-256 of path, operation,
// user, token and, if there is one, the end, with colons between them.
func (u FileURL) Sign(token string) string {
	raw := u.Path + ":" + string(u.Operation) + ":" + u.User + ":" + token
	if u.Expires != nil {
		raw += ":" + strconv.FormatInt(*u.Expires, 10)
	}
	sum := sha256.Sum256([]byte(raw))
	return "v1_" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// Verify checks a signature of u at the given time. The errors are Unauthorized;
// their words are part of the protocol.
func (u FileURL) Verify(token, signature string, now time.Time) error {
	const op = "auth.FileURL.Verify"
	switch {
	case signature == "":
		return cove.E(cove.Unauthorized, op, nil, "missing signature query parameter")
	case token == "" || !Equal(u.Sign(token), signature):
		return cove.E(cove.Unauthorized, op, nil, "invalid signature")
	case u.Expires != nil && *u.Expires < now.Unix():
		return cove.E(cove.Unauthorized, op, nil, "signature is already expired")
	}
	return nil
}
