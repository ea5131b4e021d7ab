package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// Limits of what is to be built. Commands may hold whole files.
const (
	maxOrder = 8 << 20 // bytes of the request
	maxSteps = 1000

	maxDockerfile = 1 << 20 // bytes
	maxTarget     = 128     // bytes
)

// buildOrder checks an order and says it in words of the domain.
func buildOrder(body wire.BuildOrder) (cove.BuildOrder, error) {
	order := cove.BuildOrder{
		FromImage:    text(body.FromImage),
		FromTemplate: text(body.FromTemplate),
		Force:        isTrue(body.Force),
		Start:        text(body.StartCmd),
		Ready:        text(body.ReadyCmd),
	}
	var err error
	if order.Dockerfile, err = dockerfileOf(body); err != nil {
		return order, err
	}
	if order.Dockerfile == nil && (order.FromImage == "") == (order.FromTemplate == "") {
		return order, invalid(`either "fromImage" or "fromTemplate" is required, and not both; or "dockerfile" instead of them`)
	}
	if order.FromTemplate != "" {
		if _, err := cove.ParseTemplateRef(order.FromTemplate); err != nil {
			return order, err
		}
	}
	if hasNUL(order.FromImage, order.Start, order.Ready) {
		return order, invalid(`"fromImage", "startCmd" and "readyCmd" must not hold a NUL byte`)
	}
	if body.FromImageRegistry != nil {
		if order.FromTemplate != "" {
			return order, invalid(`"fromImageRegistry" is for "fromImage" only, and for the images of "dockerfile"`)
		}
		if order.Login, err = registryLogin(*body.FromImageRegistry); err != nil {
			return order, err
		}
	}
	if len(body.Steps) > maxSteps {
		return order, invalid(`"steps" has %d steps; %d are allowed`, len(body.Steps), maxSteps)
	}
	for i, step := range body.Steps {
		if why := whatIsWrongWith(step); why != "" {
			return order, invalid("step %d (%s): %s", i+1, clip(step.Type), why)
		}
		order.Steps = append(order.Steps, cove.BuildStep{
			Type:      cove.StepType(step.Type),
			Args:      step.Args,
			FilesHash: text(step.FilesHash),
			Force:     isTrue(step.Force),
		})
	}
	return order, nil
}

// dockerfileOf returns the Dockerfile of an order; nil: it has none. What is in
// it is not looked at here.
func dockerfileOf(body wire.BuildOrder) (*cove.Dockerfile, error) {
	d := cove.Dockerfile{Text: text(body.Dockerfile), Args: body.BuildArgs, Target: text(body.Target), Context: text(body.ContextHash)}
	switch {
	case d.Text == "" && (len(d.Args) > 0 || d.Target != "" || d.Context != ""):
		return nil, invalid(`"buildArgs", "target" and "contextHash" are for "dockerfile" only`)
	case d.Text == "":
		return nil, nil
	case text(body.FromImage) != "" || text(body.FromTemplate) != "" || len(body.Steps) > 0:
		return nil, invalid(`"dockerfile" is given instead of "fromImage", "fromTemplate" and "steps", and not with one of them`)
	case len(d.Text) > maxDockerfile:
		return nil, invalid(`"dockerfile" is larger than %d bytes`, maxDockerfile)
	case len(d.Target) > maxTarget:
		return nil, invalid(`"target" may have at most %d letters`, maxTarget)
	case d.Context != "" && !cove.FilesHashValid(d.Context):
		return nil, invalid(`"contextHash" must be 64 lower-case hexadecimal digits`)
	}
	return &d, nil
}

// whatIsWrongWith says why a step cannot be meant; empty if it can.
func whatIsWrongWith(step wire.BuildStep) string {
	if hasNUL(step.Args...) {
		return "an argument must not hold a NUL byte"
	}
	if step.Type != string(cove.CopyStep) && text(step.FilesHash) != "" {
		return `"filesHash" is for COPY only`
	}
	n := len(step.Args)
	switch cove.StepType(step.Type) {
	case cove.CopyStep:
		switch {
		case n < 2 || n > 4 || step.Args[0] == "" || step.Args[1] == "":
			return `"args" must be source, destination, and optionally owner and mode`
		case !cove.FilesHashValid(text(step.FilesHash)):
			return `"filesHash" must be 64 lower-case hexadecimal digits`
		}
	case cove.RunStep:
		if n < 1 || n > 2 {
			return `"args" must be a command, and optionally a user`
		}
	case cove.EnvStep:
		return whatIsWrongWithEnv(step.Args)
	case cove.WorkdirStep:
		if n != 1 || step.Args[0] == "" {
			return `"args" must be one directory`
		}
	case cove.UserStep:
		if n != 1 || step.Args[0] == "" {
			return `"args" must be one user`
		}
	default:
		return `unknown type; use "COPY", "RUN", "ENV", "WORKDIR" or "USER"`
	}
	return ""
}

func whatIsWrongWithEnv(args []string) string {
	if len(args) == 0 || len(args)%2 != 0 {
		return `"args" must be pairs of name and value`
	}
	for i := 0; i < len(args); i += 2 {
		if args[i] == "" || strings.Contains(args[i], "=") {
			return fmt.Sprintf("a name must not be empty nor hold '=', as %q", clip(args[i]))
		}
	}
	return ""
}

// registryLogin reads what a registry asks for. What is wrong with it is told
// without repeating any of it.
func registryLogin(raw wire.RegistryLogin) (cove.RegistryLogin, error) {
	var kind struct{ Type string }
	if err := json.Unmarshal(raw, &kind); err != nil {
		return cove.RegistryLogin{}, cove.E(cove.Invalid, "api.registryLogin", err, `"fromImageRegistry" must be an object with a "type"`)
	}
	switch cove.LoginKind(kind.Type) {
	case cove.BasicLogin:
		var l wire.BasicLogin
		err := decodeLogin(raw, &l, "username", "password")
		return cove.RegistryLogin{Kind: cove.BasicLogin, User: l.Username, Password: l.Password}, err
	case cove.AWSLogin:
		var l wire.AWSLogin
		err := decodeLogin(raw, &l, "awsAccessKeyId", "awsSecretAccessKey", "awsRegion")
		return cove.RegistryLogin{Kind: cove.AWSLogin, KeyID: l.AwsAccessKeyId, Key: l.AwsSecretAccessKey, Region: l.AwsRegion}, err
	case cove.GCPLogin:
		var l wire.GCPLogin
		err := decodeLogin(raw, &l, "serviceAccountJson")
		return cove.RegistryLogin{Kind: cove.GCPLogin, ServiceAccount: l.ServiceAccountJson}, err
	default:
		return cove.RegistryLogin{}, invalid(`unknown "fromImageRegistry.type" %q; use "registry", "aws" or "gcp"`, clip(kind.Type))
	}
}

// decodeLogin reads a login into dst and refuses fields dst does not have. The
// fields in required must be there.
func decodeLogin(raw []byte, dst any, required ...string) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(dst); err != nil {
		return cove.E(cove.Invalid, "api.decodeLogin", err, `"fromImageRegistry" is not valid: %s`, whatIsWrong(err))
	}
	return checkRequired(raw, required)
}

// text returns what s points to; nothing if there is nothing.
func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func hasNUL(texts ...string) bool {
	for _, t := range texts {
		if strings.ContainsRune(t, 0) {
			return true
		}
	}
	return false
}
