package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"strings"

	cove "github.com/cove-sandbox/cove"
)

const templateColumns = `id, team_id, alias, source, public, created_at`

// templateFields returns where a template's columns are read into, and what
// must be called then.
func templateFields(t *cove.Template) (into []any, set func()) {
	var created int64
	return []any{&t.ID, &t.Team, &t.Alias, &t.Source, &t.Public, &created}, func() { t.CreatedAt = fromMicros(created) }
}

func scanTemplate(row scanner) (cove.Template, error) {
	var t cove.Template
	into, set := templateFields(&t)
	err := row.Scan(into...)
	set()
	return t, err
}

const insertTemplate = `INSERT INTO templates (` + templateColumns + `, updated_at) VALUES (?, ?, ?, ?, ?, ?6, ?6)`

// templateValues are what insertTemplate inserts.
func templateValues(t cove.Template) []any {
	return []any{t.ID, t.Team, t.Alias, cmp.Or(t.Source, cove.FromRecipe), t.Public, micros(t.CreatedAt)}
}

// CreateTemplate implements store.Templates.
func (s *Store) CreateTemplate(ctx context.Context, t cove.Template) error {
	_, err := s.write.ExecContext(ctx, insertTemplate, templateValues(t)...)
	return convert("sqlite.CreateTemplate", err)
}

// templateOf returns the template that has the team and the alias of t: t itself
// if there was none.
func templateOf(ctx context.Context, tx *sql.Tx, t cove.Template) (cove.Template, error) {
	if _, err := tx.ExecContext(ctx, insertTemplate+` ON CONFLICT (team_id, alias) DO NOTHING`, templateValues(t)...); err != nil {
		return cove.Template{}, err
	}
	return scanTemplate(tx.QueryRowContext(ctx, `SELECT `+templateColumns+` FROM templates WHERE team_id = ? AND alias = ?`, t.Team, t.Alias))
}

// TemplateByName implements store.Templates.
func (s *Store) TemplateByName(ctx context.Context, team cove.TeamID, name string) (cove.Template, error) {
	t, err := scanTemplate(s.read.QueryRowContext(ctx, `
		SELECT `+templateColumns+` FROM templates
		WHERE (alias = ?2 AND team_id IN (?1, '')) OR (id = ?2 AND (team_id IN (?1, '') OR public))
		ORDER BY team_id = ?1 DESC, team_id = '' DESC, alias = ?2 DESC LIMIT 1`, team, name))
	return t, convert("sqlite.TemplateByName", err)
}

// PublicTemplate implements store.Templates.
func (s *Store) PublicTemplate(ctx context.Context, namespace, alias string) (cove.Template, error) {
	const op = "sqlite.PublicTemplate"
	// CROSS, so that teams come first: they are few, and the index finds a
	// template by its team and alias.
	rows, err := s.read.QueryContext(ctx, `SELECT o.name, `+prefixed("t.", templateColumns)+` FROM teams AS o
		CROSS JOIN templates AS t ON t.team_id = o.id AND t.alias = ? WHERE t.public ORDER BY o.created_at, o.id`, alias)
	if err != nil {
		return cove.Template{}, convert(op, err)
	}
	defer rows.Close()
	for rows.Next() {
		var owner cove.Team
		var t cove.Template
		into, set := templateFields(&t)
		if err := rows.Scan(append([]any{&owner.Name}, into...)...); err != nil {
			return cove.Template{}, convert(op, err)
		}
		if owner.Slug() == namespace { // compared here: only the root package knows what a slug is
			set()
			return t, nil
		}
	}
	return cove.Template{}, convert(op, cmp.Or(rows.Err(), sql.ErrNoRows))
}

// ListTemplates implements store.Templates.
func (s *Store) ListTemplates(ctx context.Context, team cove.TeamID, after cove.TemplatePos, limit int) ([]cove.TemplateInfo, error) {
	where, args := `team_id = ? AND source = ?`, []any{team, cove.FromRecipe}
	if after != (cove.TemplatePos{}) {
		where += ` AND (created_at, id) < (?, ?)`
		args = append(args, micros(after.CreatedAt), after.ID)
	}
	return s.infos(ctx, "sqlite.ListTemplates", where+` ORDER BY created_at DESC, id DESC LIMIT ?`, append(args, limit)...)
}

// TemplateInfo implements store.Templates.
func (s *Store) TemplateInfo(ctx context.Context, template cove.TemplateID) (cove.TemplateInfo, error) {
	const op = "sqlite.TemplateInfo"
	infos, err := s.infos(ctx, op, `id = ?`, template)
	if err == nil && len(infos) == 0 {
		err = convert(op, sql.ErrNoRows)
	}
	if err != nil {
		return cove.TemplateInfo{}, err
	}
	return infos[0], nil
}

// infos returns the templates that a condition selects, each with its build.
func (s *Store) infos(ctx context.Context, op, where string, args ...any) ([]cove.TemplateInfo, error) {
	var infos []cove.TemplateInfo
	err := s.view(ctx, op, func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT `+templateColumns+`, build_count, spawn_count, last_spawned_at, updated_at
			FROM templates WHERE `+where, args...)
		if err != nil {
			return err
		}
		if infos, err = collect(op, rows, scanInfo); err != nil {
			return err
		}
		rows, err = tx.QueryContext(ctx, `SELECT `+buildColumns+` FROM builds WHERE id IN (
			SELECT (SELECT b.id FROM builds AS b WHERE b.template_id = t.id
				ORDER BY b.status = '`+string(cove.BuildReady)+`' DESC, b.created_at DESC, b.id DESC LIMIT 1)
			FROM templates AS t WHERE `+where+`)`, args...)
		if err != nil {
			return err
		}
		builds, err := collect(op, rows, scanBuild)
		of := map[cove.TemplateID]cove.Build{}
		for _, b := range builds {
			of[b.Template] = b
		}
		for i := range infos {
			infos[i].Build = of[infos[i].ID]
		}
		return err
	})
	return infos, err
}

func scanInfo(row scanner) (cove.TemplateInfo, error) {
	var t cove.TemplateInfo
	var spawned, updated int64
	into, set := templateFields(&t.Template)
	err := row.Scan(append(into, &t.Builds, &t.Spawned, &spawned, &updated)...)
	set()
	t.SpawnedAt, t.UpdatedAt = fromMicros(spawned), fromMicros(updated)
	return t, err
}

// SetPublic implements store.Templates.
func (s *Store) SetPublic(ctx context.Context, team cove.TeamID, template cove.TemplateID, public bool) error {
	return convert("sqlite.SetPublic", someRow(s.write.ExecContext(ctx,
		`UPDATE templates SET public = ? WHERE id = ? AND team_id = ?`, public, template, team)))
}

// DeleteTemplate implements store.Templates.
func (s *Store) DeleteTemplate(ctx context.Context, team cove.TeamID, template cove.TemplateID) error {
	const op = "sqlite.DeleteTemplate"
	return s.tx(ctx, op, func(tx *sql.Tx) error {
		var used bool
		err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM sandboxes WHERE template_id = t.id)
			FROM templates AS t WHERE id = ? AND team_id = ? AND source = ?`, template, team, cove.FromRecipe).Scan(&used)
		if err != nil {
			return err
		}
		if used {
			return cove.E(cove.Conflict, op, nil, "there are sandboxes that were made from the template: end them first")
		}
		for _, statement := range []string{ // logs go with their builds
			`DELETE FROM tags WHERE template_id = ?`, `DELETE FROM builds WHERE template_id = ?`, `DELETE FROM templates WHERE id = ?`,
		} {
			if _, err := tx.ExecContext(ctx, statement, template); err != nil {
				return err
			}
		}
		return nil
	})
}

// marks returns n placeholders.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }
