package obs_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/cove-sandbox/cove/internal/obs"
)

func TestNewLogger(t *testing.T) {
	for _, c := range []struct {
		level  string
		format obs.Format
		want   string // a part of what an info line looks like; empty: none; "!": refused
	}{
		{"info", obs.Text, `msg=hello`}, {"info", obs.JSON, `"msg":"hello"`}, {"warn", obs.Text, ""},
		{"loud", obs.Text, "!"}, {"info+4", obs.Text, "!"}, {"info", "xml", "!"},
	} {
		var out bytes.Buffer
		log, err := obs.NewLogger(&out, c.level, c.format)
		if c.want == "!" {
			if err == nil {
				t.Errorf("%+v was accepted", c)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		log.Info("hello")
		if !strings.Contains(out.String(), c.want) || (c.want == "" && out.Len() > 0) {
			t.Errorf("%+v: wrote %q", c, out.String())
		}
	}
}
