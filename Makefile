# What continuous integration runs is what a person runs. Every target makes the environment that it needs.
#
#   make test PYTHON=python3.12     with another interpreter

PYTHON ?= python3
VENVS ?= .venvs
# Another interpreter has environments of its own.
SUFFIX := $(if $(filter python3,$(PYTHON)),,-$(subst /,_,$(PYTHON)))
TEST_VENV ?= $(VENVS)/test$(SUFFIX)
LOCAL_VENV ?= $(VENVS)/local$(SUFFIX)
DEV_VENV ?= $(VENVS)/dev$(SUFFIX)
DOCS_VENV ?= $(VENVS)/docs$(SUFFIX)
DEMO_VENV ?= $(VENVS)/demo$(SUFFIX)
BENCH_VENV ?= $(VENVS)/bench$(SUFFIX)
DEPLOY_VENV ?= $(VENVS)/deploy$(SUFFIX)
SITE_VENV ?= $(VENVS)/site$(SUFFIX)
LITELLM_VENV ?= $(VENVS)/litellm$(SUFFIX)
AIRFLOW_VENV ?= $(VENVS)/airflow$(SUFFIX)
PREFECT_VENV ?= $(VENVS)/prefect$(SUFFIX)
CLUSTER_VENV ?= $(VENVS)/cluster$(SUFFIX)
FREETHREADED_VENV ?= $(VENVS)/freethreaded

# Bytecode is kept, as the tests start hundreds of interpreters, but not among the sources.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX := $(abspath $(VENVS))/pycache

# Many tests wait, for a process or for a time limit: more at once than there are cores, of heavy ones fewer.
CORES := $(shell python3 -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
IN_PROCESSES = -n $(shell expr $(CORES) + 3) --dist worksteal
HEAVY_ONES = -n $(shell expr $(CORES) + 2) --dist worksteal

INPUTS = setup.cfg setup.py pyproject.toml scripts/make_venv.py
MAKE_VENV = command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON): install Python 3.9 or newer." >&2; exit 1; }; \
	$(PYTHON) scripts/make_venv.py

.PHONY: help demo site test test-docs test-local test-slow test-freethreaded test-deploy test-orchestrators test-cluster
.PHONY: test-servers coverage lint format types docs bench package ci ci-full clean

help:
	@echo "make demo        a run that is killed and goes on, then a real (small) model; ARGS=--no-model leaves that out"
	@echo "make site        a site in Django, with a real (small) model; PORT=8001, ARGS=--practice for made-up answers"
	@echo "make test        the test suite"
	@echo "make test-docs   every example of the documentation, run and compared with what its page shows"
	@echo "make test-local  the tests of the embedded model (fetches it once; Python 3.10 or newer)"
	@echo "make test-slow   the tests that take longer, and what they have counted (CHATPOOL_FUZZ_SEED for other damage)"
	@echo "make test-freethreaded the test suite on a Python without the global lock, which it builds (Debian; six minutes)"
	@echo "make test-deploy the tests under gunicorn, Celery, Django, gevent and OpenTelemetry (installs Debian's Redis, Chromium)"
	@echo "make test-orchestrators the examples for Airflow and Prefect under the real ones"
	@echo "make test-cluster the tests under Dask, Ray, Spark and Slurm, and on two hosts (installs Debian's Redis, Java, Slurm)"
	@echo "make test-servers the tests with real servers and proxies: Debian's nginx, haproxy, tinyproxy, microsocks; LiteLLM, llama.cpp"
	@echo "make coverage    the test suite, with coverage"
	@echo "make lint        ruff;  make format  puts right what can be put right"
	@echo "make types       mypy --strict; Pyright, strict, on tests/typing"
	@echo "make docs        the documentation, to docs/_build/html"
	@echo "make bench       measurements (40 minutes on a fast machine, twice that on a slow one); ARGS=cost takes one, ARGS=--list shows them"
	@echo "make package     wheel and source distribution, to dist/"
	@echo "make ci          what has to hold before anything is merged (.ci/run)"
	@echo "make ci-full     everything: all of the tests, on every Python there is; an hour"
	@echo "make clean       removes everything that the others made"

demo: $(DEMO_VENV)/.ready
	@$(DEMO_VENV)/bin/python examples/demo.py $(ARGS)

PORT ?= 8000
site: $(SITE_VENV)/.ready
	@$(SITE_VENV)/bin/python examples/django_site/serve.py --port $(PORT) $(ARGS)

test: $(TEST_VENV)/.ready
	$(TEST_VENV)/bin/python -m pytest $(IN_PROCESSES) $(ARGS)

test-docs: $(TEST_VENV)/.ready
	$(TEST_VENV)/bin/python -m pytest $(IN_PROCESSES) -m docs $(ARGS)

test-local: $(LOCAL_VENV)/.ready
	$(LOCAL_VENV)/bin/python -m pytest -m local $(ARGS)

test-slow: $(TEST_VENV)/.ready
	$(TEST_VENV)/bin/python -m pytest $(HEAVY_ONES) -m "(slow or hypothesis) and not (local or deploy or cluster or servers or docs)" --hypothesis-profile full \
		-o faulthandler_timeout=900 $(ARGS)

# Without the global lock, whatever the packages ask for.
test-freethreaded: $(FREETHREADED_VENV)/.ready
	PYTHON_GIL=0 $(FREETHREADED_VENV)/bin/python -m pytest --ignore=tests/servers $(HEAVY_ONES) $(ARGS)

test-deploy: $(DEPLOY_VENV)/.ready
	scripts/deploy-tests.sh $(DEPLOY_VENV)/bin/python $(HEAVY_ONES) $(ARGS)

test-orchestrators: $(TEST_VENV)/.ready $(AIRFLOW_VENV)/.ready $(PREFECT_VENV)/.ready
	CHATPOOL_AIRFLOW_PYTHON=$(abspath $(AIRFLOW_VENV)/bin/python) \
		CHATPOOL_PREFECT_PYTHON=$(abspath $(PREFECT_VENV)/bin/python) \
		$(TEST_VENV)/bin/python -m pytest -m orchestrators -o faulthandler_timeout=900 tests/deploy/test_orchestrators.py $(ARGS)

# A cluster is many processes already: no more of them at once than there are cores.
test-cluster: $(CLUSTER_VENV)/.ready
	scripts/cluster-tests.sh $(CLUSTER_VENV)/bin/python -n $(CORES) --dist loadfile $(ARGS)

test-servers: $(TEST_VENV)/.ready $(LOCAL_VENV)/.ready $(LITELLM_VENV)/.ready
	CHATPOOL_LLAMA_PYTHON=$(LOCAL_VENV)/bin/python CHATPOOL_LITELLM_PYTHON=$(LITELLM_VENV)/bin/python \
		scripts/server-tests.sh $(TEST_VENV)/bin/python $(ARGS)

coverage: $(TEST_VENV)/.ready
	$(TEST_VENV)/bin/python -m pytest $(IN_PROCESSES) --cov --cov-report=term $(ARGS)

lint: $(DEV_VENV)/.ready
	$(DEV_VENV)/bin/ruff check .
	$(DEV_VENV)/bin/ruff format --check .

format: $(DEV_VENV)/.ready
	$(DEV_VENV)/bin/ruff check --fix .
	$(DEV_VENV)/bin/ruff format .

types: $(DEV_VENV)/.ready
	$(DEV_VENV)/bin/mypy
	$(DEV_VENV)/bin/basedpyright --pythonpath $(DEV_VENV)/bin/python

docs: $(DOCS_VENV)/.ready
	$(DOCS_VENV)/bin/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: $(BENCH_VENV)/.ready
	$(BENCH_VENV)/bin/python -m benchmarks $(ARGS)

package: $(DEV_VENV)/.ready
	rm -rf dist
	$(DEV_VENV)/bin/python -m build --outdir dist .

ci:
	.ci/run

ci-full:
	.ci/run full

clean:
	rm -rf $(VENVS) .pythons .pythons-built build dist docs/_build htmlcov *.egg-info .coverage .coverage.* .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is the last thing written, so that an environment that was not finished is made anew.
$(TEST_VENV)/.ready: $(INPUTS)
	@$(MAKE_VENV) $(TEST_VENV) test $(VENV_OPTIONS)
	@touch $@

# What has no wheels for it: cryptography, of which trustme is made, polars, and what vcrpy stands on.
$(FREETHREADED_VENV)/.ready: $(INPUTS) scripts/freethreaded_python.sh scripts/freethreaded_constraints.txt
	@python=$$(scripts/freethreaded_python.sh) && PIP_CONSTRAINT=scripts/freethreaded_constraints.txt \
		$$python scripts/make_venv.py $(FREETHREADED_VENV) test --without polars,trustme,vcrpy
	@touch $@

$(LOCAL_VENV)/.ready: $(INPUTS)
	@$(MAKE_VENV) $(LOCAL_VENV) test,local --at-least 3.10
	@touch $@

$(BENCH_VENV)/.ready: $(INPUTS)
	@$(MAKE_VENV) $(BENCH_VENV) bench,local,test --at-least 3.10
	@touch $@

$(DEPLOY_VENV)/.ready: $(INPUTS)
	@$(MAKE_VENV) $(DEPLOY_VENV) deploy,test --at-least 3.10
	@touch $@

$(LITELLM_VENV)/.ready: tests/servers/litellm-requirements.txt scripts/make_venv.py
	@$(MAKE_VENV) $(LITELLM_VENV) --only $< --at-least 3.10
	@touch $@

$(AIRFLOW_VENV)/.ready: tests/deploy/airflow-requirements.txt scripts/make_venv.py
	@$(MAKE_VENV) $(AIRFLOW_VENV) --only $< --at-least 3.10
	@touch $@

$(PREFECT_VENV)/.ready: tests/deploy/prefect-requirements.txt scripts/make_venv.py
	@$(MAKE_VENV) $(PREFECT_VENV) --only $< --at-least 3.10
	@touch $@

$(CLUSTER_VENV)/.ready: $(INPUTS)
	@$(MAKE_VENV) $(CLUSTER_VENV) cluster,test --at-least 3.10
	@touch $@

$(DEV_VENV)/.ready: $(INPUTS)
	@$(MAKE_VENV) $(DEV_VENV) dev,test --at-least 3.10
	@touch $@

$(DOCS_VENV)/.ready: $(INPUTS)
	@$(MAKE_VENV) $(DOCS_VENV) docs,test --at-least 3.10
	@touch $@

$(DEMO_VENV)/.ready: $(INPUTS)
	@echo "The demo runs a model on this machine; that needs Python 3.10 or newer."
	@$(MAKE_VENV) $(DEMO_VENV) local --at-least 3.10
	@touch $@

$(SITE_VENV)/.ready: $(INPUTS)
	@$(MAKE_VENV) $(SITE_VENV) django,local,site --at-least 3.10
	@touch $@
