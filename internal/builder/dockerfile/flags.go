package dockerfile

import (
	"slices"
	"strings"
)

// flags are an instruction's, by name and without dashes.
type flags map[string][]string

// knownFlags returns the flags an instruction has in a Dockerfile, supported
// here or not.
func knownFlags(name string) []string {
	switch name {
	case "FROM":
		return []string{"platform"}
	case "RUN":
		return []string{"mount", "network", "security", "device"}
	case "COPY":
		return []string{"from", "chown", "chmod", "link", "exclude", "parents"}
	case "ADD":
		return []string{"chown", "chmod", "link", "exclude", "unpack", "checksum", "keep-git-dir"}
	case "HEALTHCHECK":
		return []string{"interval", "timeout", "start-period", "start-interval", "retries"}
	}
	return nil
}

func readFlags(in instruction, raw []string) (flags, error) {
	known := knownFlags(in.name)
	var read flags
	for _, f := range raw {
		name, value, valued := strings.Cut(strings.TrimPrefix(f, "--"), "=")
		if !slices.Contains(known, name) {
			return nil, refuse(in.line, "%s has no flag --%s", in.name, name)
		}
		repeats := name == "mount" || name == "exclude" || name == "device"
		if read[name] != nil && !repeats {
			return nil, refuse(in.line, "--%s is given twice", name)
		}
		if boolean := name == "link" || name == "parents" || name == "unpack" || name == "keep-git-dir"; boolean {
			value = strings.ToLower(value)
			if !valued {
				value = "true"
			}
			if value != "true" && value != "false" {
				return nil, refuse(in.line, "--%s is either true or false", name)
			}
		} else if !valued && name != "device" {
			return nil, refuse(in.line, "--%s has no value", name)
		}
		if read == nil {
			read = flags{}
		}
		read[name] = append(read[name], value)
	}
	return read, nil
}

// get returns the value of a flag that is given once at most; empty if not.
func (f flags) get(name string) string {
	if len(f[name]) == 0 {
		return ""
	}
	return f[name][0]
}
