// Package reply writes the answers of the daemon's plain HTTP routes.
//
// It is not for the Connect services, which have their own form of error. Only
// the packages of the daemon import it; it starts no goroutines.
package reply

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// An Error is a failure with the status and the words the client gets.
type Error struct {
	Status int
	Msg    string
}

// Error returns the words.
func (e *Error) Error() string { return e.Msg }

// Errorf returns an Error.
func Errorf(status int, format string, args ...any) *Error {
	return &Error{Status: status, Msg: fmt.Sprintf(format, args...)}
}

// Write sends e as {"code": status, "message": words}.
func (e *Error) Write(w http.ResponseWriter) {
	JSON(w, e.Status, struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}{e.Status, e.Msg})
}

// JSON sends v. A client that has gone away is no failure of ours, so there is
// nothing to return.
func JSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "the answer cannot be written as JSON", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Del("Content-Encoding")
	h.Del("Content-Disposition")
	w.WriteHeader(status)
	w.Write(body)
}
