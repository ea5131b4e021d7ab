// Command init is the only program in the image that the runsc tests boot.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "report" {
		report()
	}
	fmt.Println("ready")
	for { // busy enough for the host to see whether it runs
		time.Sleep(50 * time.Microsecond)
	}
}

// report prints what the sandbox looks like from inside.
func report() {
	version, _ := os.ReadFile("/proc/version")
	mounts, _ := os.ReadFile("/proc/mounts")
	meminfo, _ := os.ReadFile("/proc/meminfo")
	hostname, _ := os.Hostname()
	fmt.Printf("version %s\n", strings.TrimSpace(string(version)))
	fmt.Printf("hostname %s\n", hostname)
	fmt.Printf("memory %s\n", strings.SplitN(string(meminfo), "\n", 2)[0])
	fmt.Printf("mounts %q\n", mounts)
	err := os.WriteFile("/written", make([]byte, 1<<20), 0o600)
	fmt.Printf("write %v\n", err)
	err = os.WriteFile("/toobig", make([]byte, 64<<20), 0o600)
	fmt.Printf("toobig %v\n", err)
	_, err = os.ReadFile("/image/init")
	fmt.Printf("image %v\n", err)
	err = os.WriteFile("/image/x", nil, 0o600)
	fmt.Printf("imagewrite %v\n", err)
}
