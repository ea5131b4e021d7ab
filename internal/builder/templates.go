package builder

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder/plan"
	"github.com/cove-sandbox/cove/internal/image"
	"github.com/cove-sandbox/cove/internal/node"
)

// TemplatesConfig is what Templates are made of.
type TemplatesConfig struct {
	Roots   *Builder     // required; keeps the root file systems
	Node    node.Node    // required; runs the steps. It must be on this host
	Records Records      // required
	Files   Files        // required
	Sources Sources      // required
	Connect Connect      // required
	Daemon  string       // required; names the daemon in the sandboxes, for the keys of results
	Log     *slog.Logger // required

	Now func() time.Time // nil: time.Now

	// How long things may take; 0: the default beside it.
	ImageLimit time.Duration // finding, loading and preparing an image; 20 min
	StepLimit  time.Duration // one step; 1 h
	ReadyLimit time.Duration // until the start command is ready; 10 min
}

// Records are what is known of earlier builds.
type Records interface {
	// Layer returns a team's layer. NotFound: it has none of that key.
	Layer(ctx context.Context, team cove.TeamID, key string) (cove.Layer, error)
	KeepLayer(ctx context.Context, layer cove.Layer) error
	UseLayer(ctx context.Context, team cove.TeamID, key string, at time.Time) error
	// BuildByKey returns a team's newest build of a key that is ready. NotFound:
	// there is none.
	BuildByKey(ctx context.Context, team cove.TeamID, key string) (cove.Build, error)
}

// Files are what clients have uploaded for the steps that copy.
type Files interface {
	// Open returns an archive and its size. NotFound: it is not there.
	Open(ctx context.Context, team cove.TeamID, hash string) (io.ReadCloser, int64, error)
}

// Sources are where images come from.
type Sources interface {
	// Find finds an image by its reference. key names what is in it.
	Find(ctx context.Context, ref string, login cove.RegistryLogin, blobs string) (img *image.Image, key string, err error)
}

// Command is a program to run in a sandbox.
type Command struct {
	Args []string
	Env  map[string]string
	Dir  string // empty: the user's home
	User string
	// Goes on says that the program is not ended with the context of the call.
	GoesOn bool
}

// CopyOrder says how files are copied into a sandbox; see cove.CopyStep.
type CopyOrder struct {
	Source, Dest, Workdir, User, Mode string

	KeepOwners bool // those that the archive has, where it has any
}

// Guest is the daemon in a sandbox.
type Guest interface {
	// Run runs a program and returns its exit code when it has ended. said gets
	// its output, one call at a time. The error's text is for the caller if the
	// daemon refused the command.
	Run(ctx context.Context, command Command, said func(stderr bool, text []byte)) (code int, err error)
	// Copy copies files out of an archive.
	Copy(ctx context.Context, order CopyOrder, archive io.Reader, size int64) error
	Close()
}

// Connect returns the daemon that dial connects to.
type Connect func(token string, dial func(ctx context.Context) (net.Conn, error)) Guest

// Templates builds teams' templates: out of an image or another template, by
// steps that each run in a sandbox of ours. What a step wrote is kept as a
// layer, so that the next build need not do it again. The result is a root file
// system and the snapshot of a sandbox on it in which the start command runs.
//
// It is safe for concurrent use; each build works in the goroutine of its
// caller, and in one more while its start command becomes ready.
type Templates struct {
	cfg TemplatesConfig
}

// NewTemplates checks cfg and allocates.
func NewTemplates(cfg TemplatesConfig) (*Templates, error) {
	if cfg.Roots == nil || cfg.Node == nil || cfg.Records == nil || cfg.Files == nil || cfg.Sources == nil ||
		cfg.Connect == nil || cfg.Daemon == "" || cfg.Log == nil {
		return nil, errors.New("builder: a required part is missing")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	for _, d := range []struct {
		of    *time.Duration
		value time.Duration
	}{{&cfg.ImageLimit, 20 * time.Minute}, {&cfg.StepLimit, time.Hour}, {&cfg.ReadyLimit, 10 * time.Minute}} {
		if *d.of == 0 {
			*d.of = d.value
		}
	}
	return &Templates{cfg: cfg}, nil
}

// Job is one build to be done.
type Job struct {
	Team   cove.TeamID
	Build  cove.Build // its identifier and resources
	Order  cove.BuildOrder
	Parent *cove.Build // what Order.FromTemplate names
	Base   *cove.Build // what the images of a Dockerfile mean that stand for the base template
	// Log is told how it goes. It may be called concurrently.
	Log func(level cove.LogLevel, step, message string)
	// Hold keeps a snapshot that no record names yet from being swept, until
	// release is called.
	Hold func(cove.SnapshotID) (release func())
}

// InUse returns the root file systems that builds stand on now.
func (t *Templates) InUse() []cove.BuildID { return t.cfg.Roots.inUse() }

func atStep(step string, err error) error {
	if err == nil {
		return nil
	}
	return &cove.StepError{Step: step, Err: err}
}

// Check refuses, as Invalid, an order that cannot be carried out whatever it
// begins with, and returns the images that it names.
func (t *Templates) Check(order cove.BuildOrder) (images []string, err error) {
	if order.Dockerfile != nil {
		return checkDockerfile(order.Dockerfile)
	}
	if order.FromImage != "" {
		images = []string{order.FromImage}
	}
	_, err = plan.Make(plan.Start{Setup: cove.Setup{User: baseUser}}, order)
	return images, err
}
