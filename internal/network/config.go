package network

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"regexp"
	"syscall"

	cove "github.com/cove-sandbox/cove"
)

// Config is what a Pool is made of. The zero value of an optional field means
// the default written beside it.
type Config struct {
	Instance string       // required: this server's name on the host, [a-z0-9-], at most 32
	Log      *slog.Logger // required

	Prefix     netip.Prefix // IPv4 addresses of the slots, four each; 10.213.0.0/16
	LockDir    string       // where slots are claimed, one directory for all servers; /run/cove/slots
	Warm       int          // slots kept ready; 0: made on demand
	ResolvConf string       // names the host's name servers; /etc/resolv.conf
}

// Policy is what a sandbox is allowed.
type Policy struct {
	// Internet is whether the sandbox may open connections at all. Without it
	// nothing leaves but replies to the host, and every DNS query is refused.
	Internet bool
}

const (
	defaultLockDir    = "/run/cove/slots"
	defaultResolvConf = "/etc/resolv.conf"

	// resolvedConf is where systemd-resolved lists the servers behind its stub.
	resolvedConf = "/run/systemd/resolve/resolv.conf"
)

var instancePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

func (cfg Config) withDefaults() (Config, error) {
	if !instancePattern.MatchString(cfg.Instance) {
		return cfg, errors.New("network: Config.Instance must be 1 to 32 of a-z, 0-9 and '-'")
	}
	if cfg.Log == nil {
		return cfg, errors.New("network: Config.Log is required")
	}
	if cfg.Warm < 0 {
		return cfg, errors.New("network: Config.Warm is negative")
	}
	if !cfg.Prefix.IsValid() {
		cfg.Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, 0, 0}), 16)
	}
	if cfg.Prefix = cfg.Prefix.Masked(); !cfg.Prefix.Addr().Is4() || cfg.Prefix.Bits() < 8 || cfg.Prefix.Bits() > 30 {
		return cfg, errors.New("network: Config.Prefix must be an IPv4 prefix of 8 to 30 bits")
	}
	if cfg.LockDir == "" {
		cfg.LockDir = defaultLockDir
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = defaultResolvConf
	}
	return cfg, nil
}

// notPermitted turns the errors of a process without privileges into one
// sentence, and leaves others alone.
func notPermitted(op string, err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) { // fs: EPERM and EACCES
		return cove.E(cove.Unavailable, op, err, "sandbox networking needs root, with the right to administer the network and to mount")
	}
	return err
}
