-- +goose Up
ALTER TABLE templates ADD COLUMN source TEXT NOT NULL DEFAULT 'recipe';

ALTER TABLE builds ADD COLUMN snapshot_id TEXT NOT NULL DEFAULT ''; -- empty: sandboxes start afresh
ALTER TABLE builds ADD COLUMN files_only INTEGER NOT NULL DEFAULT 0;
ALTER TABLE builds ADD COLUMN snapshot_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE builds ADD COLUMN origin_id TEXT NOT NULL DEFAULT ''; -- the sandbox it was made from

CREATE TABLE tags (
    template_id TEXT NOT NULL REFERENCES templates (id) ON DELETE CASCADE,
    tag         TEXT NOT NULL,
    build_id    TEXT NOT NULL REFERENCES builds (id),
    created_at  INTEGER NOT NULL, -- when the tag was given to this build
    PRIMARY KEY (template_id, tag)
) STRICT;
CREATE INDEX tags_by_build ON tags (build_id);

ALTER TABLE sandboxes ADD COLUMN unresponsive INTEGER NOT NULL DEFAULT 0; -- of its snapshot
ALTER TABLE sandboxes ADD COLUMN snapshot_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN user TEXT NOT NULL DEFAULT '';
ALTER TABLE sandboxes ADD COLUMN workdir TEXT NOT NULL DEFAULT '';
UPDATE sandboxes SET
    user = coalesce((SELECT b.user FROM builds AS b WHERE b.id = build_id), ''),
    workdir = coalesce((SELECT b.workdir FROM builds AS b WHERE b.id = build_id), '');

-- +goose Down
ALTER TABLE sandboxes DROP COLUMN workdir;
ALTER TABLE sandboxes DROP COLUMN user;
ALTER TABLE sandboxes DROP COLUMN snapshot_bytes;
ALTER TABLE sandboxes DROP COLUMN unresponsive;
DROP TABLE tags;
ALTER TABLE builds DROP COLUMN origin_id;
ALTER TABLE builds DROP COLUMN snapshot_bytes;
ALTER TABLE builds DROP COLUMN files_only;
ALTER TABLE builds DROP COLUMN snapshot_id;
ALTER TABLE templates DROP COLUMN source;
