# Every target makes the environment that it needs. PYTHON=/path/to/python3.12 chooses another Python.

NEWEST := .venv
OLDEST := .venv-oldest
UPSTREAM := .venv-upstream
DBT_ENVIRONMENT := .venv-dbt
BIN := $(NEWEST)/bin
# Many tests wait for a child or a server, so there are more workers than cores.
WORKERS := -n $(shell echo $$(( $$(nproc) * 3 / 2 ))) --dist worksteal

.PHONY: help demo check environments lint types contracts test test-newest test-others test-oldest test-upstream test-dbt soak format golden docs reference pictures bench clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: $(NEWEST)/made ## the main job on real text and a local server: no key, no network
	$(BIN)/duckdb-mistral demo

check: environments ## everything that a change must pass
	@$(MAKE) -j2 --output-sync lint types contracts docs
	@$(MAKE) test

# The first alone, since it may have to install Python's venv; the others at the same time.
environments: $(NEWEST)/made
	@$(MAKE) -j3 $(OLDEST)/made $(UPSTREAM)/made $(DBT_ENVIRONMENT)/made

lint: $(NEWEST)/made ## style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(NEWEST)/made ## mypy --strict
	$(BIN)/mypy

contracts: $(NEWEST)/made ## which module may import which
	$(BIN)/lint-imports

test: test-newest test-others ## the tests, on the newest and the oldest versions of what the package needs

test-newest: $(NEWEST)/made $(NEWEST)/node/made
	$(BIN)/python -m pytest $(WORKERS)

test-others: $(OLDEST)/made $(UPSTREAM)/made $(DBT_ENVIRONMENT)/made
	@$(MAKE) -j2 --output-sync test-oldest test-upstream test-dbt

test-oldest: $(OLDEST)/made
	$(OLDEST)/bin/python -m pytest $(WORKERS) -m "not newest and not live" --schedules 4

# Servers of models by other projects. One of them holds starlette back, so they have an environment of their own.
test-upstream: $(UPSTREAM)/made
	$(UPSTREAM)/bin/python -m pytest tests/emulator/test_models_server.py tests/emulator/test_llama_cpp.py

# The newest dbt is held at a distance from the rest: it cannot be installed whole from packages alone.
test-dbt: $(DBT_ENVIRONMENT)/made
	$(DBT_ENVIRONMENT)/bin/python -m pytest $(WORKERS) -m "not newest and not live" tests/test_dbt_package.py

soak: $(NEWEST)/made ## a fault at every step, many races, and thousands of random schedules of faults; SEED=1 SCHEDULES=3000
	$(BIN)/python -m pytest -n auto tests/faults/test_every_step.py tests/faults/test_team_every_step.py --every 1
	$(BIN)/python -m pytest -n auto tests/state/test_races.py --rounds 50
	$(BIN)/python -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) * 3)) tests/faults/test_schedules.py --seed $(or $(SEED),1) --schedules $(or $(SCHEDULES),3000)
	$(BIN)/python -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) * 3)) tests/faults/test_team_schedules.py --seed $(or $(SEED),1) --team-schedules $$(($(or $(SCHEDULES),3000) / 10))

format: $(NEWEST)/made ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: $(NEWEST)/made ## rewrite the golden files; read the diff
	$(BIN)/python -m pytest tests/contracts --golden

docs: $(NEWEST)/made ## the pages as HTML, in docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

reference: $(NEWEST)/made ## rewrite docs/reference.md
	$(BIN)/python scripts/reference.py

pictures: $(NEWEST)/made ## redraw docs/pictures from real sessions
	$(BIN)/python scripts/pictures.py --shell $(BIN)/duckdb-mistral

bench: $(NEWEST)/made ## speed and memory as ratios, in over an hour; CASES="read memory" measures only these, and adds their tables
	$(BIN)/python -m pip --disable-pip-version-check -q install --group bench
	$(BIN)/python -m benchmarks $(if $(CASES),--cases $(CASES) --add,--write)

clean: ## remove the environments
	rm -rf $(NEWEST) $(OLDEST) $(UPSTREAM) $(DBT_ENVIRONMENT)

$(NEWEST)/made: pyproject.toml scripts/environment.sh
	scripts/environment.sh $(NEWEST)

$(OLDEST)/made: pyproject.toml scripts/environment.sh scripts/oldest.py
	scripts/environment.sh $(OLDEST) oldest

$(UPSTREAM)/made: pyproject.toml scripts/environment.sh
	scripts/environment.sh $(UPSTREAM) upstream

# DuckDB's client for Node, in which the extension is tried; without npm those tests are skipped.
$(NEWEST)/node/made: $(NEWEST)/made
	@mkdir -p $(NEWEST)/node
	@if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --prefix $(NEWEST)/node @duckdb/node-api || true; fi
	@touch $@

$(DBT_ENVIRONMENT)/made: pyproject.toml scripts/environment.sh scripts/without_parser.py
	scripts/environment.sh $(DBT_ENVIRONMENT) dbt
