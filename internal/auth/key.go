package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/id"
)

const (
	keyPrefix = "e2b_" // the official clients refuse any other
	keyBytes  = 20
)

// NewKey makes an API key: "e2b_" and 20 random bytes in lower-case
// hexadecimal, a form the official clients check for. The plain key is nowhere
// else: show it once, and store the record.
func NewKey(team cove.TeamID, name string, now time.Time) (plain string, record cove.Key) {
	plain = keyPrefix + id.Secret(keyBytes)
	return plain, RecordOf(plain, team, name, now)
}

// RecordOf returns the record of a key that was chosen elsewhere, by an operator
// for example.
func RecordOf(plain string, team cove.TeamID, name string, now time.Time) cove.Key {
	return cove.Key{
		ID:        id.UUID(),
		Team:      team,
		Name:      name,
		Hash:      HashKey(plain),
		Mask:      MaskKey(plain),
		CreatedAt: now.UTC(),
	}
}

// HashKey returns the form in which a key is stored and looked up:
// "$sha256$" and the unpadded base64 of the SHA-256 of the key's 20 bytes, or of
// the whole string if it is not a key NewKey could have made. It needs no salt,
// because a key is random and too long to guess.
func HashKey(plain string) string {
	secret := []byte(plain)
	if raw, ok := keySecret(plain); ok {
		secret = raw
	}
	sum := sha256.Sum256(secret)
	return "$sha256$" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// keySecret returns the random bytes of a key in the official form.
func keySecret(plain string) ([]byte, bool) {
	digits, ok := strings.CutPrefix(plain, keyPrefix)
	if !ok || len(digits) != hex.EncodedLen(keyBytes) || strings.ToLower(digits) != digits {
		return nil, false
	}
	raw, err := hex.DecodeString(digits)
	return raw, err == nil
}

// MaskKey returns enough of a key to recognise it by and too little to use it:
// the prefix, two characters, stars, and the last four. A key that is too short
// for that is all stars.
func MaskKey(plain string) string {
	const head, tail, hidden = len(keyPrefix) + 2, 4, 8
	if len(plain) < head+tail+hidden {
		return strings.Repeat("*", hidden)
	}
	return plain[:head] + strings.Repeat("*", hidden) + plain[len(plain)-tail:]
}
