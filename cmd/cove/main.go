// Command cove is the whole platform: server and command line. Start with
// docs/ARCHITECTURE.md.
package main

import (
	"os"

	"github.com/cove-sandbox/cove/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
