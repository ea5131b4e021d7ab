package e2e_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/cove-sandbox/cove/test/stand"
)

// smallImage makes an image as small distributions have it: busybox, perhaps
// bash, and a variable. The second layer takes back a file of the first.
func smallImage(t *testing.T, bash bool) v1.Image {
	t.Helper()
	var base, top bytes.Buffer
	w := tar.NewWriter(&base)
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	program := func(from, to string) {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		add(tar.Header{Name: to, Mode: 0o755, Typeflag: tar.TypeReg}, content)
	}
	for _, dir := range []string{"bin", "etc", "usr/bin", "opt/tool/bin", "gone"} {
		add(tar.Header{Name: dir + "/", Mode: 0o755, Typeflag: tar.TypeDir}, nil)
	}
	program("/bin/busybox", "bin/busybox")
	applets, err := exec.Command("/bin/busybox", "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" && applet != "bash" {
			add(tar.Header{Name: "bin/" + applet, Linkname: "busybox", Typeflag: tar.TypeSymlink}, nil)
		}
	}
	if bash {
		program("/bin/bash-static", "bin/bash")
	}
	add(tar.Header{Name: "opt/tool/bin/tool", Mode: 0o755, Typeflag: tar.TypeReg}, []byte("#!/bin/sh\necho the tool\n"))
	add(tar.Header{Name: "gone/file", Mode: 0o644, Typeflag: tar.TypeReg}, []byte("x"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = tar.NewWriter(&top)
	add(tar.Header{Name: ".wh.gone", Mode: 0o600, Typeflag: tar.TypeReg}, nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img := empty.Image
	for _, content := range [][]byte{base.Bytes(), top.Bytes()} {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			t.Fatal(err)
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	config.Config.Env = []string{"PATH=/opt/tool/bin:/bin", "FROM_IMAGE=yes"}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// registryWith serves an image under the name "team/image:1", to those who have
// the password if one is set, and returns the registry's host.
func registryWith(t *testing.T, img v1.Image, password string) string {
	t.Helper()
	handler := registry.New()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, given, _ := r.BasicAuth(); given != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	ref, err := name.ParseReference(host + "/team/image:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: "user", Password: password})); err != nil {
		t.Fatal(err)
	}
	return host
}

func TestImages(t *testing.T) {
	img := smallImage(t, true)
	open, closed := registryWith(t, img, ""), registryWith(t, img, "pass word")
	oci := filepath.Join(t.TempDir(), "oci")
	if path, err := layout.Write(oci, empty.Index); err != nil {
		t.Fatal(err)
	} else if err := path.AppendImage(smallImage(t, false)); err != nil {
		t.Fatal(err)
	}
	s := stand.Start(t, "--registry-private", open, "--registry-private", closed, "--image", "local/*:1="+oci)
	steps := []map[string]any{{"type": "RUN", "args": []string{"tool > said; echo $FROM_IMAGE >> said; test ! -e /gone"}}}
	check := func(t *testing.T, template string) {
		t.Helper()
		sb := s.Create(t, map[string]any{"templateID": template, "timeout": 60})
		defer sb.Kill(t)
		if got := sb.Run(t, "cat /home/user/said; stat -c %U /home/user/said; tool; echo $FROM_IMAGE"); got.Stdout != "the tool\nyes\nuser\nthe tool\nyes\n" {
			t.Errorf("%+v", got)
		}
	}
	t.Run("from a registry", func(t *testing.T) {
		b := s.Build(t, "small", map[string]any{"fromImage": open + "/team/image:1", "steps": steps}).Ready(t)
		check(t, "small")
		if again := s.Build(t, "again", map[string]any{"fromImage": open + "/team/image:1", "steps": steps}).Ready(t); again.Took > time.Second {
			t.Errorf("the same build took %s, the first %s:\n%s", again.Took, b.Took, again.Log)
		}
	})
	t.Run("with credentials", func(t *testing.T) {
		image := closed + "/team/image:1"
		s.Build(t, "closed", map[string]any{"fromImage": image}).Failed(t, "base", "asks for other credentials")
		login := map[string]any{"type": "registry", "username": "user", "password": "pass word"}
		s.Build(t, "closed", map[string]any{"fromImage": image, "fromImageRegistry": login, "steps": steps}).Ready(t)
		check(t, "closed")
		login["password"] = "wrong"
		s.Build(t, "closed", map[string]any{"fromImage": image, "fromImageRegistry": login, "steps": steps}).Failed(t, "base", "credentials")
		if strings.Contains(s.Log(), "pass word") {
			t.Error("the password is in the server's log")
		}
	})
	t.Run("from the disk, without bash", func(t *testing.T) {
		s.Build(t, "local", map[string]any{"fromImage": "local/thing:1", "steps": steps}).Ready(t)
		check(t, "local")
	})
	t.Run("that cannot be had", func(t *testing.T) {
		for image, words := range map[string]string{
			open + "/team/none:1": "not found", "10.255.255.1/x:1": "cannot be reached", "not a name": "invalid image reference",
		} {
			s.Build(t, "none", map[string]any{"fromImage": image}).Failed(t, "base", words)
		}
	})
}

func TestBuildsThatFail(t *testing.T) {
	s := stand.Start(t, "--disk-mb", "256", "--ready-limit", "2s")
	run := func(commands ...string) (steps []map[string]any) {
		for _, c := range commands {
			steps = append(steps, map[string]any{"type": "RUN", "args": []string{c}})
		}
		return steps
	}
	for what, tt := range map[string]struct {
		order map[string]any
		step  string
		words []string
	}{
		"a command":                           {map[string]any{"steps": run("true", "seq 20 >&2; exit 9")}, "2", []string{"exit status 9", "\n20"}},
		"no such user":                        {map[string]any{"steps": []map[string]any{{"type": "RUN", "args": []string{"whoami", "root123"}}}}, "1", []string{"failed to run command 'whoami': command failed: unauthenticated: invalid username: 'root123'"}},
		"a full disk":                         {map[string]any{"steps": run("head -c 400M /dev/zero > big")}, "1", []string{"No space left on device"}},
		"too much memory":                     {map[string]any{"steps": run(`python3 -c "x = bytearray(4 << 30)"`)}, "1", []string{"failed to run command"}},
		"a start command":                     {map[string]any{"startCmd": "echo gone; exit 4", "readyCmd": "false"}, "finalize", []string{"start command", "exit status 4", "gone"}},
		"a start command that is never ready": {map[string]any{"startCmd": "sleep 600", "readyCmd": "test -e /never"}, "finalize", []string{"not ready after 2s", "test -e /never"}},
	} {
		t.Run(what, func(t *testing.T) {
			tt.order["fromTemplate"] = "base"
			s.Build(t, "fails", tt.order).Failed(t, tt.step, tt.words...)
		})
	}
	if status, body := s.Do(t, "POST", "/sandboxes", map[string]any{"templateID": "fails", "timeout": 60}); status != 404 {
		t.Errorf("a sandbox of a template that was never built: %d %v", status, body)
	}
	if left := s.List(t); len(left) > 0 {
		t.Errorf("builds left sandboxes: %v", left)
	}
	left(t, s)
}

// left sees that builds left nothing that runs.
func left(t *testing.T, s *stand.Server) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		census := s.Census(t)
		if census["engine processes"] == 0 && census["sandbox directories"] == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: %v", census)
		}
	}
}

func TestServerKilledDuringABuild(t *testing.T) {
	s := stand.Start(t)
	order := map[string]any{"fromTemplate": "base", "steps": []map[string]any{
		{"type": "RUN", "args": []string{"echo one > one"}}, {"type": "RUN", "args": []string{"echo two > two; sleep 30"}},
	}}
	b := s.BeginBuild(t, "killed", order)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		_, body := s.Do(t, "GET", fmt.Sprintf("/templates/%s/builds/%s/status", b.Template, b.Build), nil)
		if strings.Contains(fmt.Sprint(body["logEntries"]), "[builder 2/2] RUN") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the build does not get on: %v", body)
		}
	}
	s.Kill(t)
	s.Run(t)
	s.AwaitBuild(t, &b)
	b.Failed(t, "", "server was stopped")
	left(t, s)
	// What was done is not done again.
	order["steps"].([]map[string]any)[1] = map[string]any{"type": "RUN", "args": []string{"cat one > two"}}
	again := s.Build(t, "killed", order).Ready(t)
	if !strings.Contains(again.Log, "CACHED [builder 1/2]") {
		t.Errorf("the log:\n%s", again.Log)
	}
	sb := s.Create(t, map[string]any{"templateID": "killed", "timeout": 60})
	if got := sb.Run(t, "cat two"); got.Stdout != "one\n" {
		t.Errorf("%+v", got)
	}
}
