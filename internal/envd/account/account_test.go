package account_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cove-sandbox/cove/internal/envd/account"
)

func TestResolve(t *testing.T) {
	u := account.User{Name: "user", Home: "/home/user"}
	for _, c := range []struct{ path, workdir, want string }{
		{"", "", "/home/user"},
		{"", "/work", "/work"},
		{"", "sub", "/home/user/sub"},
		{"~", "/work", "/home/user"},
		{"~/x", "/work", "/home/user/x"},
		{"x/../y", "/work", "/home/user/y"},
		{"/a//b/", "/work", "/a//b/"},
		{".", "/work", "/home/user"},
	} {
		if got, err := u.Resolve(c.path, c.workdir); err != nil || got != c.want {
			t.Errorf("%q in %q: %q, %v; want %q", c.path, c.workdir, got, err, c.want)
		}
	}
	if _, err := u.Resolve("~other/x", ""); err != account.ErrOtherHome {
		t.Errorf("another's home: %v", err)
	}
	if _, err := u.Resolve("/x\x00y", ""); err != account.ErrBadPath {
		t.Errorf("zero byte: %v", err)
	}
}

func TestLookupSeesChanges(t *testing.T) {
	passwd, group := filepath.Join(t.TempDir(), "passwd"), filepath.Join(t.TempDir(), "group")
	d := account.New(passwd, group)
	// An image without databases has root all the same.
	if u, err := d.Lookup("root"); err != nil || u.UID != 0 || u.Home != "/root" {
		t.Errorf("root: %+v, %v", u, err)
	}
	if _, err := d.Lookup("new"); err != account.UnknownError("new") {
		t.Errorf("unknown: %v", err)
	}
	write := func(path, content string) {
		t.Helper()
		if err := os.WriteFile(path+".tmp", []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".tmp", path); err != nil {
			t.Fatal(err)
		}
	}
	write(passwd, "# comment\nbroken\nalso:x:notanumber:1::/:\nnew:x:7:8::/n:/bin/sh\n")
	write(group, "own:x:8:\na:x:9:other,new\nb:x:10:newer\nc:x:8:new\n")
	got, err := d.Lookup("new")
	if diff := cmp.Diff(account.User{Name: "new", UID: 7, GID: 8, Groups: []uint32{9}, Home: "/n"}, got); diff != "" || err != nil {
		t.Errorf("user (-want +got):\n%s%v", diff, err)
	}
	if owner, grp := d.Names(7, 77); owner != "new" || grp != "77" {
		t.Errorf("names %s:%s", owner, grp)
	}
}
