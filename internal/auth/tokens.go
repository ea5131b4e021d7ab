package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
)

// minSecret is the shortest server secret in bytes: 128 bits cannot be guessed.
const minSecret = 16

// Tokens derives the access tokens of sandboxes from the server's secret. A
// token is the same for the whole life of its sandbox, pauses and server
// restarts included, because clients keep the one they got first.
//
// The purposes cannot be confused: a sandbox identifier has no hyphen, so no
// identifier equals another one with a purpose in front.
type Tokens struct {
	secret []byte
	keyID  string
}

// NewTokens returns the Tokens of a secret of at least 16 bytes. keyID names the
// secret, so that it can be told from its successor.
func NewTokens(secret []byte, keyID string) (*Tokens, error) {
	if len(secret) < minSecret {
		return nil, fmt.Errorf("token secret %q has %d bytes, want at least %d", keyID, len(secret), minSecret)
	}
	return &Tokens{secret: append([]byte(nil), secret...), keyID: keyID}, nil
}

// KeyID returns the name of the secret.
func (t *Tokens) KeyID() string { return t.keyID }

// Envd returns the token that opens the daemon of a secured sandbox to clients,
// which send it as X-Access-Token.
func (t *Tokens) Envd(id cove.SandboxID) string { return t.derive(string(id)) }

// Traffic returns the token that opens the ports of a sandbox whose traffic is
// not public, sent as e2b-traffic-access-token.
func (t *Tokens) Traffic(id cove.SandboxID) string { return t.derive("sandbox-traffic-" + string(id)) }

// Control returns the token that opens the internal routes of the daemon in a
// sandbox to this server. It is never given to clients.
func (t *Tokens) Control(id cove.SandboxID) string { return t.derive("cove-control-" + string(id)) }

// Equal reports whether two tokens are the same, in constant time.
func (t *Tokens) Equal(a, b string) bool { return Equal(a, b) }

func (t *Tokens) derive(message string) string {
	mac := hmac.New(sha256.New, t.secret)
	mac.Write([]byte(message))
	return hex.EncodeToString(mac.Sum(nil))
}

// Equal reports whether two tokens are the same, in a time that does not tell
// where they differ. Two empty tokens are not equal: an absent token must not
// match one that was never set.
func Equal(a, b string) bool {
	return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

// Upload returns a token that permits to upload a team's files of a hash until
// some time. It stands in an address, so it is made of what needs no escaping.
func (t *Tokens) Upload(team cove.TeamID, hash string, until time.Time) string {
	payload := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s %s %d", team, hash, until.Unix()))
	return payload + "." + t.derive("cove-upload-"+payload)
}

// Uploader returns what a token of Upload permits, if it is ours and still good.
func (t *Tokens) Uploader(token string, now time.Time) (team cove.TeamID, hash string, ok bool) {
	payload, mac, _ := strings.Cut(token, ".")
	if !Equal(mac, t.derive("cove-upload-"+payload)) {
		return "", "", false
	}
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return "", "", false
	}
	parts := strings.Split(string(raw), " ")
	if len(parts) != 3 {
		return "", "", false
	}
	until, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil || now.Unix() > until {
		return "", "", false
	}
	return cove.TeamID(parts[0]), parts[1], true
}
