package cove

import (
	"errors"
	"fmt"
)

// Kind says what a caller can do about an error. Besides Msg it is the only
// part of an error that leaves the process.
type Kind uint8

// The kinds. The values are not stored or sent; the order may change.
const (
	Internal      Kind = iota // a bug or a broken host; details stay in the log
	Invalid                   // will never succeed as written
	Unauthorized              // no valid credentials
	Forbidden                 // valid credentials, but not for this
	NotFound                  // no such thing, or not yours
	Conflict                  // fine in itself, not in the present state
	Exhausted                 // a quota or the capacity is used up
	Unavailable               // try again later
	Unimplemented             // part of the protocol, not yet of this server
	DeadlineExceeded
	NoSpace // the disk is full
)

var kindNames = [...]string{
	"internal", "invalid", "unauthorized", "forbidden", "not found", "conflict",
	"exhausted", "unavailable", "unimplemented", "deadline exceeded", "no space",
}

// String returns the kind's name for logs.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Error carries two audiences: Kind and Msg are for the caller, Op and Err for
// the operator. Msg says what happened and what to do; it never holds a path of
// the host, an address, SQL or another error's text.
type Error struct {
	Kind Kind
	Code string // a name for programs to tell errors of one kind apart by; may be empty
	Op   string // "orchestrator.Create"
	Msg  string
	Err  error // the cause; may be nil
}

// Error returns the operator's view.
func (e *Error) Error() string {
	s := e.Msg
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// E returns an Error whose message is for the caller. cause may be nil.
func E(kind Kind, op string, cause error, format string, args ...any) error {
	return &Error{Kind: kind, Op: op, Msg: fmt.Sprintf(format, args...), Err: cause}
}

// Coded gives err, if it is an Error, a name that programs know it by.
func Coded(err error, code string) error {
	if e, ok := errors.AsType[*Error](err); ok {
		e.Code = code
	}
	return err
}

// CodeOf returns the name programs know err by; empty if it has none.
func CodeOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

// Describe returns what a caller may see of err. An error that is not an *Error
// is Internal and has nothing to say.
func Describe(err error) (Kind, string) {
	if e, ok := errors.AsType[*Error](err); ok && e.Msg != "" {
		return e.Kind, e.Msg
	}
	return Internal, "internal error"
}

// KindOf returns err's kind; Internal if it has none.
func KindOf(err error) Kind {
	kind, _ := Describe(err)
	return kind
}

// Is reports whether err is of the given kind. A nil error is of no kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }
