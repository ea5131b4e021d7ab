package plan

import (
	"cmp"
	"fmt"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder/dockerfile"
)

// A Source is a file system that a COPY of a Dockerfile copies from.
type Source struct {
	Stage int    // index of the stage; -1: it is none
	Image string // reference of an image; empty, without a Stage: the build context
	Key   string // names what is copied, or all that is there; whoever looks there sets it
}

// Context reports whether it is the build context.
func (s *Source) Context() bool { return s.Stage < 0 && s.Image == "" }

// Root returns the index of the stage that a stage goes back to: the first of
// those it begins with.
func Root(p *dockerfile.Plan, stage int) int {
	for p.Stages[stage].FromStage >= 0 {
		stage = p.Stages[stage].FromStage
	}
	return stage
}

// StageName returns what a stage is called in logs.
func StageName(p *dockerfile.Plan, stage int) string {
	return cmp.Or(p.Stages[stage].Name, fmt.Sprintf("stage-%d", stage))
}

// StepsOf returns the steps that lead from the image of Root to the end of a
// stage: those of the stages it begins with come first. Stages that begin with
// the same one so have the same steps, with the same keys, and what one of them
// has done is an earlier result for the others.
func StepsOf(p *dockerfile.Plan, stage int) []Step {
	var steps []Step
	at := p.Stages[stage]
	if at.FromStage >= 0 {
		steps = StepsOf(p, at.FromStage)
	}
	before := 0
	for _, s := range p.Stages[:stage] {
		before += len(s.Steps)
	}
	for i, s := range at.Steps {
		step := Step{
			BuildStep: cove.BuildStep{Type: cove.StepType(s.Type), Args: s.Args},
			Number:    before + i + 1,
			Label:     fmt.Sprintf("[%s %d/%d]", StageName(p, stage), i+1, len(at.Steps)),
			Line:      s.Line, Written: s.Text, Extra: s.Env, Content: s.Content,
		}
		if step.Type == cove.CopyStep && s.Content == nil {
			step.Source = &Source{Stage: s.FromStage}
			if s.FromStage < 0 {
				step.Source.Image = s.From
			}
		}
		steps = append(steps, step)
	}
	return steps
}

// MakeStage plans a stage: start is what its image is, and steps are those of
// StepsOf, with the keys of their sources. The error is Invalid and names the
// line.
//
// A stage begins as root in /, unless its image says otherwise. What is built in
// the end is different: it has the user that templates have, who begins in his
// home, unless the Dockerfile sets one or a directory. So have it the official
// clients.
func MakeStage(start Start, steps []Step, user, workdir string, forced bool) (*Plan, error) {
	template := start.Setup
	start.Setup.User, start.Setup.Workdir = cmp.Or(user, "root"), cmp.Or(workdir, "/")
	p, err := makeOf(start, steps, forced)
	if err != nil {
		return nil, err
	}
	hasUser, hasDir := false, false
	for _, s := range steps {
		hasUser, hasDir = hasUser || s.Type == cove.UserStep, hasDir || s.Type == cove.WorkdirStep
	}
	if !hasUser {
		p.Setup.User = template.User
	}
	if !hasDir {
		p.Setup.Workdir = template.Workdir
	}
	return p, nil
}
