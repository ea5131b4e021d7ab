package e2e_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cove-sandbox/cove/test/stand"
)

// contextOf makes the archive of a build context.
func contextOf(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(files[name])), Uid: 4321, ModTime: time.Now()}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// threeStages has what stages can do to each other: the first works in the base
// template, the second has nothing but files, the third is a strange image.
const threeStages = `ARG IMAGE
ARG VERSION=1
FROM e2bdev/base AS build
ARG VERSION
ENV PATH=/opt/own:$PATH
WORKDIR /src
COPY --chmod=755 <<E /opt/own/own
#!/bin/sh
echo own tool
E
COPY src/*.txt ./
COPY lib lib
RUN own > made && cat a.txt b.txt lib/deep/c >> made && echo $VERSION $(pwd) $(id -un) >> made
RUN chown user:user made && ln -s made link && mkfifo pipe

FROM scratch AS files
WORKDIR /kept
COPY --from=build /src/link result

FROM $IMAGE AS last
WORKDIR /app
COPY --from=files /kept/result ./
COPY --from=build /src all
COPY --from=THE_IMAGE /opt/tool/bin/tool /bin/other
COPY --chown=user docs/ docs
ENV PATH=/app/bin:$PATH SAID=hello
RUN mkdir bin && printf '#!/bin/sh\necho mine $SAID\n' > bin/mine && chmod 755 bin/mine && mine > said && other >> said
VOLUME /data
CMD mine > /tmp/started; exec sleep 1000
HEALTHCHECK CMD test -s /tmp/started
`

func TestDockerfile(t *testing.T) {
	host := registryWith(t, smallImage(t, true), "")
	image := host + "/team/image:1"
	s := stand.Start(t, "--registry-private", host)
	text := strings.ReplaceAll(threeStages, "THE_IMAGE", image)
	files := map[string]string{
		"src/a.txt": "a\n", "src/b.txt": "b\n", "src/c.md": "c", "lib/deep/c": "deep\n", "docs/read": "me\n",
	}
	build := func(name string) stand.Built {
		t.Helper()
		return s.Build(t, name, map[string]any{"dockerfile": text, "buildArgs": map[string]any{"IMAGE": image}, "contextHash": s.Upload(t, contextOf(t, files))}).Ready(t)
	}
	check := func(name, first, docs string) {
		t.Helper()
		sb := s.Create(t, map[string]any{"templateID": name, "timeout": 60})
		defer sb.Kill(t)
		want := "own tool\n" + first + "b\ndeep\n1 /src root\nmine hello\nthe tool\n" + docs + "mine hello\nuser root\nuser\nmade /app\n"
		got := sb.Run(t, `cat result said docs/read /tmp/started; echo $(stat -c %U result said); stat -c %U docs/read; echo $(readlink all/link) $(pwd); `+
			`test -p all/pipe && test ! -e all/c.md && test -z "$SAID"`)
		if got.Stdout != want || got.Exit != 0 {
			t.Errorf("%+v, want %q", got, want)
		}
	}
	wants := func(b stand.Built, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains("\n"+b.Log, w) {
				t.Errorf("the log has no %q:\n%s", w, b.Log)
			}
		}
	}
	first := build("docked")
	check("docked", "a\n", "me\n")
	wants(first, "Dockerfile line 28: VOLUME is passed over", "\n[build 2/7] WORKDIR /src", "\n[files 2/2] COPY --from=build /src/link result",
		"\n[last 7/7] RUN mkdir bin", "Running start command: mine >")
	if again := build("again"); again.Took > time.Second {
		t.Errorf("the same build took %s:\n%s", again.Took, again.Log)
	}
	// What no step copies has nothing done again, though the archive is another.
	files["src/c.md"] = "changed"
	if again := build("again"); again.Took > time.Second {
		t.Errorf("the same build with another context took %s:\n%s", again.Took, again.Log)
	}
	files["docs/read"] = "you\n"
	changed := build("docked")
	check("docked", "a\n", "you\n")
	wants(changed, "CACHED [last 4/7]", "\n[last 5/7] COPY --chown=user docs/ docs", "\n[last 7/7] RUN")
	if strings.Contains(changed.Log, "[build") || strings.Contains(changed.Log, "[files") {
		t.Errorf("steps of stages that nobody needs:\n%s", changed.Log)
	}
	files["src/a.txt"] = "A\n"
	changed = build("docked")
	check("docked", "A\n", "you\n")
	wants(changed, "CACHED [build 3/7]", "\n[build 4/7] COPY src/*.txt ./", "\n[files 2/2]", "CACHED [last 1/7]", "\n[last 2/7]")
	t.Logf("first %s:\n%s\nlast %s:\n%s", first.Took, first.Log, changed.Took, changed.Log)
	left(t, s)
}

// TestDockerfilePath: the PATH that ENV sets is that of later steps and of the
// start command, also where a login shell would set another one.
func TestDockerfilePath(t *testing.T) {
	s := stand.Start(t)
	text := `FROM e2bdev/base
ENV PATH=/opt/a:$PATH
RUN mkdir /opt/a && printf '#!/bin/sh\necho first $HOME\n' > /opt/a/ls && chmod 755 /opt/a/ls
USER app
WORKDIR /home/app/site
RUN ls > said; id -un >> said; pwd >> said
CMD ls > started && sleep 1000
`
	s.Build(t, "paths", map[string]any{"dockerfile": text, "readyCmd": "test -s started"}).Ready(t)
	sb := s.Create(t, map[string]any{"templateID": "paths", "timeout": 60})
	defer sb.Kill(t)
	if got := sb.Run(t, "cat /home/app/site/said /home/app/site/started"); got.Stdout != "first /home/app\napp\n/home/app/site\nfirst /home/app\n" {
		t.Errorf("%+v", got)
	}
	// The same by steps of the protocol.
	steps := []map[string]any{{"type": "ENV", "args": []string{"PATH", "/none:$PATH"}}, {"type": "RUN", "args": []string{"ls > again"}}}
	s.Build(t, "child", map[string]any{"fromTemplate": "paths", "steps": steps, "readyCmd": "grep first again"}).Ready(t)
}

func TestDockerfilesThatFail(t *testing.T) {
	s := stand.Start(t)
	for what, tt := range map[string]struct {
		text  string
		step  string
		words []string
	}{
		"a command": {"FROM e2bdev/base AS a\nRUN true\nRUN false\nFROM e2bdev/base\nRUN true\nCOPY --from=a /x /y", "2", []string{"Dockerfile line 3: failed to run command 'false'"}},
		"a copy":    {"FROM e2bdev/base AS a\nFROM e2bdev/base\nRUN true\nCOPY --from=a /nowhere /y", "2", []string{"Dockerfile line 4: failed to copy '/nowhere' to '/y': ", "no such file"}},
		"an image":  {"FROM e2bdev/base\nCOPY --from=10.255.255.1/x:1 /a /b", "base", []string{"Dockerfile line 2: ", "cannot be reached"}},
		"nothing":   {"FROM scratch\nRUN true", "1", []string{"Dockerfile line 2: "}},
	} {
		t.Run(what, func(t *testing.T) {
			s.Build(t, "fails", map[string]any{"dockerfile": tt.text}).Failed(t, tt.step, tt.words...)
		})
	}
	for text, words := range map[string]string{
		"FROM e2bdev/base\nCOPY a b":  "line 2: it copies from the build context",
		"FROM e2bdev/base\n\nFETCH a": "line 3",
		"RUN true":                    "line 1",
	} {
		status, body := s.Do(t, "POST", "/v3/templates", map[string]any{"name": "refused"})
		if status != 202 {
			t.Fatalf("%d %v", status, body)
		}
		path := "/v2/templates/" + body["templateID"].(string) + "/builds/" + body["buildID"].(string)
		status, answer := s.Do(t, "POST", path, map[string]any{"dockerfile": text})
		if said, _ := answer["message"].(string); status != 400 || !strings.Contains(said, words) {
			t.Errorf("%q: %d %v", text, status, answer)
		}
	}
	left(t, s)
}
