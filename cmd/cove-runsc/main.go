// Command cove-runsc is the pinned gVisor engine and the launcher that hands it
// a prepared sandbox; see package engine.
package main

import (
	"os"

	"github.com/cove-sandbox/cove/internal/runtime/runsc/engine"
)

func main() { os.Exit(engine.Main(os.Args)) }
