package network_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/cove-sandbox/cove/internal/network"
)

// dropping makes a table as others make them: with a chain for forwarded
// packets that drops, and chains that it jumps to.
func dropping(t *testing.T, family nftables.TableFamily, table, chain string, others ...string) (*nftables.Conn, *nftables.Chain) {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	of := conn.AddTable(&nftables.Table{Family: family, Name: table})
	drop := nftables.ChainPolicyDrop
	base := conn.AddChain(&nftables.Chain{
		Table: of, Name: chain, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop,
	})
	for _, name := range others {
		conn.AddChain(&nftables.Chain{Table: of, Name: name})
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.DelTable(of)
		if err := conn.Flush(); err != nil {
			t.Error(err)
		}
	})
	return conn, base
}

// letThrough does what the remedies do.
func letThrough(t *testing.T, conn *nftables.Conn, table *nftables.Table, chain string, key expr.MetaKey) {
	t.Helper()
	conn.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Table: table, Name: chain}, Exprs: []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte("cove")},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

func firewalls(t *testing.T) []network.Firewall {
	t.Helper()
	found, err := network.Firewalls(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestFirewallsAreFound(t *testing.T) {
	start(t, config(t)) // our own table is none
	if got := firewalls(t); len(got) != 0 {
		t.Fatalf("there is %v already", got)
	}
	for _, test := range []struct {
		family       nftables.TableFamily
		table, chain string
		others       []string
		want         network.Firewall
		into         string // where the remedy puts its rules
		onlyIn       bool
	}{
		{nftables.TableFamilyIPv4, "filter", "FORWARD", []string{"DOCKER-USER", "ufw-user-forward"}, network.Firewall{
			Name: "Docker", Remedy: []string{"iptables -I DOCKER-USER -i cove+ -j ACCEPT", "iptables -I DOCKER-USER -o cove+ -j ACCEPT"}}, "DOCKER-USER", false},
		{nftables.TableFamilyIPv4, "filter", "FORWARD", []string{"ufw-user-forward"}, network.Firewall{
			Name: "ufw", Remedy: []string{"ufw route allow in on cove+"}}, "ufw-user-forward", true},
		{nftables.TableFamilyIPv4, "filter", "FORWARD", nil, network.Firewall{
			Name: "iptables", Remedy: []string{"iptables -I FORWARD -i cove+ -j ACCEPT", "iptables -I FORWARD -o cove+ -j ACCEPT"}}, "FORWARD", false},
		{nftables.TableFamilyINet, "mine", "fwd", nil, network.Firewall{
			Name: "nftables table mine", Remedy: []string{
				`nft insert rule inet mine fwd iifname '"cove*"' accept`, `nft insert rule inet mine fwd oifname '"cove*"' accept`}}, "fwd", false},
	} {
		t.Run(test.want.Name, func(t *testing.T) {
			conn, base := dropping(t, test.family, test.table, test.chain, test.others...)
			if diff := cmp.Diff([]network.Firewall{test.want}, firewalls(t)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			letThrough(t, conn, base.Table, test.into, expr.MetaKeyIIFNAME)
			if got := firewalls(t); (len(got) == 0) != test.onlyIn {
				t.Errorf("with packets out of sandboxes let through: %v", got)
			}
			letThrough(t, conn, base.Table, test.into, expr.MetaKeyOIFNAME)
			if got := firewalls(t); len(got) != 0 {
				t.Errorf("after the remedy: %v", got)
			}
		})
	}
}

// Some accept by policy and reject by their last rule.
func TestFirewallThatRejectsAtTheEnd(t *testing.T) {
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "firewalld"})
	chain := conn.AddChain(&nftables.Chain{
		Table: table, Name: "filter_FORWARD", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Counter{}}})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.DelTable(table)
		if err := conn.Flush(); err != nil {
			t.Error(err)
		}
	})
	if got := firewalls(t); len(got) != 0 {
		t.Errorf("a chain that only counts: %v", got)
	}
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Counter{}, &expr.Reject{}}})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := firewalls(t); len(got) != 1 || got[0].Name != "firewalld" {
		t.Errorf("a chain that rejects the rest: %v", got)
	}
}

func TestOldIptablesAreAsked(t *testing.T) {
	dir := t.TempDir()
	names, bin := filepath.Join(dir, "names"), filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ask := func() []network.Firewall {
		found, err := network.LegacyFirewalls(t.Context(), names)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	shell := "#!" + "/bin/sh\n"
	t.Setenv("PATH", bin)
	if found := ask(); len(found) != 0 {
		t.Errorf("a kernel without: %v", found)
	}
	write(names, "nat\n")
	if found := ask(); len(found) != 0 {
		t.Errorf("without a filter: %v", found)
	}
	write(names, "nat\nfilter\n")
	if found, err := network.LegacyFirewalls(t.Context(), names); err == nil {
		t.Errorf("rules that nobody can read: %v", found)
	}
	for _, test := range []struct {
		rules string
		want  []string // begins of remedies
	}{
		{"-P INPUT DROP\n-P FORWARD ACCEPT\n-A FORWARD -i eth0 -j DROP", nil},
		{"-P FORWARD DROP\n-N DOCKER-USER", []string{"iptables-legacy -I DOCKER-USER -i cove+", "iptables-legacy -I DOCKER-USER -o cove+"}},
		{"-P FORWARD DROP\n-N DOCKER-USER\n-A DOCKER-USER -i cove+ -j ACCEPT\n-A DOCKER-USER -o cove+ -j ACCEPT", nil},
		{"-P FORWARD DROP\n-N ufw-before-forward", []string{"ufw route allow in on cove+"}},
		{"-P FORWARD DROP\n-N ufw-user-forward\n-A ufw-user-forward -i cove+ -j ACCEPT", nil},
		{"-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited",
			[]string{"iptables-legacy -I FORWARD -i cove+", "iptables-legacy -I FORWARD -o cove+"}},
		{"-P FORWARD DROP\n-A FORWARD -i cove+ -j DROP\n-A FORWARD -o cove+ -j DROP",
			[]string{"iptables-legacy -I FORWARD -i cove+", "iptables-legacy -I FORWARD -o cove+"}},
	} {
		write(filepath.Join(bin, "iptables-legacy"), shell+"echo '"+test.rules+"'\n")
		var got []string
		for _, f := range ask() {
			got = append(got, f.Remedy...)
		}
		if !slices.EqualFunc(got, test.want, strings.HasPrefix) {
			t.Errorf("%s\nmakes %q, want %q", test.rules, got, test.want)
		}
	}
	write(filepath.Join(bin, "iptables-legacy"), shell+"exit 3\n")
	if found, err := network.LegacyFirewalls(t.Context(), names); err == nil {
		t.Errorf("a command that fails: %v", found)
	}
}
