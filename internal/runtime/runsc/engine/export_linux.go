package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/control/client"
	"gvisor.dev/gvisor/pkg/urpc"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/sandbox"

	"github.com/cove-sandbox/cove/internal/runtime/runsc/launch"
)

var errGivenUp = errors.New("it was given up")

// export writes the sandbox's writable layer as a tar stream to
// launch.ExportFD.
//
// The engine could write that stream itself, but takes each file into memory
// for it, as a whole: a file larger than the memory that is left, or with a
// hole of a terabyte in it, would be the sandbox's end. So it is asked for a
// checkpoint of its files instead. That too has a tar stream, which says of
// each file where in the layer's own file its content lies, and from there it
// is copied here. The rest of the checkpoint goes nowhere.
func export(sb *sandbox.Sandbox, o launch.Order) (err error) {
	giveUp, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	to, disk := os.NewFile(launch.ExportFD, "export"), os.NewFile(launch.DiskFD, "disk")
	if to == nil || disk == nil {
		return errors.New("the export's files are missing")
	}
	names, w, err := os.Pipe()
	if err != nil {
		return err
	}
	// Stops are counted: a sandbox that stands still already does so afterwards.
	if err := sb.Pause(o.ID); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sb.Resume(o.ID)) }()

	saved := make(chan struct{}) // closed once the engine is done, and saveErr is set
	var saveErr error
	go func() {
		defer close(saved)
		saveErr = saveNames(o.Socket, w)
	}()
	copied := make(chan error, 1)
	go func() {
		l := newLayer(to, disk)
		err := l.copy(names)
		names.Close() // the engine, if it still writes, is told to stop
		<-saved
		if err = errors.Join(err, saveErr); err == nil {
			err = l.close()
		}
		copied <- err
	}()
	select {
	case err := <-copied:
		return err
	case <-giveUp.Done(): // whoever reads may never do so again
		names.Close()
		<-saved // nothing can be let go on before
		return errGivenUp
	}
}

// saveNames has the engine write the tar stream of a checkpoint of files to w,
// which it closes.
func saveNames(socket string, w *os.File) error {
	defer w.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	conn, err := client.ConnectTo(socket)
	if err != nil {
		return fmt.Errorf("connecting to the engine: %w", err)
	}
	defer conn.Close()
	args := boot.FSSaveArgs{FilePayload: urpc.FilePayload{Files: []*os.File{
		null, // the manifest: the root file system alone is in it
		w,
		null, // which pages of the layer's file are in use
		null, // their content
	}}}
	if err := conn.Call(boot.ContMgrFSSave, &args, nil); err != nil {
		return fmt.Errorf("saving the names of files: %w", err)
	}
	return nil
}
