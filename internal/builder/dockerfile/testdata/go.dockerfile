# syntax=docker/dockerfile:1.7
FROM --platform=$BUILDPLATFORM golang:1.24 AS build
ARG TARGETOS TARGETARCH
ARG VERSION=dev
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -ldflags "-s -w -X main.version=$VERSION" -o /out/server ./cmd/server

FROM debian:bookworm-slim AS certs
RUN apt-get update && apt-get install -y ca-certificates

FROM scratch AS files
COPY --from=build /out/server /usr/local/bin/server
COPY --from=certs /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/

FROM debian:bookworm-slim
COPY --link --from=files / /
COPY --from=busybox:1.36 --chmod=755 /bin/busybox /usr/local/bin/
STOPSIGNAL SIGTERM
VOLUME ["/data"]
ENTRYPOINT ["/usr/local/bin/server"]
