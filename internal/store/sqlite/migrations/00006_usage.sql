-- +goose Up
CREATE TABLE metrics (
    sandbox_id   TEXT NOT NULL, -- of one that may have ended
    at           INTEGER NOT NULL,
    step         INTEGER NOT NULL, -- microseconds that it stands for; 0: as it was measured
    cpus         INTEGER NOT NULL,
    cpu_percent  REAL NOT NULL,
    memory_used  INTEGER NOT NULL,
    memory_total INTEGER NOT NULL,
    memory_cache INTEGER NOT NULL,
    disk_used    INTEGER NOT NULL,
    disk_total   INTEGER NOT NULL,
    PRIMARY KEY (sandbox_id, at)
) STRICT, WITHOUT ROWID;
CREATE INDEX metrics_by_step ON metrics (step, at); -- finds what is due to be thinned or dropped

CREATE TABLE logs (
    seq        INTEGER PRIMARY KEY, -- the order in which lines came
    team_id    TEXT NOT NULL,
    sandbox_id TEXT NOT NULL, -- of one that may have ended
    at         INTEGER NOT NULL,
    level      INTEGER NOT NULL,
    logger     TEXT NOT NULL,
    message    TEXT NOT NULL,
    fields     TEXT NOT NULL -- JSON object
) STRICT;
CREATE INDEX logs_by_sandbox ON logs (sandbox_id, at, seq);
CREATE INDEX logs_by_time ON logs (at);

-- +goose Down
DROP TABLE logs;
DROP TABLE metrics;
