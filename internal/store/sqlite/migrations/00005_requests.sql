-- +goose Up
CREATE TABLE requests (
    team_id    TEXT NOT NULL,
    key        TEXT NOT NULL,
    digest     TEXT NOT NULL, -- of what was asked for
    sandbox_id TEXT NOT NULL UNIQUE,
    claimed_at INTEGER NOT NULL,
    finished   INTEGER NOT NULL DEFAULT 0, -- its sandbox was made
    PRIMARY KEY (team_id, key)
) STRICT;

-- +goose Down
DROP TABLE requests;
