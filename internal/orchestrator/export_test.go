package orchestrator

// Reason is what a sandbox's owner is told of an engine's last words.
func Reason(words string) string { return reason(words) }
