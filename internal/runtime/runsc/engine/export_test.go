package engine

import "io"

// CopyLayer writes the layer that names describes, with contents from disk.
func CopyLayer(to io.Writer, names io.Reader, disk io.ReaderAt) error {
	l := newLayer(to, disk)
	if err := l.copy(names); err != nil {
		return err
	}
	return l.close()
}
