// Package id makes identifiers and keys from the system's randomness.
//
// It holds no state and starts no goroutines. Every package of the module may
// import it.
package id

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"

	cove "github.com/cove-sandbox/cove"
)

const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"

// chars returns n characters of the alphabet, all equally likely.
func chars(n int) string {
	out := make([]byte, 0, n)
	buf := make([]byte, 2*n)
	for len(out) < n {
		rand.Read(buf) // never fails
		for _, b := range buf {
			// 252 is the largest multiple of 36 a byte can count to.
			if b < 252 && len(out) < n {
				out = append(out, alphabet[b%36])
			}
		}
	}
	return string(out)
}

// Sandbox returns a new sandbox identifier: "i" and 20 characters, the form
// the protocol's reference uses.
func Sandbox() cove.SandboxID { return cove.SandboxID("i" + chars(20)) }

// Execution returns a new execution identifier.
func Execution() cove.ExecutionID { return cove.ExecutionID("x" + chars(20)) }

// Snapshot returns a new snapshot identifier.
func Snapshot() cove.SnapshotID { return cove.SnapshotID("s" + chars(20)) }

// Template returns a new template identifier: 20 characters.
func Template() cove.TemplateID { return cove.TemplateID(chars(20)) }

// UUID returns a random (version 4) UUID.
func UUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Secret returns n random bytes in lower-case hexadecimal.
func Secret(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
