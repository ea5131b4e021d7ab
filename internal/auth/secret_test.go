package auth_test

import (
	"crypto/sha256"
	"encoding/base64"
	"regexp"
	"strings"
	"testing"
	"time"

	cove "github.com/cove-sandbox/cove"
	"github.com/cove-sandbox/cove/internal/auth"
)

func TestNewKey(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("", 3600))
	plain, record := auth.NewKey("team1", "laptop", now)
	if !regexp.MustCompile(`^e2b_[0-9a-f]{40}$`).MatchString(plain) {
		t.Errorf("key %q is not in the form clients ask for", plain)
	}
	if record.Team != "team1" || record.Name != "laptop" || record.ID == "" || !record.CreatedAt.Equal(now) {
		t.Errorf("record = %+v", record)
	}
	if record.Hash != auth.HashKey(plain) {
		t.Errorf("hash %q is not the key's", record.Hash)
	}
	if again, _ := auth.NewKey("team1", "laptop", now); again == plain {
		t.Error("two keys are the same")
	}
	for _, stored := range []string{record.Hash, record.Mask, record.ID} {
		if strings.Contains(stored, plain[4:]) {
			t.Errorf("the record holds the key: %q", stored)
		}
	}
}

func TestHashKey(t *testing.T) {
	of := func(b []byte) string {
		sum := sha256.Sum256(b)
		return "$sha256$" + base64.RawStdEncoding.EncodeToString(sum[:])
	}
	zeros := "e2b_" + strings.Repeat("0", 40)
	tests := []struct{ name, key, want string }{
		{"official form: the raw bytes", zeros, of(make([]byte, 20))},
		{"longer: the string", zeros + "00", of([]byte(zeros + "00"))},
		{"shorter: the string", "e2b_00", of([]byte("e2b_00"))},
		{"upper case: the string", "e2b_" + strings.Repeat("A", 40), of([]byte("e2b_" + strings.Repeat("A", 40)))},
		{"not hexadecimal: the string", "e2b_" + strings.Repeat("g", 40), of([]byte("e2b_" + strings.Repeat("g", 40)))},
		{"no prefix: the string", "hello", of([]byte("hello"))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := auth.HashKey(tt.key); got != tt.want {
				t.Errorf("HashKey = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestMaskKey(t *testing.T) {
	if got, want := auth.MaskKey("e2b_12"+strings.Repeat("0", 34)+"beef"), "e2b_12********beef"; got != want {
		t.Errorf("MaskKey = %q, want %q", got, want)
	}
	if got := auth.MaskKey("short-secret"); got != "********" {
		t.Errorf("MaskKey of a short key = %q", got)
	}
}

func TestTokens(t *testing.T) {
	tokens, err := auth.NewTokens([]byte("a secret of 24 bytes too"), "k1")
	if err != nil {
		t.Fatal(err)
	}
	// Computed with: printf %s MESSAGE | openssl dgst -sha256 -hmac SECRET
	want := map[string]string{
		"envd":    "d425086db3647aee33793c19345d54b984576ce7fa61cc80b70ac7fa274a7c71",
		"traffic": "1179a88d6e10850c10fe9cd8a41fd26410f756415809bee863ba1335049326a1",
		"control": "e0920b9e869974950bf4db57e35db564c862bee35d832833ce178f36bcdb6bb9",
	}
	id := cove.SandboxID("iabc")
	got := map[string]string{"envd": tokens.Envd(id), "traffic": tokens.Traffic(id), "control": tokens.Control(id)}
	for purpose, token := range want {
		if got[purpose] != token {
			t.Errorf("%s token = %q, want %q", purpose, got[purpose], token)
		}
	}
	if tokens.Envd("iabd") == tokens.Envd("iabc") {
		t.Error("two sandboxes share a token")
	}
	if tokens.KeyID() != "k1" {
		t.Errorf("KeyID = %q", tokens.KeyID())
	}
	if _, err := auth.NewTokens([]byte("short"), "k1"); err == nil {
		t.Error("a short secret was accepted")
	}
}

func TestEqual(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{{"x", "x", true}, {"x", "y", false}, {"x", "xx", false}, {"x", "", false}, {"", "", false}} {
		if got := auth.Equal(tt.a, tt.b); got != tt.want {
			t.Errorf("Equal(%q, %q) = %v", tt.a, tt.b, got)
		}
	}
}

func TestFileURL(t *testing.T) {
	const token = "0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0"
	u := auth.FileURL{Path: "hello.txt", Operation: auth.ReadFile, User: "user"}
	signature := u.Sign(token)
	// A vector of the official clients' own tests.
	if want := "v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E"; signature != want {
		t.Fatalf("signature = %q, want %q", signature, want)
	}
	now := time.Unix(1_800_000_000, 0)
	at := func(seconds int64) *int64 { s := now.Unix() + seconds; return &s }
	expiring := func(at *int64) auth.FileURL { v := u; v.Expires = at; return v }
	changed := func(f func(*auth.FileURL)) auth.FileURL { v := u; f(&v); return v }
	tests := []struct {
		name             string
		url              auth.FileURL
		token, signature string
		want             string // empty: valid
	}{
		{"valid", u, token, signature, ""},
		{"ends this second", expiring(at(0)), token, expiring(at(0)).Sign(token), ""},
		{"ended", expiring(at(-1)), token, expiring(at(-1)).Sign(token), "signature is already expired"},
		{"missing", u, token, "", "missing signature query parameter"},
		{"other token", u, "other", signature, "invalid signature"},
		{"no token", u, "", u.Sign(""), "invalid signature"},
		{"other path", changed(func(v *auth.FileURL) { v.Path = "/hello.txt" }), token, signature, "invalid signature"},
		{"other operation", changed(func(v *auth.FileURL) { v.Operation = auth.WriteFile }), token, signature, "invalid signature"},
		{"other user", changed(func(v *auth.FileURL) { v.User = "" }), token, signature, "invalid signature"},
		{"end taken away", u, token, expiring(at(5)).Sign(token), "invalid signature"},
		{"end moved", expiring(at(9)), token, expiring(at(5)).Sign(token), "invalid signature"},
		{"padded", u, token, signature + "=", "invalid signature"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.url.Verify(tt.token, tt.signature, now)
			if tt.want == "" {
				if err != nil {
					t.Errorf("Verify: %v", err)
				}
				return
			}
			if kind, msg := cove.Describe(err); kind != cove.Unauthorized || msg != tt.want {
				t.Errorf("Describe(err) = %v, %q, want unauthorized, %q", kind, msg, tt.want)
			}
		})
	}
}

func TestUploadTokens(t *testing.T) {
	tokens, err := auth.NewTokens([]byte("a secret of 24 bytes too"), "k1")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	token := tokens.Upload("team-1", "abc", now)
	if strings.Trim(token, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
		t.Errorf("%q cannot stand in an address as it is", token)
	}
	if team, hash, ok := tokens.Uploader(token, now); !ok || team != "team-1" || hash != "abc" {
		t.Errorf("%q, %q, %v", team, hash, ok)
	}
	other, err := auth.NewTokens([]byte("another secret, as long"), "k2")
	if err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string]string{
		"none": "", "another server's": other.Upload("team-1", "abc", now), "changed": "x" + token, "cut": token[:len(token)-1],
		"a daemon's": tokens.Envd("iabc"), "of no parts": ".", "of two teams": tokens.Upload("team-1 team-2", "abc", now),
	} {
		if _, _, ok := tokens.Uploader(bad, now); ok {
			t.Errorf("a token is good: %s", what)
		}
	}
	if _, _, ok := tokens.Uploader(token, now.Add(time.Second)); ok {
		t.Error("a token is good when its time is over")
	}
}
