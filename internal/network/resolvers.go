package network

import (
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// resolvers knows the host's name servers. It reads the configuration again
// when the file changes, and after a failure.
type resolvers struct {
	path string // resolv.conf

	mu      sync.Mutex
	stamp   stamp
	servers []string // host:port
}

// stamp tells versions of a file apart. The zero stamp is of no file.
type stamp struct {
	size     int64
	modified time.Time
}

func newResolvers(path string) *resolvers { return &resolvers{path: path} }

// list returns the servers in order of preference.
func (r *resolvers) list() ([]string, error) {
	fi, err := os.Stat(r.path)
	if err != nil {
		return nil, err
	}
	now := stamp{fi.Size(), fi.ModTime()}
	r.mu.Lock()
	servers, same := r.servers, r.stamp == now
	r.mu.Unlock()
	if same {
		return servers, nil
	}
	if servers, err = readServers(r.path); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.servers, r.stamp = servers, now
	r.mu.Unlock()
	return servers, nil
}

// forget makes the next list read the configuration again.
func (r *resolvers) forget() {
	r.mu.Lock()
	r.stamp = stamp{}
	r.mu.Unlock()
}

func readServers(path string) ([]string, error) {
	hosts, err := nameservers(path)
	if err != nil {
		return nil, err
	}
	// systemd-resolved's stub also answers from the host's /etc/hosts and with
	// the host's own names, which are not for sandboxes: ask the servers it asks.
	if onlyStub(hosts) {
		if direct, err := nameservers(resolvedConf); err == nil && !onlyStub(direct) {
			hosts = direct
		}
	}
	if len(hosts) == 0 {
		return nil, fmt.Errorf("no name server is configured")
	}
	var servers []string
	for _, host := range hosts {
		servers = append(servers, net.JoinHostPort(host, "53"))
	}
	return servers, nil
}

func onlyStub(hosts []string) bool {
	return !slices.ContainsFunc(hosts, func(h string) bool { return h != "127.0.0.53" && h != "127.0.0.54" })
}

func nameservers(path string) ([]string, error) {
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, err
	}
	return conf.Servers, nil
}
