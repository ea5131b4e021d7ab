package files

import (
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/cove-sandbox/cove/internal/envd/reply"
)

// accepted says which encodings of a response a client takes.
type accepted struct {
	gzip     bool // and would rather have it
	identity bool
}

// accept reads Accept-Encoding. Gzip is preferred where it is named and weighs
// no less than a named identity; a star alone asks for nothing in particular.
func accept(h http.Header) accepted {
	weights := map[string]float64{}
	for _, item := range strings.Split(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		name, params, _ := strings.Cut(item, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		if name == "" {
			continue
		}
		weights[name] = 1
		for _, param := range strings.Split(params, ";") {
			if k, v, ok := strings.Cut(strings.TrimSpace(param), "="); ok && strings.EqualFold(k, "q") {
				if q, err := strconv.ParseFloat(v, 64); err == nil {
					weights[name] = q
				}
			}
		}
	}
	star, starred := weights["*"]
	gz, named := weights["gzip"]
	id, idNamed := weights["identity"]
	if !idNamed && starred && star == 0 {
		idNamed = true // with weight 0: nothing but what is named
	}
	if !named && idNamed && id == 0 && starred && star > 0 {
		gz, named = star, true
	}
	return accepted{
		gzip:     named && gz > 0 && (!idNamed || gz >= id),
		identity: !idNamed || id > 0,
	}
}

// decoded returns the request's body without its Content-Encoding.
func decoded(r *http.Request) (io.Reader, error) {
	switch encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); encoding {
	case "", "identity":
		return r.Body, nil
	case "gzip":
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, badGzip()
		}
		return &gunzip{z}, nil
	default:
		return nil, reply.Errorf(http.StatusBadRequest, "unsupported content encoding: %s", encoding)
	}
}

// gunzip makes every failure the client's: its body is broken or cut.
type gunzip struct{ *gzip.Reader }

// Read reads decompressed bytes.
func (z *gunzip) Read(p []byte) (int, error) {
	n, err := z.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = badGzip()
	}
	return n, err
}

func badGzip() error {
	return reply.Errorf(http.StatusBadRequest, "the body is not valid gzip, or was cut")
}
