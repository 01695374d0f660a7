# Everything runs in .venv, made from the lock file with nothing but Python, make and the package registries.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: docs settings demo test test-long check bench bench-pipeline bench-control bench-backfill bench-rewrites bench-inventory scale burst screenshots soak soak-faults soak-kill soak-workers workload install lock clean audit dist release-check sbom

## demo: migrate a made-up app on real servers of this machine; KEEP=1 leaves the Dagster UI running
demo: install
	$(BIN)/migration-pipeline demo $(if $(KEEP),--keep) $(if $(PROFILES),--profiles $(PROFILES))

## test: lint, types, import contracts, definitions, and all tests; starts every server it needs
test: check
	$(BIN)/pytest --numprocesses 2 --dist worksteal

## test-long: what takes many minutes, such as everything going down in the middle of a backfill
test-long: install
	$(BIN)/pytest -m long

## check: everything that needs no server
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	DAGSTER_HOME=$$(mktemp -d) $(BIN)/dg check defs

## bench: our copy engine beside rclone and the vendors' SDKs; writes benchmarks/results/copy_engine.json
bench: install
	$(BIN)/python -m benchmarks.copy_engine

## bench-pipeline: what everything around the copy engine costs
bench-pipeline: install
	$(BIN)/python -m benchmarks.pipeline --out benchmarks/results/pipeline.json

## burst: a store asks for fewer requests for some seconds; draws docs/images/burst.svg
burst: install
	$(BIN)/python -m benchmarks.burst

## soak-faults: the copy engine behind a proxy that fails 1, 10 and 30 % of the requests, in every way, three times each
soak-faults: install
	FAULT_RATES=0.01,0.1,0.3 $(BIN)/pytest migration_pipeline_tests/scenarios/test_faults.py

## soak: schedules of a living app with crashes anywhere; SCHEDULES=n SEED=s
soak: install
	$(BIN)/python -m migration_pipeline_tests.soak.run --schedules $(or $(SCHEDULES),2000) --seed $(or $(SEED),1)

## soak-kill: a worker killed KILLS times at random moments while users edit
soak-kill: install
	$(BIN)/python -m migration_pipeline_tests.soak.live kill --kills $(or $(KILLS),200)

## soak-workers: WORKERS processes for MINUTES while users come, edit and go and FAULTS of the requests fail; Linux
soak-workers: install
	$(BIN)/python -m migration_pipeline_tests.soak.several_workers --minutes $(or $(MINUTES),30) \
	  --workers $(or $(WORKERS),4) --faults $(or $(FAULTS),0.01)

## workload: what the app's own transactions cost while a worker migrates; EDITS=n
workload: install
	$(BIN)/python -m migration_pipeline_tests.soak.live workload --edits $(or $(EDITS),20000)

## bench-control: how soon runs obey, and how closely limits are kept
bench-control: install
	$(BIN)/python -m benchmarks.control --out benchmarks/results/control.json

## screenshots: draws docs/images anew with the Chromium that is on PATH, from a migration under dagster dev
screenshots: install
	$(BIN)/python docs/make_screenshots.py

## settings: the table of docs/settings.md, made of the settings' models
settings: install
	$(BIN)/python docs/make_settings.py

## docs: the pages of docs/ as a site in site/, strictly, and without asking anybody on the network
docs: install
	$(BIN)/zensical build --strict --clean

## bench-backfill: RANGES small ranges queued in one backfill, run to the end
bench-backfill: install
	$(BIN)/python -m benchmarks.backfill --ranges $(or $(RANGES),1000) --out benchmarks/results/backfill.json

## bench-rewrites: how fast references are re-pointed, and in how much memory
bench-rewrites: install
	$(BIN)/python -m benchmarks.rewrites

## bench-inventory: a report of ten million rows, and 200,000 blobs listed, into Postgres
bench-inventory: install
	$(BIN)/python -m benchmarks.inventory --out benchmarks/results/inventory.json

## scale: ten million profiles, 5,000 partitions, fifty million files: hours, and 40 GB of disk; python -m benchmarks.scale PART does less
scale: install
	$(BIN)/python -m benchmarks.scale all

## dist: sdist and wheel, in dist
dist: install
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist

## release-check: what dist holds, installed in an empty environment elsewhere, and the demo run from an empty folder
release-check: dist
	$(BIN)/python -m migration_pipeline_tests.release_check dist

## sbom: what the image of a deployment holds, in CycloneDX's form; dist/sbom.cdx.json
sbom: install
	mkdir -p dist
	$(BIN)/cyclonedx-py requirements deploy/requirements.lock --pyproject pyproject.toml --mc-type application \
	  --output-reproducible --output-file dist/sbom.cdx.json

## audit: known holes in what the image of a deployment holds; asks the advisories of PyPI
audit: install
	$(BIN)/pip-audit --strict --requirement deploy/requirements.lock --require-hashes --disable-pip

install: $(VENV)/installed

# A file tells whether the environment is that of the lock file, so that a second call costs nothing.
$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

## lock: resolve the dependencies anew, for every Python and platform, with hashes and without addresses
lock: install
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-strip-extras --python-version 3.11 --all-extras \
	  --no-annotate --no-header pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-strip-extras --python-version 3.11 --extra k8s \
	  --no-annotate --no-header --constraint requirements.lock pyproject.toml -o deploy/requirements.lock
	echo hatchling | $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	  --no-annotate --no-header --constraint requirements.lock - -o deploy/build.lock

clean:
	rm -rf $(VENV) dist site .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
