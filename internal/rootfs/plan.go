package rootfs

import (
	"cmp"
	"io/fs"
	"math"
	"slices"
)

// A planned is an inode with its place in the image.
//
// An image is, from its beginning: the superblock's block; the inodes, each
// with the data of a small directory or link behind it; the other directories
// and links; the contents of files. A file never shares a block with anything,
// however small it is: the engine maps files straight out of the image, and a
// program that maps one stored behind its inode dies of SIGBUS.
type planned struct {
	ino   *inode
	node  *node // its first name
	nlink uint32
	size  int64

	offset int64 // of the inode
	inline bool
	block  uint32 // first block of the data; 0 if it is inline or there is none
}

// number is what directory entries call the inode.
func (p *planned) number() uint64 { return uint64(p.offset / slotSize) }

// A plan is the layout of a whole image. It is known before the first byte is
// written, so that the image can be written from its beginning to its end.
type plan struct {
	inodes []*planned // in the order of their offsets; the root comes first
	of     map[*inode]*planned
	apart  []*planned // directories and links with blocks of their own
	files  []*planned // files with contents, in the order of their layers
	blocks uint32     // of the image
	info   Info
}

func newPlan(t *tree) (*plan, error) {
	p := &plan{of: make(map[*inode]*planned)}
	if err := t.walk(p.collect); err != nil {
		return nil, err
	}
	slices.SortFunc(p.files, func(a, b *planned) int {
		return cmp.Or(cmp.Compare(a.ino.content.layer, b.ino.content.layer), cmp.Compare(a.ino.content.entry, b.ino.content.entry))
	})
	// What the layers' streams had is not enough to go by: a sparse file is
	// bigger than its entry.
	var content int64
	for _, i := range p.files {
		if content += i.size; content > t.limits.Bytes {
			return nil, tooBig("bytes", t.limits.Bytes)
		}
	}
	at := int64(blockSize)
	for _, i := range p.inodes {
		at = i.place(at)
		if i.size > 0 && !i.inline && !i.ino.mode.IsRegular() {
			p.apart = append(p.apart, i)
		}
	}
	at = roundUp(at)
	for _, list := range [][]*planned{p.apart, p.files} {
		for _, i := range list {
			if at>>blockBits > math.MaxUint32 {
				return nil, tooBig("bytes", math.MaxUint32<<blockBits)
			}
			i.block = uint32(at >> blockBits)
			at = roundUp(at + i.size)
		}
	}
	if at>>blockBits > math.MaxUint32 {
		return nil, tooBig("bytes", math.MaxUint32<<blockBits)
	}
	p.blocks = uint32(at >> blockBits)
	p.info.Bytes = at
	return p, nil
}

func roundUp(n int64) int64 { return (n + blockSize - 1) &^ (blockSize - 1) }

// collect makes an inode's entry in the plan, or counts another name of it.
func (p *plan) collect(n *node) error {
	p.info.Entries++
	if n.ino.mode.IsRegular() {
		p.info.Content += n.ino.size
	}
	if i := p.of[n.ino]; i != nil {
		i.nlink++
		return nil
	}
	i := &planned{ino: n.ino, node: n, nlink: 1}
	p.of[n.ino] = i
	p.inodes = append(p.inodes, i)
	switch n.ino.mode.Type() {
	case fs.ModeDir:
		i.size = directorySize(p.entries(n))
		i.nlink = 2 // its name and its own "."
		for _, c := range n.children {
			if c.ino.isDir() {
				i.nlink++ // the child's ".."
			}
		}
	case fs.ModeSymlink:
		i.size = int64(len(n.ino.target))
	case 0:
		if i.size = n.ino.size; i.size > 0 {
			p.files = append(p.files, i)
		}
	}
	return nil
}

// entries returns what a directory has in it, sorted as readers expect it:
// they search by halves. While inodes are being collected the entries lead
// nowhere.
func (p *plan) entries(n *node) []dirent {
	parent := n.parent
	if parent == nil {
		parent = n
	}
	list := []dirent{{".", p.of[n.ino]}, {"..", p.of[parent.ino]}}
	for _, c := range n.children {
		list = append(list, dirent{c.name, p.of[c.ino]})
	}
	slices.SortFunc(list, func(a, b dirent) int { return cmp.Compare(a.name, b.name) })
	return list
}

// place puts the inode at the first good offset from at on, and returns where
// it and what is behind it end.
func (i *planned) place(at int64) int64 {
	tail := int64(0)
	if i.size > 0 && i.size <= blockSize-inodeSize && !i.ino.mode.IsRegular() {
		tail, i.inline = i.size, true
	}
	at = (at + inodeSize - 1) &^ (inodeSize - 1)
	if at%blockSize+inodeSize+tail > blockSize {
		at = roundUp(at)
	}
	i.offset = at
	return at + inodeSize + tail
}

// data returns the bytes of a directory or a link.
func (p *plan) data(i *planned) []byte {
	if i.ino.isDir() {
		return encodeDirectory(p.entries(i.node))
	}
	return []byte(i.ino.target)
}
