-- +goose Up
ALTER TABLE sandboxes ADD COLUMN pause_files_only INTEGER NOT NULL DEFAULT 0; -- when its time is up
ALTER TABLE sandboxes ADD COLUMN files_only INTEGER NOT NULL DEFAULT 0;       -- its snapshot has no memory

-- +goose Down
ALTER TABLE sandboxes DROP COLUMN files_only;
ALTER TABLE sandboxes DROP COLUMN pause_files_only;
