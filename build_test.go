package cove_test

import (
	"os/exec"
	"testing"

	cove "github.com/cove-sandbox/cove"
)

func TestStartCommandHasThePathOfTheBuild(t *testing.T) {
	s := cove.Setup{Start: `echo "$PATH"`, Env: map[string]string{"PATH": "/image"}}
	if c := s.StartCommand(); c.Command != s.Start || c.Env["PATH"] != "/image" {
		t.Errorf("without a PATH of the build: %+v", c)
	}
	const path = `/it's/$HOME "x":/bin`
	s.BuildEnv = map[string]string{"PATH": path}
	out, err := exec.Command("/bin/sh", "-c", s.StartCommand().Command).Output()
	if err != nil || string(out) != path+"\n" {
		t.Errorf("%q, %v", out, err)
	}
	s.Start = ""
	if c := s.StartCommand(); c.Command != "" {
		t.Errorf("of no start command: %+v", c)
	}
}
