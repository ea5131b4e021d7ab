package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/builder"
	"github.com/cove-sandbox/cove/internal/control"
	"github.com/cove-sandbox/cove/internal/envd/envdclient"
	"github.com/cove-sandbox/cove/internal/envd/paths"
	"github.com/cove-sandbox/cove/internal/network"
)

// Images says where the images come from that templates begin with.
type Images struct {
	Local   map[string]string   // images on this host, by name; see builder.ImageSources
	Mirrors map[string][]string // of registries; see image.Registry
	// Private are the registries that may be on a private network or this host,
	// as "host" or "host:port".
	Private []string
}

// newTemplates builds what builds teams' templates.
func (s *Server) newTemplates(daemon string) (*builder.Templates, *builder.Uploads, error) {
	uploads := builder.NewUploads(filepath.Join(s.cfg.DataDir, "files"))
	images := s.cfg.Images
	templates, err := builder.NewTemplates(builder.TemplatesConfig{
		Roots: s.builder, Node: s.orchestrator, Records: s.store, Files: uploads, Daemon: daemon, Log: s.cfg.Log, Connect: connectGuest, ReadyLimit: s.cfg.ReadyLimit,
		Sources: builder.ImageSources{Local: images.Local, Mirrors: images.Mirrors, Transport: registryTransport(images)},
	})
	return templates, uploads, err
}

// templates fits the builder to the control plane.
type templates struct{ *builder.Templates }

func (t templates) Build(ctx context.Context, job control.BuildJob) (cove.Build, error) {
	return t.Templates.Build(ctx, builder.Job(job))
}

// connectGuest fits the daemon in a sandbox to the builder.
func connectGuest(token string, dial func(ctx context.Context) (net.Conn, error)) builder.Guest {
	return guest{envdclient.New(envdclient.Config{Dial: dial, Token: func() string { return token }})}
}

type guest struct{ *envdclient.Client }

func (g guest) Run(ctx context.Context, c builder.Command, said func(stderr bool, text []byte)) (int, error) {
	exit, err := g.Client.Run(ctx, envdclient.Command{Args: c.Args, Env: c.Env, Dir: c.Dir, User: c.User, Keep: c.GoesOn}, said)
	return exit.Code, err
}

func (g guest) Copy(ctx context.Context, o builder.CopyOrder, archive io.Reader, size int64) error {
	_, err := g.Client.Copy(ctx, envdclient.CopyOrder(o), archive, size)
	return err
}

// registryTransport makes the requests to registries. Tenants say to which, so
// it connects to public addresses only, and to what the operator permits.
func registryTransport(images Images) http.RoundTripper {
	guard := addressGuard{denied: network.SpecialRanges()}
	for _, host := range slices.Concat(images.Private, mirrorHosts(images.Mirrors), proxyHosts()) {
		guard.permitted = append(guard.permitted, host)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = guard.dial
	t.ResponseHeaderTimeout = time.Minute
	return t
}

// mirrorHosts returns the hosts of mirrors, which the operator has named.
func mirrorHosts(mirrors map[string][]string) (hosts []string) {
	for _, prefixes := range mirrors {
		for _, prefix := range prefixes {
			if u, err := url.Parse(prefix); err == nil && u.Host != "" {
				hosts = append(hosts, u.Host)
			} else if u, err := url.Parse("//" + prefix); err == nil {
				hosts = append(hosts, u.Host)
			}
		}
	}
	return hosts
}

// proxyHosts returns the proxies that the operator has set.
func proxyHosts() (hosts []string) {
	for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"} {
		if u, err := url.Parse(os.Getenv(name)); err == nil && u.Host != "" {
			hosts = append(hosts, u.Host)
		}
	}
	return hosts
}

// addressGuard connects to public addresses, and to permitted hosts.
type addressGuard struct {
	denied    []netip.Prefix
	permitted []string // "host" or "host:port"
}

var errPrivate = errors.New("the address is not a public one, and the operator has not permitted the host")

func (g addressGuard) dial(ctx context.Context, kind, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: 30 * time.Second}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(g.permitted, host) && !slices.Contains(g.permitted, address) {
		// The check is of the address that is connected to, after the name was
		// looked up: a name may mean another one each time.
		dialer.Control = func(_, resolved string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(resolved)
			if err != nil {
				return err
			}
			ip := to.Addr().Unmap()
			if slices.ContainsFunc(g.denied, func(p netip.Prefix) bool { return p.Contains(ip) }) || !ip.IsGlobalUnicast() {
				return errPrivate
			}
			return nil
		}
	}
	return dialer.DialContext(ctx, kind, address)
}

// daemonVersion is what new sandboxes' daemons say they are.
const daemonVersion = paths.Version
