package cove

import (
	"strings"
	"time"
)

// TeamID names a team, the owner of everything a tenant has. It is a UUID.
type TeamID string

// Team is the record of a team.
type Team struct {
	ID        TeamID
	Name      string
	CreatedAt time.Time
}

// Slug is the team's name as it stands before the slash in the names of its
// templates.
func (t Team) Slug() string {
	slug := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, t.Name)
	if slug == "" {
		return "team"
	}
	return slug
}

// Key is the record of an API key. The key itself is not kept.
type Key struct {
	ID        string // UUID
	Team      TeamID
	Name      string
	Hash      string // of the key's bytes; see package auth
	Mask      string // enough of the key to recognise it by
	CreatedAt time.Time
}
