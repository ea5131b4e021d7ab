package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

const threadNetNS = "/proc/thread-self/ns/net"

// createNetNS makes a network namespace and mounts it at path, where it stays
// until removeNetNS. On an error nothing is left.
func createNetNS(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o400)
	if err != nil {
		return err
	}
	f.Close()
	err = onNetThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("creating a network namespace: %w", err)
		}
		if err := unix.Mount(threadNetNS, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting a network namespace: %w", err)
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, removeNetNS(path))
	}
	return nil
}

// removeNetNS unmounts the namespace at path. It lives on while a process has
// it. It is not an error if there is none.
func removeNetNS(path string) error {
	switch err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err {
	case nil, unix.EINVAL, unix.ENOENT: // EINVAL: a file, but no mount
	default:
		return fmt.Errorf("unmounting a network namespace: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// isNetNS reports whether a namespace is mounted at path.
func isNetNS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// inNetNS runs fn in the namespace at path. What fn starts on other threads is
// not in it; the sockets that fn opens stay in it.
func inNetNS(path string, fn func() error) error {
	target, err := os.Open(path)
	if err != nil {
		return err
	}
	defer target.Close()
	return onNetThread(func() error {
		if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering a network namespace: %w", err)
		}
		return fn()
	})
}

// onNetThread runs fn on a thread that fn may move to another network
// namespace. A thread that cannot return home ends with its goroutine, because
// that never unlocks it.
func onNetThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open(threadNetNS)
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		err = fn()
		if herr := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); herr != nil {
			done <- errors.Join(err, fmt.Errorf("leaving a network namespace: %w", herr))
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}
