package proxy

import (
	"net/http"
	"strconv"
	"strings"

	cove "github.com/cove-sandbox/cove"
)

// The headers that name a sandbox where its host name does not.
const (
	idHeader   = "E2b-Sandbox-Id"
	portHeader = "E2b-Sandbox-Port"
)

// Target is the port of a sandbox.
type Target struct {
	ID   cove.SandboxID
	Port uint16
}

// Parse finds the sandbox and port a request is for: by its host name,
// "<port>-<id>.<anything>", or else by its two headers. ok is false if it is
// for no sandbox. The error is Invalid if it names one wrongly.
func Parse(r *http.Request) (t Target, ok bool, err error) {
	if label, _, dotted := strings.Cut(r.Host, "."); dotted {
		if port, id, cut := strings.Cut(label, "-"); cut && digits(port) && letter(id) {
			// What follows a further hyphen names the client; it is not needed.
			id, _, _ = strings.Cut(id, "-")
			return target(port, id)
		}
	}
	id, port := r.Header.Get(idHeader), r.Header.Get(portHeader)
	switch {
	case id == "" && port == "":
		return Target{}, false, nil
	case id == "":
		return Target{}, true, cove.E(cove.Invalid, "proxy.Parse", nil, "Missing header: %s", idHeader)
	case port == "":
		return Target{}, true, cove.E(cove.Invalid, "proxy.Parse", nil, "Missing header: %s", portHeader)
	}
	id, _, _ = strings.Cut(id, "-")
	return target(port, id)
}

func target(port, id string) (Target, bool, error) {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Target{}, true, cove.E(cove.Invalid, "proxy.Parse", err, "Invalid sandbox port")
	}
	// Host names are not case-sensitive; identifiers are lower case.
	sandbox := cove.SandboxID(strings.ToLower(id))
	if !sandbox.Valid() {
		return Target{}, true, cove.E(cove.Invalid, "proxy.Parse", nil, "Invalid sandbox ID")
	}
	return Target{ID: sandbox, Port: uint16(n)}, true, nil
}

// letter reports whether s begins with a letter, as every identifier does: a
// name such as 127-0-0-1.example is not a sandbox's.
func letter(s string) bool {
	return s != "" && (s[0] >= 'a' && s[0] <= 'z' || s[0] >= 'A' && s[0] <= 'Z')
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
