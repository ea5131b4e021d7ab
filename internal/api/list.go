package api

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// maxPairs is how many pairs of metadata a list may be filtered by.
const maxPairs = 64

// maxPage is the largest page of a list, and the usual one.
const maxPage = 100

// ListSandboxes answers GET /sandboxes: everything that runs, newest first.
func (s *server) ListSandboxes(w http.ResponseWriter, r *http.Request, params wire.ListSandboxesParams) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		if err := checkQuery(r, "metadata"); err != nil {
			return err
		}
		metadata, err := parseMetadata(params.Metadata)
		if err != nil {
			return err
		}
		f := cove.SandboxFilter{States: []cove.State{cove.Running}, Metadata: metadata, Order: cove.Descending, Limit: maxPage}
		all := []wire.ListedSandbox{}
		for {
			page, err := s.control.ListSandboxes(r.Context(), team, f)
			if err != nil {
				return fmt.Errorf("list sandboxes: %w", err)
			}
			all = append(all, s.toList(page.Sandboxes)...)
			if page.Next == (cove.Cursor{}) {
				return writeJSON(w, http.StatusOK, all)
			}
			f.After = page.Next
		}
	})
}

// ListSandboxesV2 answers GET /v2/sandboxes.
func (s *server) ListSandboxesV2(w http.ResponseWriter, r *http.Request, params wire.ListSandboxesV2Params) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		if err := checkQuery(r, "metadata", "state", "order", "startedAfter", "template", "nextToken", "limit"); err != nil {
			return err
		}
		f, err := parseFilter(params)
		if err != nil {
			return err
		}
		page, err := s.control.ListSandboxes(r.Context(), team, f)
		if err != nil {
			return fmt.Errorf("list sandboxes: %w", err)
		}
		w.Header().Set("X-Total-Running", strconv.Itoa(page.Running))
		// Clients ask for another page whenever there is a token.
		if page.Next != (cove.Cursor{}) {
			w.Header().Set("X-Next-Token", formatCursor(page.Next, f.Order))
		}
		return writeJSON(w, http.StatusOK, s.toList(page.Sandboxes))
	})
}

// parseFilter checks the parameters of a list and says them in words of the
// domain.
func parseFilter(p wire.ListSandboxesV2Params) (cove.SandboxFilter, error) {
	const op = "api.parseFilter"
	f := cove.SandboxFilter{Order: cove.Descending}
	wanted := p.State
	if len(wanted) == 0 {
		wanted = []string{string(wire.Running), string(wire.Paused)}
	}
	for _, state := range wanted {
		switch wire.State(state) {
		case wire.Running:
			f.States = append(f.States, cove.Running)
		case wire.Paused:
			f.States = append(f.States, cove.Paused, cove.Pausing, cove.Resuming) // as stateOf says
		default:
			return f, cove.E(cove.Invalid, op, nil, `unknown state %q; use "running" or "paused"`, clip(state))
		}
	}
	if p.Order != nil && *p.Order != "" {
		if !p.Order.Valid() {
			return f, cove.E(cove.Invalid, op, nil, `unknown order %q; use "asc" or "desc"`, clip(string(*p.Order)))
		}
		f.Order = cove.Order(*p.Order)
	}
	var err error
	if f.Limit, err = pageLimit(p.Limit); err != nil {
		return f, err
	}
	if p.Template != nil && *p.Template != "" {
		if _, err := cove.ParseTemplateRef(*p.Template); err != nil {
			return f, err
		}
		f.Template = *p.Template
	}
	if p.StartedAfter != nil {
		f.StartedAfter = p.StartedAfter.UTC().Truncate(time.Microsecond)
	}
	if f.Metadata, err = parseMetadata(p.Metadata); err != nil {
		return f, err
	}
	if p.NextToken != nil && *p.NextToken != "" {
		f.After, err = parseCursor(*p.NextToken, f.Order)
	}
	return f, err
}

// pageLimit returns how many items a page may have.
func pageLimit(limit *int32) (int, error) {
	if limit == nil {
		return maxPage, nil
	}
	if *limit < 1 || *limit > maxPage {
		return 0, cove.E(cove.Invalid, "api.pageLimit", nil, `"limit" must be from 1 to %d`, maxPage)
	}
	return int(*limit), nil
}

// parseMetadata reads the metadata parameter. Clients encode keys and values,
// then the pairs as a query, then that as a value of the query proper, which the
// router has decoded.
func parseMetadata(param *string) (map[string]string, error) {
	const op = "api.parseMetadata"
	if param == nil || *param == "" {
		return nil, nil
	}
	query, err := url.QueryUnescape(*param)
	if err != nil {
		return nil, cove.E(cove.Invalid, op, err, `"metadata" is not properly URL-encoded`)
	}
	if strings.Count(query, "&") >= maxPairs {
		return nil, cove.E(cove.Invalid, op, nil, `"metadata" may have at most %d pairs`, maxPairs)
	}
	pairs := make(map[string]string)
	for pair := range strings.SplitSeq(query, "&") {
		parts := strings.Split(pair, "=")
		if len(parts) != 2 {
			return nil, cove.E(cove.Invalid, op, nil, `"metadata" must be pairs of key=value with & between them, keys and values URL-encoded`)
		}
		key, keyErr := url.QueryUnescape(parts[0])
		value, valueErr := url.QueryUnescape(parts[1])
		if keyErr != nil || valueErr != nil {
			return nil, cove.E(cove.Invalid, op, nil, `"metadata" has a key or a value that is not properly URL-encoded`)
		}
		pairs[key] = value
	}
	return pairs, nil
}
