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

func TestLookupByNumber(t *testing.T) {
	passwd := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(passwd, []byte("a:x:1000:1000::/a:/bin/sh\n1000:x:5:5::/b:/bin/sh\nc:x:7:7::/c:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := account.New(passwd, passwd+"-none")
	for name, want := range map[string]string{"7": "c", "1000": "1000", "8": "", "-7": "", "99999999999": ""} {
		if u, err := d.Lookup(name); u.Name != want || (err == nil) != (want != "") {
			t.Errorf("%q: %+v, %v", name, u, err)
		}
	}
}

func TestOwner(t *testing.T) {
	passwd, group := filepath.Join(t.TempDir(), "passwd"), filepath.Join(t.TempDir(), "group")
	d := account.New(passwd, group)
	// Numbers, and root, need no databases.
	for spec, want := range map[string][2]uint32{"root": {0, 0}, "root:root": {0, 0}, "5": {5, 5}, "5:6": {5, 6}, "root:7": {0, 7}, "2147483647": {2147483647, 2147483647}} {
		if uid, gid, err := d.Owner(spec); err != nil || [2]uint32{uid, gid} != want {
			t.Errorf("%s: %d:%d, %v", spec, uid, gid, err)
		}
	}
	for path, content := range map[string]string{passwd: "new:x:7:8::/n:/bin/sh\n12:x:1:1::/:\n", group: "web:x:9:\n"} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for spec, want := range map[string][2]uint32{"new": {7, 8}, "new:web": {7, 9}, "new:1": {7, 1}, "3:web": {3, 9}, "12": {12, 12}} {
		if uid, gid, err := d.Owner(spec); err != nil || [2]uint32{uid, gid} != want {
			t.Errorf("%s: %d:%d, %v", spec, uid, gid, err)
		}
	}
	for spec, want := range map[string]error{
		"web": account.UnknownError("web"), "": account.UnknownError(""), "-1": account.UnknownError("-1"), "2147483648": account.UnknownError("2147483648"),
		"new:": account.UnknownGroupError(""), "new:new": account.UnknownGroupError("new"), "new:web:x": account.UnknownGroupError("web:x"),
	} {
		if _, _, err := d.Owner(spec); err != want {
			t.Errorf("%q: %v", spec, err)
		}
	}
}
