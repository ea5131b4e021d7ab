// Package account knows the users of the sandbox: who they are, what a path
// means to them, and how directories become theirs.
//
// It is not access control: the daemon does everything as root, and a user
// decides no more than ownership and the meaning of relative paths. Only the
// packages of the daemon import it; it starts no goroutines.
package account

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A User is a line of the password file with the groups that list it.
type User struct {
	Name   string
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary ones; GID is not repeated
	Home   string
}

// UnknownError says that there is no user of that name.
type UnknownError string

// Error returns the words that clients of the protocol know.
func (e UnknownError) Error() string { return "user: unknown user " + string(e) }

// maxDatabase bounds what is read of a database.
const maxDatabase = 16 << 20

// A Directory reads the users and groups of the sandbox. It is safe for
// concurrent use.
type Directory struct {
	passwd, group string

	mu     sync.Mutex
	read   [2]stamp    // guarded by mu; the versions the maps were made from
	users  []User      // guarded by mu; in the file's order, without Groups
	groups []groupLine // guarded by mu
}

type groupLine struct {
	name    string
	gid     uint32
	members []string
}

// stamp tells versions of a file apart without reading it: tools replace the
// databases by renaming, so that a new version is a new inode.
type stamp struct {
	ino     uint64
	size    int64
	changed time.Time
}

// New returns a Directory of the password and group files at those paths.
func New(passwd, group string) *Directory {
	return &Directory{passwd: passwd, group: group}
}

// Lookup returns the user of that name or, if it is a number and nobody's name,
// of that identifier; the error is an UnknownError if there is none. Root exists
// even where no file says so.
func (d *Directory) Lookup(name string) (User, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refresh(); err != nil {
		return User{}, err
	}
	i := slices.IndexFunc(d.users, func(u User) bool { return u.Name == name })
	if uid, ok := number(name); i < 0 && ok { // as in a Dockerfile's USER
		i = slices.IndexFunc(d.users, func(u User) bool { return u.UID == uid })
	}
	if i < 0 {
		if name == "root" {
			return User{Name: "root", Home: "/root"}, nil
		}
		return User{}, UnknownError(name)
	}
	u := d.users[i]
	for _, g := range d.groups {
		if g.gid != u.GID && slices.Contains(g.members, name) && !slices.Contains(u.Groups, g.gid) {
			u.Groups = append(u.Groups, g.gid)
		}
	}
	return u, nil
}

// FromHeader returns the user that a call names by HTTP Basic authorization, or
// the one called fallback. The password says nothing.
func (d *Directory) FromHeader(h http.Header, fallback string) (User, error) {
	name, _, ok := (&http.Request{Header: h}).BasicAuth()
	if !ok || name == "" {
		name = fallback
	}
	u, err := d.Lookup(name)
	if _, unknown := errors.AsType[UnknownError](err); unknown {
		return User{}, fmt.Errorf("invalid username: '%s'", name)
	}
	return u, err
}

// Names returns the names of an owner and a group, or their numbers in decimal
// where there are no names.
func (d *Directory) Names(uid, gid uint32) (owner, group string) {
	owner, group = strconv.FormatUint(uint64(uid), 10), strconv.FormatUint(uint64(gid), 10)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refresh() != nil {
		return owner, group
	}
	if i := slices.IndexFunc(d.users, func(u User) bool { return u.UID == uid }); i >= 0 {
		owner = d.users[i].Name
	}
	if i := slices.IndexFunc(d.groups, func(g groupLine) bool { return g.gid == gid }); i >= 0 {
		group = d.groups[i].name
	}
	return owner, group
}

// refresh reads what has changed. d.mu is held: the databases are small, local
// and needed by whoever waits for the lock.
func (d *Directory) refresh() error {
	now := [2]stamp{stampOf(d.passwd), stampOf(d.group)}
	if now == d.read && now != [2]stamp{} {
		return nil
	}
	users, err := readLines(d.passwd, parseUser)
	if err != nil {
		return err
	}
	groups, err := readLines(d.group, parseGroup)
	if err != nil {
		return err
	}
	d.users, d.groups, d.read = users, groups, now
	return nil
}

func stampOf(path string) stamp {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return stamp{}
	}
	return stamp{st.Ino, st.Size, time.Unix(st.Mtim.Unix())}
}

// readLines parses the lines of a database; a missing one is empty.
func readLines[T any](path string, parse func(fields []string) (T, bool)) ([]T, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []T
	lines := bufio.NewScanner(io.LimitReader(f, maxDatabase))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); line != "" && line[0] != '#' {
			if v, ok := parse(strings.Split(line, ":")); ok {
				out = append(out, v)
			}
		}
	}
	return out, lines.Err()
}

// parseUser parses name:password:uid:gid:comment:home:shell.
func parseUser(f []string) (User, bool) {
	if len(f) < 6 {
		return User{}, false
	}
	uid, err1 := strconv.ParseUint(f[2], 10, 32)
	gid, err2 := strconv.ParseUint(f[3], 10, 32)
	home := f[5]
	if home == "" {
		home = "/"
	}
	return User{Name: f[0], UID: uint32(uid), GID: uint32(gid), Home: home}, errors.Join(err1, err2) == nil
}

// parseGroup parses name:password:gid:members.
func parseGroup(f []string) (groupLine, bool) {
	if len(f) < 4 {
		return groupLine{}, false
	}
	gid, err := strconv.ParseUint(f[2], 10, 32)
	return groupLine{f[0], uint32(gid), strings.Split(f[3], ",")}, err == nil
}
