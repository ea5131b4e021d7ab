// Package spec holds the wire sources of the project: what clients, daemon and
// nodes say to each other. Everything under internal/gen is made from it with
// the tools pinned in tools.mod, and is never edited.
//
// It has no code and nothing imports it. `go generate ./spec` renews
// internal/gen; a test fails while the two differ.
package spec

//go:generate -command repo go -C ..
//go:generate repo tool -modfile=tools.mod buf generate --template spec/buf.gen.yaml spec
//go:generate repo tool -modfile=tools.mod oapi-codegen -config spec/oapi-codegen.yaml spec/openapi.yaml
