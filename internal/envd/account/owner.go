package account

import (
	"slices"
	"strconv"
	"strings"
)

// UnknownGroupError says that there is no group of that name.
type UnknownGroupError string

// Error says so.
func (e UnknownGroupError) Error() string { return "group: unknown group " + string(e) }

// Owner returns the numbers of the owner and the group that spec names, "user"
// or "user:group", each a name or a decimal number. As in a Dockerfile, a user
// without a group brings the primary one if it is a name and the group of the
// same number if it is a number, which no database needs to know. The error is
// an UnknownError or an UnknownGroupError if there is no such name.
func (d *Directory) Owner(spec string) (uid, gid uint32, err error) {
	name, group, grouped := strings.Cut(spec, ":")
	uid, ok := number(name)
	gid = uid
	if !ok {
		u, err := d.Lookup(name)
		if err != nil {
			return 0, 0, err
		}
		uid, gid = u.UID, u.GID
	}
	if grouped {
		if gid, err = d.groupID(group); err != nil {
			return 0, 0, err
		}
	}
	return uid, gid, nil
}

// number parses the number of a user or a group. What is larger has a meaning
// of its own to the kernel.
func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return uint32(n), err == nil
}

// groupID returns the number of a group; root's exists even where no file says so.
func (d *Directory) groupID(name string) (uint32, error) {
	if n, ok := number(name); ok {
		return n, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refresh(); err != nil {
		return 0, err
	}
	i := slices.IndexFunc(d.groups, func(g groupLine) bool { return g.name == name })
	switch {
	case i >= 0:
		return d.groups[i].gid, nil
	case name == "root":
		return 0, nil
	}
	return 0, UnknownGroupError(name)
}
