package builder

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	cove "github.com/cove-sandbox/cove"
)

var regionPattern = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)

// maxToken is how much of an answer with a token is read, in bytes.
const maxToken = 64 << 10

// awsCredentials trades the keys of an AWS account for user and password of its
// registry, with the call GetAuthorizationToken of the ECR API.
func awsCredentials(ctx context.Context, transport http.RoundTripper, login cove.RegistryLogin) (user, password string, err error) {
	const op = "builder.awsCredentials"
	if !regionPattern.MatchString(login.Region) {
		return "", "", cove.E(cove.Invalid, op, nil, "%q is no AWS region", login.Region)
	}
	const body = "{}"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://api.ecr."+login.Region+".amazonaws.com/", strings.NewReader(body))
	if err != nil {
		return "", "", err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken")
	sum := sha256.Sum256([]byte(body))
	keys := aws.Credentials{AccessKeyID: login.KeyID, SecretAccessKey: login.Key}
	if err := v4.NewSigner().SignHTTP(ctx, keys, req, hex.EncodeToString(sum[:]), "ecr", login.Region, time.Now()); err != nil {
		return "", "", fmt.Errorf("%s: %w", op, err)
	}
	if transport == nil {
		transport = http.DefaultTransport
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", "", cove.E(cove.Unavailable, op, err, "the AWS registry's API cannot be reached")
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxToken))
	if err != nil {
		return "", "", cove.E(cove.Unavailable, op, err, "the answer of the AWS registry's API could not be read")
	}
	if resp.StatusCode != http.StatusOK {
		return "", "", cove.E(cove.Forbidden, op, fmt.Errorf("status %d", resp.StatusCode), "AWS refused the keys for its registry (status %d)", resp.StatusCode)
	}
	return parseECR(answer)
}

// parseECR reads user and password out of the API's answer.
func parseECR(answer []byte) (user, password string, err error) {
	var data struct {
		AuthorizationData []struct {
			AuthorizationToken string `json:"authorizationToken"`
		} `json:"authorizationData"`
	}
	if err = json.Unmarshal(answer, &data); err == nil && len(data.AuthorizationData) > 0 {
		var token []byte
		if token, err = base64.StdEncoding.DecodeString(data.AuthorizationData[0].AuthorizationToken); err == nil {
			if user, password, ok := strings.Cut(string(token), ":"); ok {
				return user, password, nil
			}
		}
	}
	return "", "", cove.E(cove.Unavailable, "builder.parseECR", err, "the answer of the AWS registry's API makes no sense")
}
