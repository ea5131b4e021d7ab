package cove

import "time"

// LogLevel is how grave a line of a log is.
type LogLevel uint8

// The levels. Their values are stored; the order counts.
const (
	LogDebug LogLevel = iota
	LogInfo
	LogWarn
	LogError
)

var logLevelNames = [...]string{"debug", "info", "warn", "error"}

// String returns the level's name on the wire.
func (l LogLevel) String() string {
	if int(l) < len(logLevelNames) {
		return logLevelNames[l]
	}
	return logLevelNames[LogError]
}

// ParseLogLevel reads a level's name.
func ParseLogLevel(name string) (LogLevel, bool) {
	for l, n := range logLevelNames {
		if n == name {
			return LogLevel(l), true
		}
	}
	return 0, false
}

// LogLine is one line of a sandbox's log. The log outlives the sandbox, so a
// line says whose it is.
type LogLine struct {
	Team    TeamID
	Sandbox SandboxID
	At      time.Time // microsecond precision, UTC
	Level   LogLevel
	Logger  string // who says it
	Message string
	Fields  map[string]string
}

// LogFilter selects lines of a sandbox's log.
type LogFilter struct {
	From, To time.Time // To is exclusive; zero: no bound
	Backward bool      // newest first
	Level    LogLevel  // and above
	Search   string    // part of the message, whatever the case; empty: any
	Limit    int
}
