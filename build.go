package cove

import (
	"maps"
	"regexp"
	"strings"
	"time"
)

// BuildID names one attempt to build a template. It is a UUID, because official
// clients parse it as one.
type BuildID string

// Valid reports whether id can be the identifier of a build.
func (id BuildID) Valid() bool { return uuidPattern.MatchString(string(id)) }

// BuildStatus is where a build is.
type BuildStatus string

// The statuses of a build.
const (
	BuildWaiting BuildStatus = "waiting"
	BuildRunning BuildStatus = "building"
	BuildReady   BuildStatus = "ready"
	BuildError   BuildStatus = "error"
)

// Build is the record of one build of a template.
type Build struct {
	ID         BuildID
	Template   TemplateID
	Status     BuildStatus
	Reason     string   // why the status is BuildError, in words for the caller
	ReasonStep string   // the step that failed: BaseStep, a number from 1, FinalStep; empty: none of them
	Tags       []string // the tags it gets when it is ready; a TemplateTag says which it has
	Resources  Resources
	Envd       string // version of the daemon it was built with
	Setup
	Key       string  // a digest of everything that went into it; empty: not known
	Root      BuildID // the build whose root file system it has; empty: it has its own
	CreatedAt time.Time
	EndedAt   time.Time // zero while it runs

	// What sandboxes of it go on from; empty: they start afresh. Builds that
	// came out the same share one.
	Snapshot      SnapshotID
	FilesOnly     bool      // Snapshot has no memory
	SnapshotBytes int64     // of Snapshot on disk
	Origin        SandboxID // the sandbox it was made from, if it was
}

// Names that steps of a build go by which have no number. Clients look for
// them.
const (
	BaseStep  = "base"
	FinalStep = "finalize"
)

// Setup is what a build hands on: to its sandboxes, and to the builds that begin
// with it.
type Setup struct {
	User    string            // default user of processes and files
	Workdir string            // default working directory; empty: the user's home
	Env     map[string]string // variables of every process in its sandboxes: the image's
	// BuildEnv are the variables of the builds' steps and of the start command
	// beside those. Sandboxes do not get them.
	BuildEnv map[string]string
	Start    string // command that runs in every sandbox from its beginning; may be empty
	Ready    string // command that succeeds once the start command can be used; may be empty
}

// Vars returns the variables that the build's steps, the start command and the
// ready command have.
func (s Setup) Vars() map[string]string {
	vars := make(map[string]string, len(s.Env)+len(s.BuildEnv))
	maps.Copy(vars, s.Env)
	maps.Copy(vars, s.BuildEnv)
	return vars
}

// StartCommand returns the command to run when a sandbox begins without its
// template's processes.
func (s Setup) StartCommand() StartCommand {
	if s.Start == "" {
		return StartCommand{}
	}
	command := s.Start
	// A login shell sets a PATH of its own; one that the build has set counts.
	if path, ok := s.BuildEnv["PATH"]; ok {
		command = "export PATH='" + strings.ReplaceAll(path, "'", `'\''`) + "'\n" + command
	}
	return StartCommand{Command: command, Env: s.Vars()}
}

// NewBuild is a request for a build of a template.
type NewBuild struct {
	Name       string   // [namespace/]alias[:tag]
	Tags       []string // beside the name's
	CPUs       int      // 0: the installation's default
	MemoryMB   int      // 0: the installation's default
	FreeDiskMB int      // how much its sandboxes can write at least; 0: the installation's default
}

// BuildOrder says what is to be built. One of FromImage, FromTemplate and
// Dockerfile is set; with the last there are no Steps.
type BuildOrder struct {
	FromImage    string
	FromTemplate string
	Dockerfile   *Dockerfile
	Login        RegistryLogin // for FromImage, or images of a Dockerfile
	Force        bool          // use nothing of an earlier build
	Steps        []BuildStep
	Start, Ready string // see Setup; empty: as in FromTemplate or the Dockerfile
}

// A Dockerfile is one with what it refers to.
type Dockerfile struct {
	Text    string
	Args    map[string]string // values for ARG
	Target  string            // the stage to be built; empty: the last one
	Context string            // hash of the uploaded archive of the build context; empty: there is none
}

// baseImage is the image that official clients name if nobody names one.
const baseImage = "e2bdev/base"

// IsBaseImage reports whether an image stands for the installation's own base
// template.
func IsBaseImage(ref string) bool {
	image, _, _ := strings.Cut(ref, ":")
	return image == baseImage
}

// RegistryLogin is what a registry asks for. It is never stored or logged.
type RegistryLogin struct {
	Kind           LoginKind // empty: none
	User, Password string    // BasicLogin
	KeyID, Key     string    // AWSLogin
	Region         string    // AWSLogin
	ServiceAccount string    // GCPLogin: its JSON
}

// LoginKind says how one logs in to a registry.
type LoginKind string

// The kinds, as they are on the wire.
const (
	BasicLogin LoginKind = "registry"
	AWSLogin   LoginKind = "aws"
	GCPLogin   LoginKind = "gcp"
)

// BuildStep is a step of a build.
type BuildStep struct {
	Type      StepType
	Args      []string
	FilesHash string // of what a CopyStep copies, as the client names it
	Force     bool   // do it and what follows again, even if an earlier build did
}

// StepType says what a step does, and so what its arguments are.
type StepType string

// The types.
const (
	CopyStep    StepType = "COPY"    // source, destination, then optionally owner and mode
	RunStep     StepType = "RUN"     // command, then optionally the user
	EnvStep     StepType = "ENV"     // name, value, name, value, ...
	WorkdirStep StepType = "WORKDIR" // directory
	UserStep    StepType = "USER"    // name
)

// FilesHashValid reports whether hash can name files that a client uploads.
func FilesHashValid(hash string) bool { return filesHashPattern.MatchString(hash) }

var filesHashPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// BuildLine is a line of a build's log.
type BuildLine struct {
	At      time.Time // microsecond precision, UTC
	Level   LogLevel
	Message string
	Step    string // see Build.ReasonStep
}

// BuildLineFilter selects lines of a build's log, oldest first.
type BuildLineFilter struct {
	Level  LogLevel // and above
	Offset int      // how many of those to pass over
	Limit  int      // at least 1
	Newest bool     // newest first; Offset counts from there
}

// A Layer is what a build had written when a step was done, kept so that the
// next build with the same steps need not do them again.
type Layer struct {
	Team     TeamID     // whose it is: teams share nothing
	Key      string     // a digest of everything that led to it
	Root     BuildID    // the build on whose root file system Snapshot lies
	Snapshot SnapshotID // files only
	Bytes    int64      // of Snapshot on disk
	UsedAt   time.Time
}

// A StepError says at which step a build failed.
type StepError struct {
	Step string // see Build.ReasonStep
	Err  error
}

func (e *StepError) Error() string { return "step " + e.Step + ": " + e.Err.Error() }

// Unwrap returns what happened.
func (e *StepError) Unwrap() error { return e.Err }
