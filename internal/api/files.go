package api

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// GetFilesUpload answers GET /templates/{templateID}/files/{hash}.
func (s *server) GetFilesUpload(w http.ResponseWriter, r *http.Request, template, hash string) {
	s.forTeam(w, r, func(team cove.TeamID) error {
		if !cove.FilesHashValid(hash) {
			return cove.E(cove.Invalid, "api.GetFilesUpload", nil, "Invalid files hash")
		}
		present, token, err := s.control.FilesUpload(r.Context(), team, template, hash)
		if err != nil {
			return fmt.Errorf("get files upload: %w", err)
		}
		answer := wire.FilesUpload{Present: present}
		if token != "" {
			answer.Url = new(uploadURL(r, token))
		}
		return writeJSON(w, http.StatusCreated, answer)
	})
}

// UploadFiles answers PUT /uploads/{token}. It needs no key, since clients send
// none to an address they were given: the token says who may send what.
func (s *server) UploadFiles(w http.ResponseWriter, r *http.Request, token string) {
	if err := s.control.StoreFiles(r.Context(), token, r.Body); err != nil {
		s.fail(w, r, fmt.Errorf("upload files: %w", err))
		return
	}
	w.WriteHeader(http.StatusCreated)
}

// uploadURL returns the address for files, on this server as r's client knows
// it.
func uploadURL(r *http.Request, token string) string {
	u := url.URL{Scheme: "http", Host: r.Host}
	if r.TLS != nil {
		u.Scheme = "https"
	}
	// A proxy in front that ends TLS says so. Who lies here sends only its own
	// files astray.
	proto, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Proto"), ",")
	if proto = strings.ToLower(strings.TrimSpace(proto)); proto == "http" || proto == "https" {
		u.Scheme = proto
	}
	return u.JoinPath("uploads", url.PathEscape(token)).String()
}
