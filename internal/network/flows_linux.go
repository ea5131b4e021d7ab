package network

import (
	"os"
	"strconv"
	"strings"
)

// flowLimits bound what one slot adds to the host's table of connections. A
// flow is what the kernel tracks: a TCP connection, or datagrams between two
// pairs of address and port.
type flowLimits struct {
	concurrent int // flows that have not ended
	perSecond  int // new flows, for as long as it takes
	burst      int // new flows at once, before perSecond counts
}

const (
	// conntrackMax is where the kernel keeps how many connections the host can
	// track; when they are used up, nobody on the host gets a new one.
	conntrackMax     = "/proc/sys/net/netfilter/nf_conntrack_max"
	defaultConntrack = 262144 // the kernel's own default on a host with 4 GB or more
)

// hostFlowLimits reads the size of the host's table and shares it out.
func hostFlowLimits() flowLimits {
	text, err := os.ReadFile(conntrackMax)
	size, nerr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || nerr != nil || size <= 0 { // 0 is no limit; the file comes with the first rule that tracks
		size = defaultConntrack
	}
	return shareFlows(size)
}

// shareFlows gives a slot about a seventh of the host's table. Flows that have
// not ended count against concurrent. TCP connections that have ended do not,
// and the host remembers them for two minutes all the same: that is what
// perSecond is for. An install of many packages opens some hundred connections
// and is covered by burst; a crawler that opens 256 each second is a busy one.
func shareFlows(size int) flowLimits {
	return flowLimits{
		concurrent: min(max(size/64, 512), 4096),
		perSecond:  min(max(size/1024, 64), 1000),
		burst:      min(max(size/128, 512), 2000),
	}
}
