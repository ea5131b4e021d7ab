package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// A Firewall is somebody else's rules that drop forwarded packets, and with them
// what sandboxes send to the internet. An accept of ours does not overrule them.
type Firewall struct {
	Name   string   // what people call it: Docker, ufw, firewalld, or a table
	Remedy []string // commands for root's shell that let sandboxes through
}

// legacyTables lists the tables of the old iptables that are in use.
const legacyTables = "/proc/net/ip_tables_names"

// Firewalls finds the firewalls on this host that drop what sandboxes send. One
// that was told to let interfaces cove* through is not among them. It may return
// some together with an error about others.
func Firewalls(ctx context.Context) ([]Firewall, error) {
	found, err := nftFirewalls()
	legacy, lerr := legacyFirewalls(ctx, legacyTables)
	return append(found, legacy...), errors.Join(err, lerr)
}

// wall is what matters of a table with a chain that forwarded packets pass.
type wall struct {
	tool    string // "iptables", "iptables-legacy"; empty: nft
	family  string
	table   string
	chain   string // the one that drops
	chains  []string
	in, out bool // packets from, and to, sandboxes are let through
}

// firewall says what to do about a wall; nil: nothing.
func (w wall) firewall() *Firewall {
	has := func(prefix string) bool {
		return slices.ContainsFunc(w.chains, func(c string) bool { return strings.HasPrefix(c, prefix) })
	}
	iptables := func(chain string) []string {
		return []string{w.tool + " -I " + chain + " -i cove+ -j ACCEPT", w.tool + " -I " + chain + " -o cove+ -j ACCEPT"}
	}
	var f Firewall
	replies := true // they have to be let through on their own
	switch {
	case w.tool != "" && has("DOCKER-USER"):
		f = Firewall{"Docker", iptables("DOCKER-USER")}
	case w.tool != "" && has("ufw-"):
		f, replies = Firewall{"ufw", []string{"ufw route allow in on cove+"}}, false
	case w.tool != "":
		f = Firewall{w.tool, iptables(w.chain)}
	case w.table == "firewalld":
		f, replies = Firewall{"firewalld", []string{"firewall-cmd --permanent --zone=trusted --add-interface=cove+", "firewall-cmd --reload"}}, false
	default:
		insert := fmt.Sprintf("nft insert rule %s %s %s", w.family, w.table, w.chain)
		f = Firewall{"nftables table " + w.table, []string{insert + ` iifname '"cove*"' accept`, insert + ` oifname '"cove*"' accept`}}
	}
	if w.in && (w.out || !replies) {
		return nil
	}
	return &f
}

// nftFirewalls looks through nftables, where iptables of today puts its rules
// too.
func nftFirewalls() ([]Firewall, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	chains, err := list(conn.ListChains)
	if err != nil {
		return nil, notPermitted("network.Firewalls", fmt.Errorf("listing the host's chains: %w", err))
	}
	var found []Firewall
	for _, c := range chains {
		v4 := c.Table.Family == nftables.TableFamilyIPv4 || c.Table.Family == nftables.TableFamilyINet
		if !v4 || strings.HasPrefix(c.Table.Name, tablePrefix) || c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookForward {
			continue
		}
		shut, err := shuts(conn, c)
		if err != nil {
			return found, err
		}
		if !shut {
			continue
		}
		w := wall{family: "inet", table: c.Table.Name, chain: c.Name}
		if c.Table.Family == nftables.TableFamilyIPv4 {
			w.family = "ip"
			if c.Table.Name == "filter" && c.Name == "FORWARD" {
				w.tool = "iptables"
			}
		}
		for _, other := range chains {
			if other.Table.Name != c.Table.Name || other.Table.Family != c.Table.Family {
				continue
			}
			w.chains = append(w.chains, other.Name)
			rules, err := conn.GetRules(c.Table, other)
			if err != nil {
				return found, fmt.Errorf("listing the host's rules: %w", err)
			}
			for _, r := range rules {
				w.in = w.in || passes(r.Exprs, expr.MetaKeyIIFNAME)
				w.out = w.out || passes(r.Exprs, expr.MetaKeyOIFNAME)
			}
		}
		if f := w.firewall(); f != nil {
			found = append(found, *f)
		}
	}
	return found, nil
}

// shuts reports whether a chain drops what none of its rules let through: by
// its policy, or by a last rule for all packets.
func shuts(conn *nftables.Conn, c *nftables.Chain) (bool, error) {
	if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
		return true, nil
	}
	rules, err := conn.GetRules(c.Table, c)
	if err != nil || len(rules) == 0 {
		return false, err
	}
	for _, e := range rules[len(rules)-1].Exprs {
		switch e := e.(type) {
		case *expr.Counter:
		case *expr.Reject:
			return true, nil
		case *expr.Target:
			return e.Name == "REJECT", nil
		case *expr.Verdict:
			return e.Kind == expr.VerdictDrop, nil
		default:
			return false, nil // not for all packets, or not a decision
		}
	}
	return false, nil
}

// passes reports whether a rule is about the links of sandboxes and does not
// drop.
func passes(exprs []expr.Any, key expr.MetaKey) bool {
	about, kept := false, false
	for i, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta:
			if e.Key != key || i+1 == len(exprs) {
				continue
			}
			cmp, ok := exprs[i+1].(*expr.Cmp)
			about = about || ok && cmp.Op == expr.CmpOpEq && string(bytes.TrimRight(cmp.Data, "\x00")) == hostLinkPrefix
		case *expr.Verdict:
			kept = e.Kind == expr.VerdictAccept || e.Kind == expr.VerdictJump || e.Kind == expr.VerdictGoto
		}
	}
	return about && kept
}

// legacyFirewalls asks the old iptables, whose rules nftables does not show, if
// the file of its tables says that it filters.
func legacyFirewalls(ctx context.Context, tables string) ([]Firewall, error) {
	names, err := os.ReadFile(tables)
	if errors.Is(err, fs.ErrNotExist) { // the kernel does not have it
		return nil, nil
	}
	if err != nil {
		return nil, notPermitted("network.Firewalls", err)
	}
	if !slices.Contains(strings.Fields(string(names)), "filter") {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, tool := range []string{"iptables-legacy", "iptables"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			continue
		}
		rules, err := exec.CommandContext(ctx, path, "-t", "filter", "-S").Output()
		if err != nil {
			return nil, fmt.Errorf("listing the rules of %s: %w", tool, err)
		}
		if f := legacyWall(tool, string(rules)); f != nil {
			return []Firewall{*f}, nil
		}
		return nil, nil
	}
	return nil, errors.New("rules of the old iptables are in force, and there is no iptables command to read them with")
}

// legacyWall reads what iptables -S prints: a policy, a new chain or a rule per
// line.
func legacyWall(tool, rules string) *Firewall {
	w := wall{tool: tool, chain: "FORWARD"}
	shut, last := false, ""
	for line := range strings.Lines(rules) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "-P":
			shut = shut || words[1] == "FORWARD" && len(words) > 2 && words[2] != "ACCEPT"
		case "-N":
			w.chains = append(w.chains, words[1])
		case "-A":
			line = " " + strings.Join(words[2:], " ") + " "
			kept := !strings.Contains(line, " -j DROP ") && !strings.Contains(line, " -j REJECT ")
			w.in = w.in || kept && strings.Contains(line, " -i cove+ ")
			w.out = w.out || kept && strings.Contains(line, " -o cove+ ")
			if words[1] == "FORWARD" {
				last = line
			}
		}
	}
	shut = shut || strings.HasPrefix(last, " -j DROP ") || strings.HasPrefix(last, " -j REJECT ")
	if !shut {
		return nil
	}
	return w.firewall()
}
