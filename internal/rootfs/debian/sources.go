package debian

import (
	"bufio"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Source is one suite of a package archive.
type Source struct {
	URI        string
	Suite      string // as the host names it: "bookworm-security"
	Components []string
	SignedBy   string // path of a keyring; empty: not said
}

// parseOneLine reads entries such as
//
//	deb [signed-by=/k.gpg arch=amd64] https://mirror.example/debian bookworm main
func parseOneLine(lines *bufio.Scanner) []Source {
	var sources []Source
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == "" || !strings.ContainsAny(rest[:1], " \t[") {
			continue
		}
		var s Source
		rest = strings.TrimSpace(rest)
		if options, ok := strings.CutPrefix(rest, "["); ok {
			if options, rest, ok = strings.Cut(options, "]"); !ok {
				continue
			}
			for _, o := range strings.Fields(options) {
				if v, ok := strings.CutPrefix(strings.ToLower(o), "signed-by="); ok {
					s.SignedBy = o[len(o)-len(v):]
				}
			}
		}
		fields := strings.Fields(rest)
		if len(fields) < 3 {
			continue
		}
		s.URI, s.Suite, s.Components = fields[0], fields[1], fields[2:]
		sources = append(sources, s)
	}
	return sources
}

// parseDeb822 reads stanzas of fields, separated by empty lines.
func parseDeb822(lines *bufio.Scanner) []Source {
	var sources []Source
	fields := map[string]string{}
	last := ""
	end := func() {
		sources = append(sources, stanza(fields)...)
		fields, last = map[string]string{}, ""
	}
	for lines.Scan() {
		line := lines.Text()
		switch name, value, ok := strings.Cut(line, ":"); {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			end()
		case line[0] == ' ' || line[0] == '\t':
			fields[last] += "\n" + strings.TrimSpace(line)
		case ok:
			last = strings.ToLower(strings.TrimSpace(name))
			fields[last] = strings.TrimSpace(value)
		}
	}
	end()
	return sources
}

func stanza(f map[string]string) []Source {
	if !slices.Contains(strings.Fields(f["types"]), "deb") {
		return nil
	}
	switch strings.ToLower(f["enabled"]) {
	case "no", "false", "0":
		return nil
	}
	var sources []Source
	for _, uri := range strings.Fields(f["uris"]) {
		for _, suite := range strings.Fields(f["suites"]) {
			sources = append(sources, Source{
				URI: uri, Suite: suite, Components: strings.Fields(f["components"]), SignedBy: f["signed-by"],
			})
		}
	}
	return sources
}

// The parts of Debian's archive.
var components = []string{"main", "contrib", "non-free", "non-free-firmware"}

// isDebian tells Debian's own archive from third parties', which like to use
// its suites and to end in /debian too. An entry that names a keyring must name
// Debian's; one that does not must at least look like a mirror.
func (s Source) isDebian() bool {
	u, err := url.Parse(s.URI)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return false
	}
	if !slices.Contains(s.Components, "main") || s.suffix() == "?" {
		return false
	}
	for _, key := range strings.FieldsFunc(s.SignedBy, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
		if !path.IsAbs(key) || !strings.HasPrefix(path.Base(key), "debian-archive-") {
			return false
		}
	}
	return s.SignedBy != "" || strings.Contains(path.Base(path.Clean(u.Path)), "debian")
}

var suitePattern = regexp.MustCompile(`^[a-z]+(-security|-updates|/updates)?$`)

// suffix says which of a release's suites s is: "", "-updates" or "-security".
// "?" is one we do not use, such as backports.
func (s Source) suffix() string {
	m := suitePattern.FindStringSubmatch(s.Suite)
	switch {
	case m == nil:
		return "?"
	case m[1] == "/updates": // security, until Debian 10
		return "-security"
	}
	return m[1]
}

// lines returns the lines of sources.list for suite: the host's mirrors, but
// not the host's release. There are none if the host does not say where the
// main suite is. Without updates they name the main suite alone.
func (h Host) lines(suite string, updates bool) []string {
	var lines []string
	main := false
	for _, s := range h.Sources {
		suffix := s.suffix()
		if suffix != "" && !updates {
			continue
		}
		main = main || suffix == ""
		options := ""
		if s.SignedBy != "" {
			options = fmt.Sprintf("[signed-by=%s] ", strings.Join(strings.Fields(s.SignedBy), ","))
		}
		wanted := slices.DeleteFunc(slices.Clone(s.Components), func(c string) bool { return !slices.Contains(components, c) })
		line := fmt.Sprintf("deb %s%s %s %s", options, s.URI, suite+suffix, strings.Join(wanted, " "))
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if !main {
		return nil
	}
	return lines
}
