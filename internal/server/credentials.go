package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/auth"
	"github.com/cove-sandbox/cove/internal/id"
)

// CredentialsFile is the file in the data directory that tells a client on this
// machine how to reach the server: one NAME=value a line, for a shell's source.
const CredentialsFile = "credentials.env"

// welcome makes the first team and key of an installation and writes the
// credentials file anew: the addresses may have changed. A file that was lost
// gets a new key, because the old one is not known any more.
func (s *Server) welcome(ctx context.Context) error {
	teams, err := s.store.Teams(ctx)
	if err != nil {
		return err
	}
	var team cove.Team
	if len(teams) > 0 {
		team = teams[0]
	} else {
		team = cove.Team{ID: cove.TeamID(id.UUID()), Name: "default", CreatedAt: time.Now()}
		if err := s.store.CreateTeam(ctx, team); err != nil {
			return err
		}
	}
	path := filepath.Join(s.cfg.DataDir, CredentialsFile)
	values, err := ReadCredentials(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	key := values["E2B_API_KEY"]
	_, err = s.store.KeyByHash(ctx, auth.HashKey(key))
	if key == "" || cove.Is(err, cove.NotFound) {
		var record cove.Key
		key, record = auth.NewKey(team.ID, "default", time.Now())
		// The file comes first: a key on record that nobody knows is of no use,
		// a key nobody recorded is replaced at the next start.
		if err := writeCredentials(path, key, s.addresses()); err != nil {
			return err
		}
		return s.store.CreateKey(ctx, record)
	}
	if err != nil {
		return err
	}
	return writeCredentials(path, key, s.addresses())
}

// addresses are the base URLs of the API and the edge for a client on this
// machine.
func (s *Server) addresses() (urls [2]string) {
	urls[0] = baseURL(s.listener.Addr())
	urls[1] = urls[0]
	if s.edge != nil {
		urls[1] = baseURL(s.edge.Addr())
	}
	return urls
}

func baseURL(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return "http://" + addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

func writeCredentials(path, key string, urls [2]string) error {
	content := fmt.Sprintf(`# How a client on this machine reaches this cove. For a shell: source it.
E2B_API_KEY=%s
E2B_API_URL=%s
E2B_SANDBOX_URL=%s
export E2B_API_KEY E2B_API_URL E2B_SANDBOX_URL
`, key, urls[0], urls[1])
	temp := path + ".new"
	if err := os.WriteFile(temp, []byte(content), 0o600); err != nil {
		return fmt.Errorf("the credentials file cannot be written: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("the credentials file cannot be written: %w", err)
	}
	return nil
}

// ReadCredentials reads a credentials file. Without one, the error is
// os.ErrNotExist.
func ReadCredentials(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	values := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), "=")
		if ok && !strings.HasPrefix(name, "#") {
			values[name] = value
		}
	}
	return values, nil
}
