# What one does with Tailorbird, from a machine that has Python 3.11 or later and make.
#
# Environments are made once and again only when what they are made of changes (the stamps).
# The tests run real third-party clients; one that cannot be installed is named here in a line, and its
# tests are skipped by name, or fail where CI=true.

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
RUNTIME := .venv/.runtime.stamp
DEVELOPMENT := .venv/.development.stamp
NODE_CLIENTS := .deps/node-clients.stamp
PYTHON_CLIENTS := .deps/python-clients.stamp
PEERS := .deps/peers.stamp
# A benchmark is a module with a report of its own; the others in the folder serve them. The one beside peers
# needs an environment with them, and is made on its own.
BENCHMARKS = $(filter-out peers,$(basename $(notdir $(shell grep -l '^    main."' benchmarks/*.py))))

.DEFAULT_GOAL := help
.PHONY: help install demo serve test check format bench bench-peers lock node python-clients chromium redis clean

help: ## Say what can be made.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 18

install: $(RUNTIME) ## Install Tailorbird into .venv.

demo: $(RUNTIME) ## Show the whole loop on recorded data; ARGS="--fast" for a short one.
	$(BIN)/tailorbird demo $(ARGS)

serve: $(RUNTIME) ## Serve on 127.0.0.1:8080; ARGS="--port 9090" and so on.
	$(BIN)/tailorbird serve $(ARGS)

test: $(DEVELOPMENT) node python-clients chromium ## Run every test; ARGS="-k name" for some.
	$(BIN)/python -m pytest $(ARGS)

check: $(DEVELOPMENT) ## Check format, lint, types and the direction of imports.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEVELOPMENT) ## Format the code and mend what the linter can.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEVELOPMENT) ## Run every benchmark against its budget; ARGS="--fast" for short ones.
	@failed=; for name in $(BENCHMARKS); do \
		echo "== $$name"; \
		$(BIN)/python -m benchmarks.$$name --check $(ARGS) || failed="$$failed $$name"; \
	done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

bench-peers: $(DEVELOPMENT) $(PEERS) redis ## Measure beside Feast, in the same run; ARGS="--fast --json".
	@$(BIN)/python -m benchmarks.peers --check $(ARGS)

lock: $(DEVELOPMENT) ## Take the newest versions of all dependencies and pin them in constraints.txt.
	$(BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[dev]'
	$(BIN)/python -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9._-]+==[^ @]+$$' \
		> constraints.txt.new
	mv constraints.txt.new constraints.txt

clean: ## Remove environments, installed clients and caches; data stays.
	rm -rf .venv .deps dist tests/clients/node/node_modules
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUNTIME): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[learn]'
	@# Compiles the numerical kernels once, so that the first start does not wait for it.
	$(BIN)/python -c "import tailorbird.app.commands"
	@touch $@

$(DEVELOPMENT): $(RUNTIME)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

node: $(NODE_CLIENTS) ## Install the Node and browser clients that the tests run.

$(NODE_CLIENTS): tests/clients/node/package.json tests/clients/node/package-lock.json
	@mkdir -p $(@D)
	@if ! command -v npm > /dev/null; then \
		echo "not installed: the Node and browser clients (npm is not here)"; \
	elif (cd tests/clients/node && npm ci --omit=dev --ignore-scripts --no-audit --no-fund); then \
		touch $@; \
	else \
		echo "not installed: the Node and browser clients (npm ci failed, see above)"; \
	fi

python-clients: $(PYTHON_CLIENTS) ## Install the Python clients that the tests run.

$(PYTHON_CLIENTS): tests/clients/python/requirements.txt
	@mkdir -p $(@D)
	@if $(PYTHON) -m venv .deps/python-clients && \
		.deps/python-clients/bin/python -m pip install --quiet --requirement $<; then \
		touch $@; \
	else \
		echo "not installed: the Python clients (pip failed, see above)"; \
	fi

chromium: ## Install Chromium, where this is Debian and one is root.
	@if command -v chromium || command -v chromium-browser || command -v google-chrome; then \
		true; \
	elif ! command -v apt-get > /dev/null || [ "$$(id -u)" != 0 ]; then \
		echo "not installed: Chromium (needs apt-get and root)"; \
	elif ! { apt-get update --quiet && DEBIAN_FRONTEND=noninteractive \
		apt-get install --quiet --yes --no-install-recommends chromium; } > /dev/null; then \
		echo "not installed: Chromium (apt-get failed, see above)"; \
	fi

$(PEERS): benchmarks/peers/requirements.txt
	@mkdir -p $(@D)
	@$(PYTHON) -m venv .deps/peers
	@.deps/peers/bin/python -m pip install --quiet --requirement $<
	@touch $@

redis: ## Install Redis for `bench-peers`, where this is Debian and one is root; it is not started.
	@if command -v redis-server > /dev/null; then \
		true; \
	elif ! command -v apt-get > /dev/null || [ "$$(id -u)" != 0 ]; then \
		echo "not installed: Redis (needs apt-get and root); Feast is measured on SQLite alone" >&2; \
	elif ! { apt-get update --quiet && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
		apt-get install --quiet --yes --no-install-recommends redis-server; } > /dev/null; then \
		echo "not installed: Redis (apt-get failed, see above); Feast is measured on SQLite alone" >&2; \
	fi
