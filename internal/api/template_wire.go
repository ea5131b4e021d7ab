package api

import (
	"cmp"
	"time"

	cove "github.com/cove-sandbox/cove"
	wire "github.com/cove-sandbox/cove/internal/gen/api"
)

// toTemplate says what info does. owner is whose template it is.
func (s *server) toTemplate(owner cove.Team, info cove.TemplateInfo) wire.Template {
	l := s.toLegacy(info)
	return wire.Template{
		TemplateID:    l.TemplateID,
		BuildID:       l.BuildID,
		CpuCount:      l.CpuCount,
		MemoryMB:      l.MemoryMB,
		DiskSizeMB:    l.DiskSizeMB,
		Public:        l.Public,
		Aliases:       l.Aliases,
		Names:         namesOf(owner, info.Template),
		CreatedAt:     l.CreatedAt,
		UpdatedAt:     l.UpdatedAt,
		LastSpawnedAt: l.LastSpawnedAt,
		SpawnCount:    l.SpawnCount,
		BuildCount:    l.BuildCount,
		EnvdVersion:   l.EnvdVersion,
		// Clients refuse any other word, and what has no build at all waits for one.
		BuildStatus: wire.BuildStatus(cmp.Or(info.Build.Status, cove.BuildWaiting)),
		IsDefault:   new(info.Team == ""),
	}
}

// toLegacy says the same as clients of the second generation know it.
func (s *server) toLegacy(info cove.TemplateInfo) wire.TemplateLegacy {
	return wire.TemplateLegacy{
		TemplateID:    string(info.ID),
		BuildID:       string(info.Build.ID),
		CpuCount:      int32(info.Build.Resources.CPUs),
		MemoryMB:      int32(info.Build.Resources.MemoryMB),
		DiskSizeMB:    int32(info.Build.Resources.DiskMB),
		Public:        info.Public,
		Aliases:       aliasesOf(info.Template),
		CreatedAt:     info.CreatedAt.UTC(),
		UpdatedAt:     info.UpdatedAt.UTC(),
		LastSpawnedAt: moment(info.SpawnedAt),
		SpawnCount:    int64(info.Spawned),
		BuildCount:    int32(info.Builds),
		EnvdVersion:   s.envdVersionOf(info.Build.Envd),
	}
}

func withBuilds(t wire.Template, builds []wire.Build) wire.TemplateWithBuilds {
	return wire.TemplateWithBuilds{
		TemplateID:    t.TemplateID,
		BuildID:       t.BuildID,
		CpuCount:      t.CpuCount,
		MemoryMB:      t.MemoryMB,
		DiskSizeMB:    t.DiskSizeMB,
		Public:        t.Public,
		Aliases:       t.Aliases,
		Names:         t.Names,
		CreatedAt:     t.CreatedAt,
		UpdatedAt:     t.UpdatedAt,
		LastSpawnedAt: t.LastSpawnedAt,
		SpawnCount:    t.SpawnCount,
		BuildCount:    t.BuildCount,
		EnvdVersion:   t.EnvdVersion,
		BuildStatus:   t.BuildStatus,
		IsDefault:     t.IsDefault,
		Builds:        builds,
	}
}

// toBuilds returns list items; never nil, which would not be a list on the wire.
func (s *server) toBuilds(builds []cove.Build) []wire.Build {
	items := make([]wire.Build, 0, len(builds))
	for _, b := range builds {
		updated := b.CreatedAt
		if !b.EndedAt.IsZero() {
			updated = b.EndedAt
		}
		items = append(items, wire.Build{
			BuildID:     string(b.ID),
			Status:      wire.BuildStatus(b.Status),
			CreatedAt:   b.CreatedAt.UTC(),
			UpdatedAt:   updated.UTC(),
			FinishedAt:  moment(b.EndedAt),
			CpuCount:    int32(b.Resources.CPUs),
			MemoryMB:    int32(b.Resources.MemoryMB),
			DiskSizeMB:  new(int32(b.Resources.DiskMB)),
			EnvdVersion: new(s.envdVersionOf(b.Envd)),
		})
	}
	return items
}

// aliasesOf returns the template's name alone; none if it has none.
func aliasesOf(t cove.Template) []string {
	if !t.Named() {
		return []string{}
	}
	return []string{t.Alias}
}

// namesOf returns the template's name as every team may use it. What the
// installation offers has no namespace.
func namesOf(owner cove.Team, t cove.Template) []string {
	names := aliasesOf(t)
	if t.Team != "" {
		for i, alias := range names {
			names[i] = owner.Slug() + "/" + alias
		}
	}
	return names
}

// moment returns t; nil if there was no such moment.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}
