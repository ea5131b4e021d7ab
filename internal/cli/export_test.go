package cli

import "github.com/cove-sandbox/cove/internal/network"

// Forwarding returns what doctor says of other firewalls.
func Forwarding(walls []network.Firewall, err error) (status, detail, advice string) {
	f := forwarding(walls, err)
	return f.Status, f.Detail, f.Advice
}
