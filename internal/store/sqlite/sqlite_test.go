package sqlite_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pressly/goose/v3"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/store"
	"github.com/cove-sandbox/cove/internal/store/sqlite"
	"github.com/cove-sandbox/cove/internal/store/storetest"
)

func open(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, filepath.Join(t.TempDir(), "cove.db")) })
}

func TestRecordsOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data ?#%", "cove.db")
	s := open(t, path)
	team := cove.Team{ID: "t", Name: "n", CreatedAt: time.Unix(1, 0)}
	if err := s.CreateTeam(t.Context(), team); err != nil {
		t.Fatal(err)
	}
	again := open(t, path) // the first was not closed, as after kill -9
	teams, err := again.Teams(t.Context())
	if err != nil || len(teams) != 1 {
		t.Fatalf("teams = %v, %v", teams, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v", info.Mode(), err)
	}
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cove.db")
	if err := open(t, path).Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`); err != nil {
		t.Fatal(err)
	}
	_, err = sqlite.Open(t.Context(), path)
	if _, msg := cove.Describe(err); err == nil || msg == "internal error" {
		t.Errorf("err = %v, want a sentence for the operator", err)
	}
}

// older makes a database of an earlier version, with what statement adds.
func older(t *testing.T, path string, version int64, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, os.DirFS("migrations"))
	if err != nil {
		t.Fatal(err)
	}
	// Up and down again, so that the way back is examined too.
	if _, err := provider.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := provider.DownTo(t.Context(), version); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	}
}

func TestTemplatesOfAnOlderDatabaseAreCounted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cove.db")
	older(t, path, 7, `
		INSERT INTO templates (id, team_id, alias, public, created_at) VALUES ('t1', '', 'base', 1, 1000), ('t2', 'team', 'a', 0, 2000);
		INSERT INTO builds (id, template_id, status, reason, cpus, memory_mb, disk_mb, envd, user, workdir, created_at, ended_at) VALUES
			('b1', 't1', 'ready', '', 1, 2, 3, '1.0.0', 'user', '/w', 3000, 5000),
			('b2', 't1', 'building', '', 1, 2, 3, '1.0.0', 'user', '/w', 4000, 0);`)
	s := open(t, path)
	for _, want := range []cove.TemplateInfo{
		{
			Template: cove.Template{ID: "t1", Alias: "base", Source: cove.FromRecipe, Public: true, CreatedAt: time.UnixMicro(1000).UTC()},
			Build: cove.Build{
				ID: "b1", Template: "t1", Status: cove.BuildReady, Resources: cove.Resources{CPUs: 1, MemoryMB: 2, DiskMB: 3}, Envd: "1.0.0",
				Setup: cove.Setup{User: "user", Workdir: "/w"}, CreatedAt: time.UnixMicro(3000).UTC(), EndedAt: time.UnixMicro(5000).UTC(),
			},
			Builds: 2, UpdatedAt: time.UnixMicro(5000).UTC(),
		},
		{
			Template:  cove.Template{ID: "t2", Team: "team", Alias: "a", Source: cove.FromRecipe, CreatedAt: time.UnixMicro(2000).UTC()},
			UpdatedAt: time.UnixMicro(2000).UTC(),
		},
	} {
		got, err := s.TemplateInfo(t.Context(), want.ID)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", want.ID, err, diff)
		}
	}
}
