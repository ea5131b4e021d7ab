-- +goose Up
ALTER TABLE builds ADD COLUMN reason_step TEXT NOT NULL DEFAULT '';
ALTER TABLE builds ADD COLUMN tags TEXT NOT NULL DEFAULT 'null'; -- JSON array or null: what it is to be named
ALTER TABLE builds ADD COLUMN env TEXT NOT NULL DEFAULT 'null'; -- JSON object or null
ALTER TABLE builds ADD COLUMN build_env TEXT NOT NULL DEFAULT 'null'; -- JSON object or null
ALTER TABLE builds ADD COLUMN start_cmd TEXT NOT NULL DEFAULT '';
ALTER TABLE builds ADD COLUMN ready_cmd TEXT NOT NULL DEFAULT '';
ALTER TABLE builds ADD COLUMN key TEXT NOT NULL DEFAULT ''; -- empty: not known
ALTER TABLE builds ADD COLUMN root_id TEXT NOT NULL DEFAULT ''; -- of a build that may be gone; empty: its own
CREATE INDEX builds_by_key ON builds (key) WHERE key <> '';
CREATE INDEX builds_by_snapshot ON builds (snapshot_id) WHERE snapshot_id <> ''; -- several builds may share one

ALTER TABLE templates ADD COLUMN build_count INTEGER NOT NULL DEFAULT 0; -- with those that are gone
ALTER TABLE templates ADD COLUMN spawn_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE templates ADD COLUMN last_spawned_at INTEGER NOT NULL DEFAULT 0; -- 0: never
ALTER TABLE templates ADD COLUMN updated_at INTEGER NOT NULL DEFAULT 0;
UPDATE templates SET
    build_count = (SELECT count(*) FROM builds AS b WHERE b.template_id = templates.id),
    updated_at = max(created_at, coalesce((SELECT max(max(b.created_at, b.ended_at)) FROM builds AS b WHERE b.template_id = templates.id), 0));

CREATE TABLE build_lines (
    build_id TEXT NOT NULL REFERENCES builds (id) ON DELETE CASCADE,
    seq      INTEGER NOT NULL, -- from 0
    at       INTEGER NOT NULL,
    level    INTEGER NOT NULL,
    message  TEXT NOT NULL,
    step     TEXT NOT NULL,
    PRIMARY KEY (build_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE layers (
    team_id     TEXT NOT NULL,
    key         TEXT NOT NULL,
    root_id     TEXT NOT NULL, -- of a build that may be gone
    snapshot_id TEXT NOT NULL,
    bytes       INTEGER NOT NULL, -- of its snapshot
    used_at     INTEGER NOT NULL,
    PRIMARY KEY (team_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX layers_by_snapshot ON layers (snapshot_id);

-- +goose Down
DROP TABLE layers;
DROP TABLE build_lines;
ALTER TABLE templates DROP COLUMN updated_at;
ALTER TABLE templates DROP COLUMN last_spawned_at;
ALTER TABLE templates DROP COLUMN spawn_count;
ALTER TABLE templates DROP COLUMN build_count;
DROP INDEX builds_by_snapshot;
DROP INDEX builds_by_key;
ALTER TABLE builds DROP COLUMN root_id;
ALTER TABLE builds DROP COLUMN key;
ALTER TABLE builds DROP COLUMN ready_cmd;
ALTER TABLE builds DROP COLUMN start_cmd;
ALTER TABLE builds DROP COLUMN build_env;
ALTER TABLE builds DROP COLUMN env;
ALTER TABLE builds DROP COLUMN tags;
ALTER TABLE builds DROP COLUMN reason_step;
