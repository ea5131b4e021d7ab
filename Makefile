# Cove. "make help" lists the targets.

GO      ?= go
GVISOR  := $(shell $(GO) list -m -f '{{.Version}}' gvisor.dev/gvisor)
VERSION ?= dev
LDFLAGS := -s -w -X gvisor.dev/gvisor/runsc/version.version=$(GVISOR) \
           -X github.com/cove-sandbox/cove/internal/cli.Version=$(VERSION)

export CGO_ENABLED = 0

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/cove, bin/cove-envd and bin/cove-runsc
	@echo "building cove, cove-envd and cove-runsc (the first time takes a minute or two)"
	@mkdir -p bin
	@GOBIN="$(CURDIR)/bin" $(GO) install -buildvcs=false -ldflags '$(LDFLAGS)' ./cmd/cove ./cmd/cove-envd ./cmd/cove-runsc

deps: ## install the OS packages that building the base template needs
	@scripts/deps

demo: deps build ## set everything up and run code in a sandbox
	@scripts/demo

test: deps build ## run all tests, those with real sandboxes and real SDKs too
	@scripts/deps test
	$(GO) vet ./...
	$(GO) test -timeout 25m ./...

bench: deps build ## measure; one JSON line a figure on standard output
	@$(GO) test -run '^$$' -bench Figures -benchtime 1x -timeout 30m ./test/bench | grep '^{'

MINUTES ?= 10
soak: deps build ## random operations and crashes, for MINUTES=10; SEED=n repeats a run
	@scripts/deps test
	$(GO) test -count=1 -v -timeout $$(($(MINUTES) + 15))m ./test/soak -minutes $(MINUTES) $(if $(SEED),-seed $(SEED))

generate: ## generate internal/gen from spec/
	$(GO) generate ./spec

.PHONY: help build deps demo test bench soak generate
