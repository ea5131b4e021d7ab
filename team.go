package cove

import "time"

// TeamID names a team, the owner of everything a tenant has. It is a UUID.
type TeamID string

// Team is the record of a team.
type Team struct {
	ID        TeamID
	Name      string
	CreatedAt time.Time
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
