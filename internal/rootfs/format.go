package rootfs

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io/fs"
	"math"
	"time"
)

// The EROFS on-disk format, as far as an image of ours uses it: Linux,
// Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h. All numbers are
// little-endian.
const (
	blockBits = 12
	blockSize = 1 << blockBits

	superOffset = 1024
	superSize   = 128
	superMagic  = 0xE0F5E1E2

	compatChecksum = 0x1 // the superblock has a checksum
	compatMtime    = 0x2 // inodes have modification times, not times of change

	inodeSize  = 64 // of the extended kind; the compact kind has no times
	slotSize   = 32 // inodes are numbered by 32 bytes
	direntSize = 12

	layoutPlain  = 0 // data in blocks of its own
	layoutInline = 2 // data right behind the inode, in the same block
)

// Types in directory entries.
const (
	typeRegular = 1
	typeDir     = 2
	typeFifo    = 5
	typeSymlink = 7
)

// Types in inodes: S_IFREG and so on, the same on disk everywhere.
const (
	modeFifo    = 0o010000
	modeDir     = 0o040000
	modeRegular = 0o100000
	modeSymlink = 0o120000
)

// diskMode returns the mode of an inode and the type of its names.
func diskMode(m fs.FileMode) (mode uint16, entryType byte) {
	mode = uint16(m.Perm())
	for bit, flag := range map[uint16]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&flag != 0 {
			mode |= bit
		}
	}
	switch m.Type() {
	case fs.ModeDir:
		return mode | modeDir, typeDir
	case fs.ModeSymlink:
		return mode | modeSymlink, typeSymlink
	case fs.ModeNamedPipe:
		return mode | modeFifo, typeFifo
	}
	return mode | modeRegular, typeRegular
}

// superblock returns the image's first block.
func superblock(root uint16, inodes uint64, blocks uint32, uuid [16]byte) []byte {
	b := make([]byte, blockSize)
	s := b[superOffset : superOffset+superSize]
	le := binary.LittleEndian
	le.PutUint32(s[0:], superMagic)
	le.PutUint32(s[8:], compatChecksum|compatMtime)
	s[12] = blockBits
	le.PutUint16(s[14:], root)
	le.PutUint64(s[16:], inodes)
	// Times of building (24, 32) stay zero: equal input gives an equal image.
	// Inodes are numbered from the image's beginning, so meta_blkaddr (40) is
	// zero, and so are all features we do without.
	le.PutUint32(s[36:], blocks)
	copy(s[48:], uuid[:])
	// The checksum's own bytes count as zero; it lacks CRC-32's last inversion.
	le.PutUint32(s[4:], ^crc32.Checksum(b[superOffset:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// A super is what a superblock of ours says.
type super struct {
	root   uint16
	inodes uint64
	blocks uint32
	uuid   [16]byte
}

// parseSuperblock is the inverse of superblock. Only an image with the very
// superblock this package would write is one it can read.
func parseSuperblock(block []byte) (super, bool) {
	s := block[superOffset : superOffset+superSize]
	le := binary.LittleEndian
	is := super{root: le.Uint16(s[14:]), inodes: le.Uint64(s[16:]), blocks: le.Uint32(s[36:]), uuid: [16]byte(s[48:])}
	return is, bytes.Equal(block, superblock(is.root, is.inodes, is.blocks, is.uuid))
}

// encode returns the extended inode of p.
func (p *planned) encode(number uint32) []byte {
	b := make([]byte, inodeSize)
	le := binary.LittleEndian
	layout := uint16(layoutPlain)
	if p.inline {
		layout = layoutInline
	}
	mode, _ := diskMode(p.ino.mode)
	le.PutUint16(b[0:], 1|layout<<1) // bit 0: extended
	le.PutUint16(b[4:], mode)
	le.PutUint64(b[8:], uint64(p.size))
	le.PutUint32(b[16:], p.block)
	le.PutUint32(b[20:], number)
	le.PutUint32(b[24:], p.ino.uid)
	le.PutUint32(b[28:], p.ino.gid)
	if s := p.ino.mtime.Unix(); s >= 0 { // the format knows nothing before 1970
		le.PutUint64(b[32:], uint64(s))
		le.PutUint32(b[40:], uint32(p.ino.mtime.Nanosecond()))
	}
	le.PutUint32(b[44:], p.nlink)
	return b
}

// A stored is an inode as it was found in an image.
type stored struct {
	ino      *inode // without a link's target
	at, size int64  // of the data
}

// decodeInode is the inverse of encode for the inode at an offset. What it says
// about the place of the data is still to be checked.
func decodeInode(b []byte, offset int64) (stored, bool) {
	le := binary.LittleEndian
	mode := le.Uint16(b[4:])
	block, size := le.Uint32(b[16:]), le.Uint64(b[8:])
	ino := &inode{
		mode: permissions(int64(mode)), uid: le.Uint32(b[24:]), gid: le.Uint32(b[28:]),
		mtime: time.Unix(int64(le.Uint64(b[32:])), int64(le.Uint32(b[40:]))),
	}
	s := stored{ino, int64(block) << blockBits, int64(size)}
	layout := le.Uint16(b[0:])
	switch layout {
	case 1 | layoutPlain<<1:
	case 1 | layoutInline<<1:
		s.at = offset + inodeSize
	default:
		return s, false
	}
	switch mode &^ 0o7777 {
	case modeDir:
		ino.mode |= fs.ModeDir
	case modeSymlink:
		ino.mode |= fs.ModeSymlink
	case modeFifo:
		ino.mode |= fs.ModeNamedPipe
	case modeRegular:
		ino.size, ino.content = s.size, content{baseLayer, int(block)}
		if layout != 1|layoutPlain<<1 {
			return s, false
		}
	default:
		return s, false
	}
	attributes := le.Uint16(b[2:])
	return s, size <= math.MaxInt64 && attributes == 0
}

// A dirent is a name in a directory as it is stored.
type dirent struct {
	name string
	to   *planned
}

// directoryBlocks cuts sorted entries into what fits into a block each.
func directoryBlocks(entries []dirent) [][]dirent {
	var blocks [][]dirent
	used, from := 0, 0
	for i, e := range entries {
		need := direntSize + len(e.name)
		if used+need > blockSize {
			blocks = append(blocks, entries[from:i])
			used, from = 0, i
		}
		used += need
	}
	return append(blocks, entries[from:])
}

// directorySize is the size of a directory: whole blocks, and in the last one
// what is used of it.
func directorySize(entries []dirent) int64 {
	blocks := directoryBlocks(entries)
	size := int64(len(blocks)-1) << blockBits
	for _, e := range blocks[len(blocks)-1] {
		size += int64(direntSize + len(e.name))
	}
	return size
}

// encodeDirectory returns a directory's data. Each block has its entries first
// and then their names; a name ends where the next begins.
func encodeDirectory(entries []dirent) []byte {
	var data []byte
	le := binary.LittleEndian
	for i, block := range directoryBlocks(entries) {
		if i > 0 {
			data = append(data, make([]byte, i<<blockBits-len(data))...)
		}
		at := len(block) * direntSize
		var names []byte
		for _, e := range block {
			_, entryType := diskMode(e.to.ino.mode)
			data = le.AppendUint64(data, e.to.number())
			data = le.AppendUint16(data, uint16(at+len(names)))
			data = append(data, entryType, 0)
			names = append(names, e.name...)
		}
		data = append(data, names...)
	}
	return data
}

// A storedEntry is an entry of a directory as it was found in an image.
type storedEntry struct {
	name   string
	number uint64 // of the inode
	kind   byte
}

// decodeEntries returns what a block of a directory has in it.
func decodeEntries(block []byte) (entries []storedEntry, ok bool) {
	if len(block) < direntSize {
		return nil, false
	}
	le := binary.LittleEndian
	count := int(le.Uint16(block[8:])) / direntSize // the first name is where entries end
	if count == 0 || count*direntSize > len(block) {
		return nil, false
	}
	for i := range count {
		e := block[i*direntSize:]
		from, to := int(le.Uint16(e[8:])), len(block)
		if i+1 < count {
			to = int(le.Uint16(e[direntSize+8:]))
		}
		if from > to || to > len(block) {
			return nil, false
		}
		name := block[from:to]
		if i+1 == count {
			name, _, _ = bytes.Cut(name, []byte{0}) // the rest of the block
		}
		entries = append(entries, storedEntry{string(name), le.Uint64(e), e[10]})
	}
	return entries, true
}
