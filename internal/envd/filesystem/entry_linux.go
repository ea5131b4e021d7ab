package filesystem

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cove-sandbox/cove/internal/envd/account"
	"github.com/cove-sandbox/cove/internal/envd/metadata"
	pb "github.com/cove-sandbox/cove/internal/gen/filesystem"
)

// owners are the names of owners and groups, as far as they were asked for. In a
// large directory it is mostly the same ones, and each look at the user database
// takes two system calls.
type owners struct {
	users *account.Directory
	known map[[2]uint32][2]string
}

func (s *Service) owners() owners {
	return owners{s.cfg.Users, map[[2]uint32][2]string{}}
}

func (o owners) names(uid, gid uint32) (owner, group string) {
	names, ok := o.known[[2]uint32{uid, gid}]
	if !ok {
		owner, group := o.users.Names(uid, gid)
		names = [2]string{text(owner), text(group)}
		o.known[[2]uint32{uid, gid}] = names
	}
	return names[0], names[1]
}

// enter makes dir the working directory of the calling goroutine and reports
// whether that worked: of a thread that is its own and ends with it. To walk to
// each of many files from there takes gVisor half as long as from the root.
func enter(dir string) bool {
	runtime.LockOSThread() // and never unlock it: nobody else may get this thread
	return unix.Unshare(unix.CLONE_FS) == nil && unix.Chdir(dir) == nil
}

// entryOf describes the file at path, which short also leads to. Of a symbolic
// link, type and mode are those of the file it leads to; clients rely on it.
func entryOf(who owners, path, short string) (*pb.EntryInfo, error) {
	info, err := os.Lstat(short)
	if err != nil {
		return nil, err
	}
	entry := &pb.EntryInfo{
		Name:         text(filepath.Base(path)),
		Type:         typeOf(info.Mode()),
		Path:         text(path),
		Size:         info.Size(),
		Mode:         uint32(info.Mode().Perm()),
		Permissions:  info.Mode().String(),
		ModifiedTime: timestamppb.New(info.ModTime()),
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		entry.Owner, entry.Group = who.names(st.Uid, st.Gid)
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := filepath.EvalSymlinks(path)
		if err != nil {
			target = path
		}
		resolved := text(target)
		entry.SymlinkTarget = &resolved
		entry.Type = pb.FileType_FILE_TYPE_UNSPECIFIED
		if info, err := os.Stat(path); err == nil {
			entry.Type = typeOf(info.Mode())
			entry.Mode = uint32(info.Mode().Perm())
		}
	}
	for k, v := range metadata.Read(short) {
		if entry.Metadata == nil {
			entry.Metadata = map[string]string{}
		}
		entry.Metadata[k] = v
	}
	return entry, nil
}

func typeOf(mode fs.FileMode) pb.FileType {
	switch {
	case mode.IsRegular():
		return pb.FileType_FILE_TYPE_FILE
	case mode.IsDir():
		return pb.FileType_FILE_TYPE_DIRECTORY
	case mode&fs.ModeSymlink != 0:
		return pb.FileType_FILE_TYPE_SYMLINK
	}
	return pb.FileType_FILE_TYPE_UNSPECIFIED
}

// text makes s fit for the wire: names are bytes to the kernel, but a single
// one that is not UTF-8 would make a whole list impossible to send.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
