// Package dockerfile turns the text of a Dockerfile into a plan: stages, each
// with the steps of a build in the terms of the template protocol.
//
// It is pure: it reads no file, asks no registry and starts no goroutines. It
// knows neither the images nor the build context, so what depends on them is
// left in the plan for the builder (see Expand and Step). What cannot be done
// faithfully is refused with the line it stands in, never passed over. Text
// comes from strangers, so its size and what it may grow to are limited.
// Package builder, its children and the command line may import it.
package dockerfile

import (
	cove "github.com/cove-sandbox/cove"
)

// The types of steps.
const (
	Copy    = "COPY"    // source, destination, owner, mode
	Run     = "RUN"     // command
	Env     = "ENV"     // name, value, name, value, ...
	Workdir = "WORKDIR" // directory
	User    = "USER"    // name
)

// A Step is one step of a build in the terms of the template protocol.
//
// Values of ENV, the arguments of WORKDIR and USER, and the destination, owner
// and mode of COPY are in the language of Expand: what only the image can know,
// such as the PATH in PATH=/x:$PATH, stands in them as a reference. Everything
// that the Dockerfile itself defines has been put in. Names in ENV, sources of
// COPY and commands are to be taken as they are; a source with wildcards may
// match nothing.
type Step struct {
	Type string
	Args []string

	// Env are variables of a RUN's command beside those in force: arguments of
	// the build, which no later process gets. They win over those of the image.
	Env map[string]string

	// From says what a COPY copies from: the name or number of a stage as it
	// was written, or an image reference; empty: the build context. FromStage
	// is the stage's index in Plan.Stages; -1: it is no stage.
	//
	// Files of the context come with the owner that Args names. Those of a
	// stage or an image keep theirs if it is empty.
	From      string
	FromStage int

	// Content is what the file has that a COPY writes, instead of copying one;
	// nil: it copies. The source is then the file's name, in case the
	// destination is a directory.
	Content []byte

	Line int    // in the Dockerfile, from 1
	Text string // the instruction as written, in one line and shortened, for logs
}

// Scratch is the From of a stage that begins with no files at all.
const Scratch = "scratch"

// A Stage is what one FROM begins. It starts as its image or the earlier stage
// is: with their user, directory and variables, and as root in / where an image
// does not say.
type Stage struct {
	Name      string // in lower case; empty: it has none
	From      string // an image reference, Scratch, or the name of an earlier stage
	FromStage int    // index in Plan.Stages of that stage; -1: From is no stage
	Line      int    // of its FROM
	Steps     []Step

	// Entrypoint and Cmd are what an image would keep of the instructions with
	// these names, of this stage and those it begins with. nil: nothing was said,
	// and what the image has is in force; but an ENTRYPOINT takes the image's
	// CMD away.
	Entrypoint, Cmd []string

	Start string // StartCommand of them; empty: there is none
	Ready string // the command of HEALTHCHECK; empty: there is none
}

// A Plan is a Dockerfile's meaning.
type Plan struct {
	Stages   []Stage // in order; the last one is the template. Stages it does not need are left out
	Warnings []Warning
}

// A Warning is about something that was passed over.
type Warning struct {
	Line int // 0: it is about no line
	Text string
}

// Options are what is not in the Dockerfile.
type Options struct {
	Args   map[string]string // values for ARG
	Target string            // name or number of the stage to be built; empty: the last one
}

// What a Dockerfile may be made of.
const (
	maxText         = 1 << 20  // bytes
	maxLines        = 5000     // the parser's work on a here-document grows with their square
	maxLine         = 64 << 10 // bytes of an instruction, which bounds how deep the parser can get
	maxInstructions = 1000
	maxSteps        = 1000      // of all stages; a COPY of several sources is several
	maxNesting      = 50        // of ${a:-${b:-...}}
	maxVariables    = 128 << 10 // bytes of names and values that a stage defines
	maxExpansion    = 16 << 20  // bytes that all references in a file may come to
)

// Parse makes a plan of a Dockerfile. The error is always Invalid and names the
// line and, where there is one, the way out.
func Parse(text []byte, opts Options) (*Plan, error) {
	p := &planner{opts: opts, budget: maxExpansion, used: map[string]bool{}, global: newScope(false)}
	instructions, err := p.read(text)
	if err != nil {
		return nil, err
	}
	if err := p.divide(instructions); err != nil {
		return nil, err
	}
	target, err := p.target()
	if err != nil {
		return nil, err
	}
	needed, err := p.needed(target)
	if err != nil {
		return nil, err
	}
	plan := &Plan{}
	for i := range p.drafts {
		if !needed[i] {
			continue
		}
		s, err := p.stage(i)
		if err != nil {
			return nil, err
		}
		p.drafts[i].made, p.drafts[i].index = s, len(plan.Stages)
		plan.Stages = append(plan.Stages, s.Stage)
	}
	p.unusedArgs()
	plan.Warnings = p.warnings
	return plan, nil
}

// refuse returns an error about a line.
func refuse(line int, format string, args ...any) error {
	return cove.E(cove.Invalid, "dockerfile.Parse", nil, "Dockerfile line %d: "+format, append([]any{line}, args...)...)
}
