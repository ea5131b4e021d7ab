package node

import (
	"time"

	cove "github.com/cove-sandbox/cove"
)

// Measurement is what a sandbox uses at one moment. It is the host's view;
// nothing inside is asked.
type Measurement struct {
	ID        cove.SandboxID
	Execution cove.ExecutionID
	Resources cove.Resources
	At        time.Time

	IdleAfter time.Duration // as its spec said
	Open      int           // requests to it that are under way
	UsedAt    time.Time     // when the last one was; zero: none since the server started

	CPU       time.Duration // processor time that this execution has used
	CountedOn time.Time     // when CPU was 0; zero: not known
	Memory    int64         // bytes that belong to what runs inside
	Cache     int64         // bytes of its files on disk that the host keeps in memory
	Disk      int64         // bytes of its writable layer
}
