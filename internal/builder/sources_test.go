package builder

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cove "github.com/cove-sandbox/cove"
)

// answering answers every request in the place of the network.
type answering func(*http.Request) (int, string, error)

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body, err := a(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func TestCredentials(t *testing.T) {
	token := base64.StdEncoding.EncodeToString([]byte("AWS:a pass:word"))
	aws := cove.RegistryLogin{Kind: cove.AWSLogin, KeyID: "AKID", Key: "secret", Region: "eu-central-1"}
	good := answering(func(r *http.Request) (int, string, error) {
		auth := r.Header.Get("Authorization")
		if r.URL.Host != "api.ecr.eu-central-1.amazonaws.com" || r.Method != "POST" || !strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".GetAuthorizationToken") ||
			!strings.HasPrefix(auth, "AWS4-HMAC-SHA256 Credential=AKID/") || !strings.Contains(auth, "/eu-central-1/ecr/aws4_request") || strings.Contains(auth, "secret") {
			t.Errorf("%s %s with %v", r.Method, r.URL, r.Header)
		}
		return 200, `{"authorizationData":[{"authorizationToken":"` + token + `"}]}`, nil
	})
	for what, tt := range map[string]struct {
		login          cove.RegistryLogin
		network        answering
		user, password string
		kind           cove.Kind // if there is no user
	}{
		"none":          {user: "", kind: cove.Internal},
		"basic":         {login: cove.RegistryLogin{Kind: cove.BasicLogin, User: "u", Password: "p"}, user: "u", password: "p"},
		"gcp":           {login: cove.RegistryLogin{Kind: cove.GCPLogin, ServiceAccount: "{}"}, user: "_json_key", password: "{}"},
		"unknown":       {login: cove.RegistryLogin{Kind: "x"}, kind: cove.Invalid},
		"aws":           {login: aws, network: good, user: "AWS", password: "a pass:word"},
		"aws elsewhere": {login: cove.RegistryLogin{Kind: cove.AWSLogin, Region: "x.example/"}, network: good, kind: cove.Invalid},
		"aws refuses":   {login: aws, network: func(*http.Request) (int, string, error) { return 400, "secret", nil }, kind: cove.Forbidden},
		"aws away":      {login: aws, network: func(*http.Request) (int, string, error) { return 0, "", errors.New("no route") }, kind: cove.Unavailable},
		"aws nonsense":  {login: aws, network: func(*http.Request) (int, string, error) { return 200, "{}", nil }, kind: cove.Unavailable},
		"aws half a token": {login: aws, network: func(*http.Request) (int, string, error) {
			return 200, `{"authorizationData":[{"authorizationToken":"eA=="}]}`, nil
		}, kind: cove.Unavailable},
	} {
		user, password, err := credentials(t.Context(), tt.network, tt.login)
		if user != tt.user || password != tt.password || (err != nil) != (tt.user == "" && what != "none") || err != nil && !cove.Is(err, tt.kind) {
			t.Errorf("%s: %q, %q, %v", what, user, password, err)
		}
		if err != nil && strings.Contains(said(err), "secret") {
			t.Errorf("%s: the error tells a secret: %v", what, err)
		}
	}
}

func TestLocalImages(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image.tar")
	s := ImageSources{Local: map[string]string{"exact:1": file, "family:*": file}, Transport: answering(func(*http.Request) (int, string, error) {
		return 0, "", errors.New("nobody may be asked")
	})}
	if _, _, err := s.Find(context.Background(), "exact:1", cove.RegistryLogin{}, ""); !cove.Is(err, cove.NotFound) || strings.Contains(said(err), file) {
		t.Errorf("one that is not there: %v", err)
	}
	top, err := layer(commonFiles())
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for _, content := range [][]byte{top, append(top, make([]byte, 512)...)} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, ref := range []string{"exact:1", "family:3.12"} {
			img, key, err := s.Find(t.Context(), ref, cove.RegistryLogin{}, "")
			if err != nil || len(img.Layers) != 1 {
				t.Fatalf("%s: %v", ref, err)
			}
			keys[key] = true
		}
	}
	if len(keys) != 2 {
		t.Errorf("two contents have %d keys", len(keys))
	}
	if _, _, err := s.Find(t.Context(), "family/x:1", cove.RegistryLogin{}, ""); !cove.Is(err, cove.Unavailable) {
		t.Errorf("one of a registry: %v", err)
	}
}

func TestQuoted(t *testing.T) {
	if got := quoted("/a:$HOME`x`\"\\"); got != "/a:\\$HOME\\`x\\`\\\"\\\\" {
		t.Errorf("quoted = %s", got)
	}
}

func TestLines(t *testing.T) {
	for what, tt := range map[string]struct{ in, want string }{
		"colours":        {"\x1b[31m\x1b[1mWARNING\x1b[0m: x\x1b]0;title\x07\n", "WARNING: x|"},
		"progress":       {"10%\r20%\r100%\nnext", "100%|next|"},
		"windows":        {"a\r\nb\r\n", "a|b|"},
		"binary":         {"a\x00\x01\xffb\tc\n", "a\uFFFDb\tc|"},
		"long":           {strings.Repeat("x", maxLine+1) + "\n", strings.Repeat("x", maxLine) + "|x|"},
		"empty lines":    {"\n\na\n", "||a|"},
		"half an escape": {"a\x1b[3", "a[3|"},
	} {
		var got strings.Builder
		l := newLines(func(_ bool, line string) { got.WriteString(line + "|") })
		for _, b := range []byte(tt.in) { // in the smallest pieces
			l.write(false, []byte{b})
		}
		l.flush()
		if got.String() != tt.want {
			t.Errorf("%s: %q, want %q", what, got.String(), tt.want)
		}
	}
	l := newLines(func(bool, string) {})
	for range 30 {
		l.write(true, []byte(strings.Repeat("y", 1000)+"\n"))
	}
	if len(l.tail) != maxTail || len(l.tail[0]) > tailLine+3 {
		t.Errorf("%d last lines of %d bytes", len(l.tail), len(l.tail[0]))
	}
}
