-- +goose Up
ALTER TABLE sandboxes ADD COLUMN idle_after INTEGER NOT NULL DEFAULT 0; -- microseconds; 0: never paused for that

-- +goose Down
ALTER TABLE sandboxes DROP COLUMN idle_after;
