package nodetest_test

import (
	"testing"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/node"
	"github.com/cove-sandbox/cove/internal/node/nodetest"
)

func TestFake(t *testing.T) {
	var fake *nodetest.Fake
	nodetest.Run(t, nodetest.Bench{
		Open:  func(*testing.T) node.Node { fake = &nodetest.Fake{}; return fake },
		Crash: func(_ *testing.T, id cove.SandboxID) { fake.Crash(id) },
		Say:   func(_ *testing.T, id cove.SandboxID, message string) { fake.Say(id, message) },
	})
}
