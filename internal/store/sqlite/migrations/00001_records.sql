-- +goose Up
CREATE TABLE secrets (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE teams (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    created_at INTEGER NOT NULL -- times are microseconds since 1970, UTC
) STRICT;

CREATE TABLE keys (
    id         TEXT PRIMARY KEY,
    team_id    TEXT NOT NULL REFERENCES teams (id),
    name       TEXT NOT NULL,
    hash       TEXT NOT NULL UNIQUE,
    mask       TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE templates (
    id         TEXT PRIMARY KEY,
    team_id    TEXT NOT NULL, -- empty: the installation's
    alias      TEXT NOT NULL,
    public     INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (team_id, alias)
) STRICT;

CREATE TABLE builds (
    id          TEXT PRIMARY KEY,
    template_id TEXT NOT NULL REFERENCES templates (id),
    status      TEXT NOT NULL,
    reason      TEXT NOT NULL,
    cpus        INTEGER NOT NULL,
    memory_mb   INTEGER NOT NULL,
    disk_mb     INTEGER NOT NULL,
    envd        TEXT NOT NULL,
    user        TEXT NOT NULL,
    workdir     TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    ended_at    INTEGER NOT NULL -- 0: not yet
) STRICT;
CREATE INDEX builds_by_template ON builds (template_id, created_at);

CREATE TABLE sandboxes (
    id           TEXT PRIMARY KEY,
    execution_id TEXT NOT NULL,
    team_id      TEXT NOT NULL,
    template_id  TEXT NOT NULL,
    alias        TEXT NOT NULL,
    build_id     TEXT NOT NULL,
    node_id      TEXT NOT NULL,
    state        TEXT NOT NULL,
    cpus         INTEGER NOT NULL,
    memory_mb    INTEGER NOT NULL,
    disk_mb      INTEGER NOT NULL,
    started_at   INTEGER NOT NULL,
    end_at       INTEGER NOT NULL,
    metadata     TEXT NOT NULL, -- JSON object
    env          TEXT NOT NULL, -- JSON object
    secure       INTEGER NOT NULL,
    internet     INTEGER, -- NULL: not said
    envd         TEXT NOT NULL
) STRICT;
CREATE INDEX sandboxes_by_team ON sandboxes (team_id, started_at, id);
CREATE INDEX sandboxes_by_node ON sandboxes (node_id);

-- +goose Down
DROP TABLE sandboxes;
DROP TABLE builds;
DROP TABLE templates;
DROP TABLE keys;
DROP TABLE teams;
DROP TABLE secrets;
