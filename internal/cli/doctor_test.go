package cli_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cove-sandbox/cove/internal/cli"
	"github.com/cove-sandbox/cove/internal/network"
)

func TestDoctorTriesAndLeavesNothing(t *testing.T) {
	var out, errOut bytes.Buffer
	cli.Main([]string{"doctor", "--data-dir", t.TempDir(), "-o", "json"}, nil, &out, &errOut) // the programs are missing
	var findings []struct{ Check, Status, Detail, Advice string }
	if err := json.Unmarshal(out.Bytes(), &findings); err != nil {
		t.Fatalf("%v\n%s%s", err, &out, &errOut)
	}
	tried := map[string]string{"cgroups": "can be made", "network": "can be made"}
	for _, f := range findings {
		if want, ok := tried[f.Check]; ok {
			delete(tried, f.Check)
			if f.Status == "failure" || !strings.Contains(f.Detail, want) {
				t.Errorf("%+v", f)
			}
		}
	}
	if len(tried) != 0 {
		t.Errorf("not among the findings: %v", tried)
	}
	name := fmt.Sprint("doctor-", os.Getpid())
	servers, err := network.Instances("")
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(servers, name) {
		t.Error("a slot or a table is left")
	}
	for _, pattern := range []string{"/sys/fs/cgroup/cove-" + name, "/sys/fs/cgroup/*/cove-" + name} {
		if left, _ := filepath.Glob(pattern); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	}
}

func TestDoctorKnowsTheRemedy(t *testing.T) {
	docker := network.Firewall{Name: "Docker", Remedy: []string{"first command", "second command"}}
	for _, test := range []struct {
		walls []network.Firewall
		err   error
		want  [3]string // status, the end of the detail, advice
	}{
		{nil, nil, [3]string{"ok", "internet", ""}},
		{[]network.Firewall{docker}, nil, [3]string{"failure", "dropped by Docker", "first command; second command"}},
		{[]network.Firewall{docker}, errors.New("odd"), [3]string{"failure", "dropped by Docker", "first command; second command"}},
		{nil, errors.New("odd"), [3]string{"warning", "odd", "if sandboxes have no internet, let the firewall forward from and to interfaces cove*"}},
	} {
		status, detail, advice := cli.Forwarding(test.walls, test.err)
		if !strings.HasSuffix(detail, test.want[1]) {
			t.Errorf("detail %q, want %q at its end", detail, test.want[1])
		}
		if diff := cmp.Diff(test.want, [3]string{status, test.want[1], advice}); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}
