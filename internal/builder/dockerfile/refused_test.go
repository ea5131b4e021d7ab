package dockerfile_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder/dockerfile"
)

func TestRefused(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "Dockerfile: file with no instructions"},
		{"# nothing", "line 1: file with no instructions"},
		{"ARG A=1", "the Dockerfile has no FROM"},
		{"RUN x\nFROM a", "line 1: RUN stands before the first FROM, where only ARG can"},
		{"FROM a\nFETCH x", `line 2: "FETCH" is no instruction`},
		{"FROM a\nENV A", "line 2: ENV must have two arguments"},
		{"FROM a\n\nENV A=1 B", "line 3: Syntax error - can't find = in \"B\". Must be of the form: name=value"},
		{"FROM a\nRUN <<E\nx", "line 2: unterminated heredoc"},
		{"FROM a\x00", "the Dockerfile is not a text in UTF-8"},
		{"FROM a\nRUN \xff", "the Dockerfile is not a text in UTF-8"},

		{"FROM", "line 1: FROM is followed by an image, or by an image, AS and a name"},
		{"FROM a b c d", "line 1: FROM is followed by an image, or by an image, AS and a name"},
		{"FROM a AS 1st", `line 1: "1st" cannot be the name of a stage`},
		{"FROM $NONE", "line 1: FROM $NONE is FROM nothing: its arguments must be defined by an ARG before the first FROM, or given"},
		{"FROM ${A", "line 1: ${A is no reference to a variable"},
		{"FROM --platform=linux/arm64 a", `line 1: the platform "linux/arm64" is not supported: builds and sandboxes are linux/amd64`},
		{"FROM --platform=$NONE a", `line 1: the platform "" is not supported: builds and sandboxes are linux/amd64`},
		{"FROM --pull a", "line 1: FROM has no flag --pull"},

		{"FROM a\nONBUILD RUN x", "line 2: ONBUILD is not supported: no image comes of this build; write the instruction where it is to be done"},
		{"FROM a\nRUN --mount=type=bind,target=/x x", "line 2: RUN --mount=type=bind is not supported: copy what the command needs with COPY before it"},
		{"FROM a\nRUN --mount=target=/x x", "line 2: RUN --mount=type=bind is not supported: copy what the command needs with COPY before it"},
		{"FROM a\nRUN --mount=type=secret,id=x x", "line 2: RUN --mount=type=secret is not supported: a build gets no secrets; let the sandbox fetch what needs one"},
		{"FROM a\nRUN --mount=type=ssh x", "line 2: RUN --mount=type=ssh is not supported: a build gets no secrets; let the sandbox fetch what needs one"},
		{"FROM a\nRUN --mount=type=$T x", "line 2: RUN --mount=type=$t is not supported"},
		{"FROM a\nRUN --network=host x", "line 2: RUN --network=host is not supported: commands have the network of a sandbox"},
		{"FROM a\nRUN --security=insecure x", "line 2: RUN --security=insecure is not supported: commands run in a sandbox"},
		{"FROM a\nRUN --device=gpu x", "line 2: RUN --device is not supported: a sandbox has no devices of the host"},
		{"FROM a\nRUN", "line 2: RUN has no command"},
		{"FROM a\nRUN []", "line 2: RUN has no command"},
		{"FROM a\nRUN [1]", "line 2: when using JSON array syntax, arrays must be comprised of strings only"},
		{"FROM a\nSHELL [\"pwsh\", \"-c\"]", `line 2: SHELL is supported for sh, bash and their kin, with -c at the end, as in ["/bin/bash", "-o", "pipefail", "-c"]`},
		{"FROM a\nSHELL bash -c", "line 2: SHELL is followed by a JSON array of strings"},

		{"FROM a\nCOPY x", "line 2: COPY is followed by what is to be copied, and by where to"},
		{"FROM a\nCOPY x y z", `line 2: COPY of more than one source goes to a directory: end "z" with a /`},
		{"FROM a\nCOPY --exclude=*.md x y", "line 2: COPY --exclude is not supported: name what is to be copied, or leave files out with .dockerignore"},
		{"FROM a\nCOPY --parents x y", "line 2: COPY --parents is not supported: copy each directory to its place"},
		{"FROM a\nCOPY --link=no x y", "line 2: --link is either true or false"},
		{"FROM a\nCOPY --chown x y", "line 2: --chown has no value"},
		{"FROM a\nCOPY --chown=a --chown=b x y", "line 2: --chown is given twice"},
		{"FROM a\nCOPY --chmod=99 x y", "line 2: --chmod=99 is no mode: it is octal, up to 7777, or like u=rwX,go=rX"},
		{"FROM a\nCOPY --from=$X x y", "line 2: --from cannot refer to a variable: begin a stage with FROM $X AS name, and copy from that"},
		{"FROM a\nCOPY --from=0 x y", "line 2: --from=0 is no stage before this one"},
		{"FROM a\nCOPY --from=later x y\nFROM b AS later\nFROM a\nCOPY --from=0 / /", "line 2: --from=later is no stage before this one"},
		{"FROM a\nCOPY $X y", "line 2: the source $X depends on X, which only the image can define; define it with ARG or ENV"},
		{"FROM a\nENV PATH=/x:$PATH\nCOPY $PATH y", "line 3: the source $PATH depends on PATH, which only the image can define; define it with ARG or ENV"},
		{"FROM a\nARG X=\nCOPY $X y", "line 3: the source $X is empty"},
		{"FROM a\nCOPY x <<E\nE", "line 2: COPY cannot copy to a here-document"},
		{"FROM a\nCOPY <<E y\n$host\nE", "line 2: the here-document E refers to host, which only the image can define: define it with ARG or ENV, or write <<'E' to keep dollar signs"},
		{"FROM a\nCOPY <<E y\n${\nE", "line 2: in the here-document E: ${ is no reference to a variable"},
		{"FROM a\nADD https://example.com/x y", "line 2: ADD from a URL is not supported: download it with RUN"},
		{"FROM a\nADD git@example.com:x.git y", "line 2: ADD from a URL is not supported: download it with RUN"},
		{"FROM a\nADD --checksum=sha256:1 x y", "line 2: ADD from a URL is not supported: download it with RUN"},
		{"FROM a\nADD x.tar.gz y", "line 2: ADD of an archive is not supported: COPY it and unpack it with RUN, or write ADD --unpack=false"},
		{"FROM a\nADD *.TGZ y", "line 2: ADD of an archive is not supported: COPY it and unpack it with RUN, or write ADD --unpack=false"},
		{"FROM a\nADD --unpack=true x y", "line 2: ADD --unpack is not supported: COPY the archive and unpack it with RUN"},

		{"FROM a\nARG", "line 2: ARG names nothing"},
		{"FROM a\nARG =1", "line 2: ARG names nothing"},
		{"FROM a\nENV P=$P\nARG Q=$P", "line 3: this ARG depends on P, whose value only the image decides; use ENV"},
		{"FROM a\nENV ${P}=1", "line 2: the name of a variable depends on P, which only the image can define; define it with ARG or ENV"},
		{`FROM a` + "\n" + `ENV P=C:\\$P`, "line 2: a backslash before the reference to a variable of the image is not supported"},
		{"FROM a\nENV P=${Q:?gone}", "line 2: ${Q:?} asks for a variable that only the image can have; write ${Q}"},
		{"FROM a\nENV P=${Q#x}", "line 2: ${Q#x} needs the value of a variable that only the image can have; define it with ARG or ENV"},
		{"FROM a\nARG Q=x\nENV P=${Q#$Q}", "line 3: a reference in the pattern of another is not supported; put it into an ARG of its own"},
		{"FROM a\nARG Q=\"${R:?is missing}\"", "line 2: R: is missing"},
		{"FROM a\nENV P='x", "line 2: a quotation that begins with ' has no end"},
		{"FROM a\nENV P=${Q!x}", "line 2: ${Q!...} is no way to refer to a variable that is supported"},
		{"FROM a\nWORKDIR", "line 2: WORKDIR names no directory"},
		{"FROM a\nUSER", "line 2: USER names nobody"},
		{"FROM a\nHEALTHCHECK", "line 2: HEALTHCHECK is followed by CMD or NONE"},
		{"FROM a\nHEALTHCHECK GET x", "line 2: HEALTHCHECK is followed by CMD or NONE"},
		{"FROM a\nHEALTHCHECK CMD", "line 2: HEALTHCHECK CMD is followed by a command"},
		{"FROM a\nUSER --x y", "line 2: USER has no flag --x"},
	} {
		_, err := dockerfile.Parse([]byte(test.text), dockerfile.Options{})
		kind, words := cove.Describe(err)
		if words = strings.TrimPrefix(words, "Dockerfile "); kind != cove.Invalid || words != test.want {
			t.Errorf("%q\n got  %s (%v)\n want %s", test.text, words, kind, test.want)
		}
	}
	_, err := dockerfile.Parse([]byte("FROM a"), dockerfile.Options{Args: map[string]string{"A": "\x00"}})
	if !cove.Is(err, cove.Invalid) {
		t.Errorf("an argument that no process could have: %v", err)
	}
}

// TestLimits has files that would take for ever, or all memory.
func TestLimits(t *testing.T) {
	line := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for name, test := range map[string]struct{ text, want string }{
		"long":            {strings.Repeat("#", 1<<20+1), "bytes"},
		"lines":           {"FROM a\nRUN <<E\n" + strings.Repeat("\n", 20_000) + "E", "lines"},
		"instructions":    {strings.Repeat("FROM a\n", 1001), "line 1001: a Dockerfile can have 1000 instructions"},
		"comments within": {"FROM a\nRUN " + strings.Repeat("x \\\n# "+strings.Repeat("c", 300)+"\n\n", 3000), ""},
		"long document":   {"FROM a\nRUN <<E\n" + strings.Repeat(strings.Repeat("x", 207)+"\n", 4990) + "E", ""},
		"long line":       {"FROM a\nRUN " + strings.Repeat("x", 1<<16), "line 2: an instruction can have 65536 bytes"},
		"long and broken": {"FROM a\nRUN " + strings.Repeat(strings.Repeat("x", 30)+"\\\n", 4000), "an instruction can have 65536 bytes"},
		"nested onbuild":  {"FROM a\n" + strings.Repeat("ONBUILD ", 8000) + "RUN x", "line 2: ONBUILD"},
		"nested braces":   {"FROM a\nENV A=" + strings.Repeat("${B:-", 12_000), "nested"},
		"in heredoc line": {"FROM a\nRUN <<E " + strings.Repeat("${B:-", 12_000) + "\nE", ""},
		"steps":           {"FROM a\nCOPY " + strings.Repeat("a ", 1001) + "b/", "line 2: a Dockerfile can have 1000 steps"},
		"doubling":        {"FROM a\nARG A0=xxxxxxxxxx\n" + line(900, "ARG A0=$A0$A0 # %d\n"), "the variables of a stage can have"},
		"replacing":       {"FROM a\nARG A=" + strings.Repeat("x", 60_000) + "\nARG B=${A//?/" + strings.Repeat("y", 60_000) + "}", "come to more than"},
		"again and again": {"FROM a\nARG A=" + strings.Repeat("x", 60_000) + "\n" + line(900, "COPY $A$A$A$A$A$A$A$A /%d\n"), "come to more than"},
		"many variables":  {"FROM a\n" + line(400, "ARG V%d="+strings.Repeat("x", 200)+"\nRUN x\n"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			_, err := dockerfile.Parse([]byte(test.text), dockerfile.Options{})
			took := time.Since(begun)
			if took > 5*time.Second {
				t.Errorf("took %s", took)
			}
			if err != nil && !cove.Is(err, cove.Invalid) || err == nil && test.want != "" || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("want %q, got %v", test.want, err)
			}
			t.Logf("%s: %.100v", took, err)
		})
	}
}
