package files

import (
	"net/http"
	"testing"
)

func TestAccept(t *testing.T) {
	for header, want := range map[string]accepted{
		"":                           {gzip: false, identity: true},
		"*":                          {gzip: false, identity: true},
		"gzip":                       {gzip: true, identity: true},
		"gzip, deflate, br, zstd":    {gzip: true, identity: true},
		"GZIP;q=0.1":                 {gzip: true, identity: true},
		"gzip;q=0":                   {gzip: false, identity: true},
		"identity, gzip;q=0.5":       {gzip: false, identity: true},
		"identity;q=0.5, gzip;q=1.0": {gzip: true, identity: true},
		"br":                         {gzip: false, identity: true},
		"identity;q=0":               {gzip: false, identity: false},
		"gzip, identity;q=0":         {gzip: true, identity: false},
		"*;q=0":                      {gzip: false, identity: false},
		"gzip, *;q=0":                {gzip: true, identity: false},
		"identity;q=0, *":            {gzip: true, identity: false},
	} {
		h := http.Header{}
		if header != "" {
			h.Set("Accept-Encoding", header)
		}
		if got := accept(h); got != want {
			t.Errorf("%q: %+v, want %+v", header, got, want)
		}
	}
}
