package files

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"strconv"

	"github.com/cove-sandbox/cove/internal/envd/paths"
	"github.com/cove-sandbox/cove/internal/envd/reply"
)

// Operation is what a signature allows.
type Operation string

// The operations.
const (
	Read  Operation = "read"
	Write Operation = "write"
)

// Sign returns the signature that lets its holder do op to path. The path and
// the user are as they stand in the query, unresolved; expires is in Unix
// seconds, and nil if the signature does not expire.
func Sign(path string, op Operation, user, token string, expires *int64) string {
	text := path + ":" + string(op) + ":" + user + ":" + token
	if expires != nil {
		text += ":" + strconv.FormatInt(*expires, 10)
	}
	sum := sha256.Sum256([]byte(text))
	return "v1_" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// authorize checks that a request may do op: there is no token, it has the
// token, or it has a signature.
func (h *Handler) authorize(r *http.Request, op Operation) error {
	now := h.cfg.Settings.Get()
	if now.Token == "" {
		return nil
	}
	if token := r.Header.Get(paths.TokenHeader); token != "" {
		if now.Authorized(token) {
			return nil
		}
		return reply.Errorf(http.StatusUnauthorized, "access token present in header but does not match")
	}
	query := r.URL.Query()
	given := query.Get("signature")
	if given == "" {
		return reply.Errorf(http.StatusUnauthorized, "missing signature query parameter")
	}
	var expires *int64
	if query.Has("signature_expiration") {
		at, err := strconv.ParseInt(query.Get("signature_expiration"), 10, 64)
		if err != nil {
			return reply.Errorf(http.StatusBadRequest, "signature_expiration must be a time in Unix seconds")
		}
		expires = &at
	}
	want := Sign(query.Get("path"), op, query.Get("username"), now.Token, expires)
	if subtle.ConstantTimeCompare([]byte(given), []byte(want)) != 1 {
		return reply.Errorf(http.StatusUnauthorized, "invalid signature")
	}
	if expires != nil && *expires < h.cfg.Now().Unix() {
		return reply.Errorf(http.StatusUnauthorized, "signature is already expired")
	}
	return nil
}
