// Command cove-envd is the daemon inside every sandbox; see package envd.
package main

import (
	"os"

	"github.com/cove-sandbox/cove/internal/envd"
)

func main() { os.Exit(envd.Main(os.Args, os.Stdout, os.Stderr)) }
