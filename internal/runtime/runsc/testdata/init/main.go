// Command init is the only program in the image that the runsc tests boot.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	change()
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "report":
			report()
		case "hole":
			hole()
		}
	}
	fmt.Println("ready")
	for { // busy enough for the host to see whether it runs
		time.Sleep(50 * time.Microsecond)
	}
}

// change makes the writable layer what runtimetest.Bench says. When init is
// started anew, the image's files are gone already.
func change() {
	_ = os.Remove("/gone")
	_ = os.RemoveAll("/anew")
	err := errors.Join(
		os.Mkdir("/anew", 0o755),
		os.WriteFile("/new", []byte(strings.Repeat("new\n", 1<<18)), 0o640),
	)
	if err != nil {
		fmt.Println(err)
	}
}

// hole makes a file of a terabyte with a word in its third megabyte.
func hole() {
	f, err := os.Create("/hole")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	_, err = f.WriteAt([]byte("word"), 2<<20+3)
	if err = errors.Join(err, f.Truncate(1<<40)); err != nil {
		fmt.Println(err)
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
