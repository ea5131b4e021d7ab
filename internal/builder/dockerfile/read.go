package dockerfile

import (
	"bytes"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	cove "github.com/cove-sandbox/cove"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// An instruction is one as it was written, with nothing expanded.
type instruction struct {
	name     string   // in upper case
	args     []string // how they are divided depends on the name
	json     bool     // they were written as a JSON array
	flags    flags
	heredocs []parser.Heredoc
	line     int
	text     string // for Step.Text
}

// read divides a text into instructions.
func (p *planner) read(text []byte) ([]instruction, error) {
	if err := check(text); err != nil {
		return nil, err
	}
	result, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, syntax(err)
	}
	p.escape = byte(result.EscapeToken)
	if language, _, at, ok := parser.DetectSyntax(text); ok && !strings.Contains(language, "docker/dockerfile") {
		p.warn(at[0].Start.Line, "the syntax "+oneLine(language)+" is passed over: this is read as a Dockerfile")
	}
	for _, w := range result.Warnings {
		p.warn(w.Location.Start.Line, "an instruction that goes on over an empty line will be an error one day")
	}
	nodes := result.AST.Children
	if len(nodes) > maxInstructions {
		return nil, refuse(nodes[maxInstructions].StartLine, "a Dockerfile can have %d instructions", maxInstructions)
	}
	all := make([]instruction, len(nodes))
	for i, n := range nodes {
		if all[i], err = instructionOf(n); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func instructionOf(n *parser.Node) (instruction, error) {
	in := instruction{
		name: strings.ToUpper(n.Value), json: n.Attributes["json"], heredocs: n.Heredocs,
		line: n.StartLine, text: oneLine(n.Original),
	}
	for arg := n.Next; arg != nil; arg = arg.Next {
		in.args = append(in.args, arg.Value)
	}
	var err error
	in.flags, err = readFlags(in, n.Flags)
	return in, err
}

// oneLine shortens an instruction for a line of a log.
func oneLine(s string) string {
	const most = 200
	r := []rune(strings.Join(strings.Fields(s), " "))
	if len(r) > most {
		return string(r[:most]) + "..."
	}
	return string(r)
}

// syntax is the parser's error as ours. Its words are about the text alone, so
// the text's author may see them.
func syntax(err error) error {
	located, ok := errors.AsType[*parser.LocationError](err)
	if !ok || len(located.Locations) == 0 || len(located.Locations[0]) == 0 || located.Locations[0][0].Start.Line == 0 {
		return cove.E(cove.Invalid, "dockerfile.Parse", nil, "Dockerfile: %s", oneLine(err.Error()))
	}
	return refuse(located.Locations[0][0].Start.Line, "%s", oneLine(err.Error()))
}

// check refuses what the parser must not get to see: it recurses on nested
// constructs of a line, and complains to standard error about what is no text.
func check(text []byte) error {
	const op = "dockerfile.Parse"
	if len(text) > maxText {
		return cove.E(cove.Invalid, op, nil, "a Dockerfile can have %d bytes", maxText)
	}
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		return cove.E(cove.Invalid, op, nil, "the Dockerfile is not a text in UTF-8")
	}
	if bytes.Count(text, []byte("\n")) >= maxLines {
		return cove.E(cove.Invalid, op, nil, "a Dockerfile can have %d lines: move what it writes into files and copy them", maxLines)
	}
	size, number := 0, 0
	for line := range bytes.Lines(text) {
		number++
		start := bytes.TrimLeftFunc(line, unicode.IsSpace)
		if size > 0 && (len(start) == 0 || start[0] == '#') {
			continue // the parser takes it out of the instruction around it
		}
		size += len(line)
		if size >= maxLine {
			return refuse(number, "an instruction can have %d bytes", maxLine)
		}
		end := bytes.TrimRight(line, " \t\r\n")
		if !bytes.HasSuffix(end, []byte(`\`)) && !bytes.HasSuffix(end, []byte("`")) {
			size = 0
		}
	}
	return nil
}
