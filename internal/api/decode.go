package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// maxBody bounds a request body in bytes.
const maxBody = 1 << 20

// decode reads the JSON body of r into dst and refuses fields dst does not have.
// The fields in required must be there. Without any, an empty body is fine and
// leaves dst as it is. The error is Invalid and says where the body is wrong.
func decode(w http.ResponseWriter, r *http.Request, dst any, required ...string) error {
	return decodeUpTo(w, r, maxBody, dst, required...)
}

// decodeUpTo is decode for a body of at most so many bytes.
func decodeUpTo(w http.ResponseWriter, r *http.Request, most int64, dst any, required ...string) error {
	const op = "api.decode"
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return cove.E(cove.Invalid, op, err, "the request body is larger than %d bytes", most)
	}
	if err != nil {
		return cove.E(cove.Invalid, op, err, "the request body ended early")
	}
	if len(bytes.TrimSpace(body)) == 0 {
		if len(required) == 0 {
			return nil
		}
		return cove.E(cove.Invalid, op, nil, "the request body is empty; send a JSON object with %q", required[0])
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(dst); err != nil {
		return cove.E(cove.Invalid, op, err, "the request body is not valid: %s", whatIsWrong(err))
	}
	if _, err := d.Token(); err != io.EOF {
		return cove.E(cove.Invalid, op, nil, "the request body is not valid: there is more after the JSON object")
	}
	return checkRequired(body, required)
}

// checkRequired tells an absent field from a zero one, which the types of the
// wire cannot: a timeout of 0 means the end.
func checkRequired(body []byte, required []string) error {
	var fields map[string]json.RawMessage
	if len(required) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, &fields); err != nil {
		return cove.E(cove.Invalid, "api.decode", err, "the request body is not a JSON object")
	}
	for _, name := range required {
		if v, ok := fields[name]; !ok || string(v) == "null" {
			return cove.E(cove.Invalid, "api.decode", nil, "%q is required", name)
		}
	}
	return nil
}

// whatIsWrong says in words for the caller why a body could not be decoded.
func whatIsWrong(err error) string {
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("bad JSON at byte %d", e.Offset)
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		where := "the body"
		if e.Field != "" {
			where = fmt.Sprintf("%q", clip(e.Field))
		}
		return fmt.Sprintf("%s must be %s, not %s", where, typeInWords(e.Type), clip(e.Value))
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "the JSON ends early"
	}
	// The library has no type for this one.
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return "unknown field " + clip(name)
	}
	return "bad JSON"
}

// typeInWords names a Go type as a writer of JSON knows it.
func typeInWords(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return typeInWords(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "a whole number that is not too large"
	case reflect.String:
		return "a string"
	case reflect.Slice:
		return "a list"
	default:
		return "an object"
	}
}

// badParameter answers a request whose path or query the generated router could
// not read. Who has no key learns only that.
func (s *server) badParameter(w http.ResponseWriter, r *http.Request, err error) {
	s.forTeam(w, r, func(cove.TeamID) error {
		name := "a parameter"
		if e, ok := errors.AsType[*wire.InvalidParamFormatError](err); ok {
			name = fmt.Sprintf("parameter %q", e.ParamName)
		}
		if e, ok := errors.AsType[*wire.RequiredParamError](err); ok {
			return cove.E(cove.Invalid, "api.badParameter", err, "parameter %q is required", e.ParamName)
		}
		return cove.E(cove.Invalid, "api.badParameter", err, "the value of %s is not valid", name)
	})
}

// checkQuery refuses a query that is malformed or has parameters other than the
// known ones: a filter that is misspelled must not select everything.
func checkQuery(r *http.Request, known ...string) error {
	const op = "api.checkQuery"
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return cove.E(cove.Invalid, op, err, "the query is not properly URL-encoded")
	}
	for name := range query {
		if !slices.Contains(known, name) {
			return cove.E(cove.Invalid, op, nil, "unknown query parameter %q", clip(name))
		}
	}
	return nil
}
