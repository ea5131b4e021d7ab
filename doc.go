// Package cove says what things are: sandboxes, templates, teams, nodes, their
// identifiers, their states and the errors a caller may see.
//
// It is the vocabulary of the whole program and nothing else: it imports the
// standard library only, does no I/O and starts no goroutines. Every package of
// the module may import it.
package cove
