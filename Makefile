# Goals for people; what they do is in .ci/. `make help` lists them.

ARGS ?=

.DEFAULT_GOAL := build
.PHONY: build devnet test check bench deny clean help

build: ## build target/release/proofmill (the default)
	@bash .ci/stages build

devnet: ## build, then run `proofmill devnet`; more arguments through ARGS="..."
	@bash .ci/stages build
	@exec target/release/proofmill devnet $(ARGS)

test: ## everything a machine checks: build, fmt, clippy, doc, tests, examples
	@bash .ci/stages test

check: ## fmt, clippy and doc only
	@bash .ci/stages check

bench: ## run the benchmarks; arguments of cargo bench through ARGS="..."
	@bash .ci/stages bench $(ARGS)

deny: ## check licences, duplicate crates and sources of the dependencies
	@bash .ci/deny

clean: ## remove this checkout's target/; says where the shared cache is
	@bash .ci/clean

help: ## show this
	@bash .ci/help $(MAKEFILE_LIST)
