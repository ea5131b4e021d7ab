package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// netnsSuffix follows the index in the name of a slot's namespace.
const netnsSuffix = ".net"

// errTaken means that an index belongs to somebody else.
var errTaken = errors.New("slot is taken")

func (p *Pool) claimPath(index int) string {
	return filepath.Join(p.cfg.LockDir, strconv.Itoa(index))
}

// claim takes an index for this server. A symbolic link is created with its
// content in one step: a crash leaves no claim without an owner.
func (p *Pool) claim(index int) error {
	err := os.Symlink(p.cfg.Instance, p.claimPath(index))
	if errors.Is(err, fs.ErrExist) {
		return errTaken
	}
	return err
}

// isClaimed reports whether anybody has claimed the index.
func (p *Pool) isClaimed(index int) bool {
	_, err := os.Lstat(p.claimPath(index))
	return err == nil
}

// unclaim gives an index back.
func (p *Pool) unclaim(index int) error {
	if err := os.Remove(p.claimPath(index)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// owns reports whether this server has claimed the index.
func (p *Pool) owns(index int) (bool, error) {
	owner, err := os.Readlink(p.claimPath(index))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return owner == p.cfg.Instance, err
}

// claimed lists the indices this server has claimed, in this life or before.
func (p *Pool) claimed() ([]int, error) {
	entries, err := os.ReadDir(p.cfg.LockDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var indices []int
	for _, entry := range entries {
		index, err := strconv.Atoi(entry.Name())
		if err != nil || index < 0 {
			continue
		}
		mine, err := p.owns(index)
		if err != nil {
			return nil, fmt.Errorf("reading the owner of slot %d: %w", index, err)
		}
		if mine {
			indices = append(indices, index)
		}
	}
	return indices, nil
}
