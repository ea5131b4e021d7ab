package builder_test

import (
	"archive/tar"
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder"
	"github.com/cove-sandbox/cove/internal/image"
)

// docker is the order of a Dockerfile.
func docker(text, hash string) cove.BuildOrder {
	return cove.BuildOrder{Dockerfile: &cove.Dockerfile{Text: text, Context: hash}}
}

// upload keeps a build context with small files, under a hash of this letter.
func (s *site) upload(t *testing.T, letter, content string, names ...string) (hash string) {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range names {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	hash = strings.Repeat(letter, 64)
	if err := s.uploads.Store(t.Context(), team, hash, &buf); err != nil {
		t.Fatal(err)
	}
	return hash
}

// wantRan demands what ran, apart from how long archives were.
func (s *site) wantRan(t *testing.T, want ...string) {
	t.Helper()
	// The start command runs beside the ready command.
	ran := slices.DeleteFunc(s.ran(), func(r string) bool { return r == "sleep 20" })
	for i, r := range ran {
		ran[i], _, _ = strings.Cut(r, " (")
	}
	if !slices.Equal(ran, want) {
		t.Errorf("ran %q, want %q\n%s", ran, want, strings.Join(s.log, "\n"))
	}
}

const stagesText = `FROM image:1 AS common
RUN common

FROM common AS build
COPY src/* ./
RUN make

FROM common
USER app
COPY --from=build /written /app/
COPY --from=image:2 /bin/sh /sh
RUN last
CMD serve
`

func TestStages(t *testing.T) {
	s := newSite(t, nil)
	hash := s.upload(t, "a", "1", "src/x", "src/y", "other")
	b, err := s.build(t, docker(stagesText, hash), nil)
	if err != nil {
		t.Fatal(err, s.log)
	}
	// What stages have in common is done once.
	s.wantRan(t, "prepare", "common", "copy . ./ 0:0 ", "make", "as root: app", `copy written /app/  `, `copy sh /sh  `, "last", "serve")
	if b.User != "app" || b.Workdir != "" || b.Start != "serve" || b.Snapshot == "" {
		t.Errorf("%+v", b)
	}
	for _, want := range []string{"base: [base] FROM image:1", "1: [common 1/1] RUN common", "2: [build 1/2] COPY src/* ./", "1: CACHED [common 1/1] RUN common", "4: [stage-2 1/4] USER app", "7: [stage-2 4/4] RUN last"} {
		if !slices.Contains(s.log, want) {
			t.Errorf("the log has no %q: %q", want, s.log)
		}
	}
	again, err := s.build(t, docker(stagesText, hash), nil)
	if err != nil || again.Snapshot != b.Snapshot {
		t.Errorf("%+v, %v", again, err)
	}
	s.wantRan(t)
	// Another archive with the same files that are copied.
	hash = s.upload(t, "b", "1", "src/x", "src/y", "another")
	if again, err = s.build(t, docker(stagesText, hash), nil); err != nil || again.Snapshot != b.Snapshot {
		t.Errorf("%+v, %v", again, err)
	}
	s.wantRan(t)
	// Other files: what follows is done again.
	hash = s.upload(t, "c", "2", "src/x", "src/y")
	if _, err = s.build(t, docker(stagesText, hash), nil); err != nil {
		t.Fatal(err)
	}
	s.wantRan(t, "copy . ./ 0:0 ", "make", "copy written /app/  ", "copy sh /sh  ", "last", "serve")
	// A change of the end needs no other stage.
	if _, err = s.build(t, docker(strings.ReplaceAll(stagesText, "RUN last", "RUN other"), hash), nil); err != nil {
		t.Fatal(err)
	}
	s.wantRan(t, "other", "serve")
	forced := docker(stagesText, hash)
	forced.Force, forced.Start, forced.Ready = true, "given", "ready"
	if _, err = s.build(t, forced, nil); err != nil {
		t.Fatal(err)
	}
	if ran := s.ran(); len(ran) != 10 || slices.Index(ran, "given") < 0 || slices.Index(ran, "serve") >= 0 {
		t.Errorf("ran %q", ran)
	}
}

func TestStageFromScratchAndTarget(t *testing.T) {
	s := newSite(t, nil)
	order := docker("FROM scratch AS files\nWORKDIR /w\nCOPY <<E x*\nhello\nE\nFROM image:1 AS mid\nCOPY --from=files /written .\nCOPY --from=files /none* .\nFROM mid\nRUN never\n", "")
	order.Dockerfile.Target = "mid"
	if _, err := s.build(t, order, nil); err != nil {
		t.Fatal(err, s.log)
	}
	s.wantRan(t, "copy . /w  ", "copy E x* 0:0 0644", "prepare", "copy written ./  ")
	if !slices.Contains(s.log, "4: [mid 2/2] nothing matches '/none*'") {
		t.Errorf("%q", s.log)
	}
}

func TestStageFromTheBaseTemplate(t *testing.T) {
	s := newSite(t, nil)
	base, err := s.build(t, cove.BuildOrder{FromImage: "image:1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.ran()
	var seen builder.Command
	s.answer = func(_ context.Context, c builder.Command) int { seen = c; return 0 }
	b, err := s.buildOn(t, docker("FROM e2bdev/base:latest\nENV PATH=/x:$PATH\nARG A=1\nRUN work", ""), &base)
	if err != nil {
		t.Fatal(err, s.log)
	}
	if want := "export PATH=\"/x:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"\nwork"; seen.Args[3] != want || seen.User != "root" || seen.Dir != "/" || seen.Env["A"] != "1" {
		t.Errorf("%+v", seen)
	}
	if b.User != "user" || b.Workdir != "" || b.BuildEnv["A"] != "" {
		t.Errorf("%+v", b)
	}
}

func TestDockerfileFails(t *testing.T) {
	s := newSite(t, nil)
	s.answer = func(_ context.Context, c builder.Command) int {
		if slices.Contains(c.Args, "bad") {
			return 7
		}
		return 0
	}
	_, err := s.build(t, docker("FROM image:1 AS a\n\nRUN bad\nFROM image:1\nCOPY --from=a /x /x", ""), nil)
	wantStep(t, err, "1", "Dockerfile line 3: failed to run command 'bad': exit status 7")
	_, err = s.build(t, docker("FROM image:1\nCOPY --from=image:2 /nowhere /x", ""), nil)
	wantStep(t, err, "1", "Dockerfile line 2: failed to copy '/nowhere'", "no such file")
	hash := s.upload(t, "a", "1", "x")
	_, err = s.build(t, docker("FROM image:1\nRUN good\nCOPY y z", hash), nil)
	wantStep(t, err, cove.BaseStep, "Dockerfile line 3: ", "no such file")
	if err := s.uploads.Store(t.Context(), team, hash, strings.NewReader("no archive")); err != nil {
		t.Fatal(err)
	}
	_, err = s.build(t, docker("FROM image:1\nCOPY y z", hash), nil)
	wantStep(t, err, cove.BaseStep, "the build context cannot be read")
}

func TestCheckDockerfile(t *testing.T) {
	s := newSite(t, nil)
	images, err := s.Check(docker("FROM scratch\nFROM a\nFROM a AS b\nFROM b\nCOPY --from=c x y\nCOPY --from=1 x y", ""))
	if err != nil || !slices.Equal(images, []string{"a", "c"}) {
		t.Errorf("%v, %v", images, err)
	}
	many := "FROM a AS s\n" + strings.Repeat("RUN a\n", 100) + strings.Repeat("FROM s AS s\nRUN a\n", 100)
	for text, words := range map[string]string{
		"FROM a\nCOPY b c":                   "Dockerfile line 2: it copies from the build context",
		"FROM a\nWHAT":                       "Dockerfile line 2",
		"FROM a\nCOPY --from=scratch b c":    "Dockerfile line 2: there is nothing",
		"FROM a\nENV A=$B\nUSER $A/x":        "Dockerfile line 3",
		many:                                 "more than 5000 steps",
		"FROM a\nCOPY --chmod=$X8 <<E /a\nE": "",
	} {
		if _, err := s.Check(docker(text, "")); words != "" && (!cove.Is(err, cove.Invalid) || !strings.Contains(err.Error(), words)) {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}

// asked notes with whose login images are looked for. It finds all of them,
// with nothing in them.
type asked map[string]string

func (a asked) Find(_ context.Context, ref string, login cove.RegistryLogin, _ string) (*image.Image, string, error) {
	a[ref] = login.User
	return &image.Image{}, ref, nil
}

// TestLoginIsForOneRegistry: no registry gets the credentials of another.
func TestLoginIsForOneRegistry(t *testing.T) {
	for _, tt := range []struct{ ref, other, user, otherUser string }{
		{"debian", "own.example/app:1", "", "me"}, {"docker.io/a/b", "localhost:5000/b", "", "me"},
		{"own.example/a", "own.example/b", "me", "me"}, {"own.example/a", "other.example/b", "me", ""},
		{"a/b", "debian", "me", "me"},
	} {
		for _, text := range []string{"FROM " + tt.ref + "\nFROM " + tt.other + "\nCOPY --from=0 a b", "FROM " + tt.ref + "\nCOPY --from=" + tt.other + " a b"} {
			a := asked{}
			s := newSite(t, func(c *builder.TemplatesConfig) { c.Sources = a })
			order := docker(text, "")
			order.Login = cove.RegistryLogin{Kind: cove.BasicLogin, User: "me"}
			_, err := s.build(t, order, nil) // nothing is there to be copied
			if a[tt.ref] != tt.user || a[tt.other] != tt.otherUser || len(a) != 2 {
				t.Errorf("%q: %v, %v", text, a, err)
			}
		}
	}
}
