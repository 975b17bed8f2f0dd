# On a machine with only Python and make: `make run` serves, `make test` tests. GNU make 3.81 is enough.

VENV := .venv
PY := $(VENV)/bin/python

.PHONY: help run test check format bench bench-quick clean

help:
	@echo 'make run        serve on http://127.0.0.1:8090'
	@echo 'make test       all tests but the slow ones and those on real servers and in browsers (e2e), in a minute'
	@echo 'make test-3.12  the slow ones too, on Python 3.12'
	@echo 'make check      lint, types, all tests with coverage; then `make test` on every other Python of this machine'
	@echo 'make bench      measure Sidestream, and other servers beside it'
	@echo 'make bench-quick  its hot paths beside those of the last release, or of BASE=<commit>; under two minutes'
	@echo 'make format     format the code'
	@echo 'make clean      remove what make has made'

run: $(VENV)/run.stamp
	@exec $(PY) app.py

# Four processes, since a test waits for half of its time. What measures time, or has servers and browsers beside it, runs alone.
# Python may write what it has compiled, whatever the environment says: each process would compile all tests anew.
QUICK := -m pytest -q -n 4 --dist worksteal -m 'not e2e and not slow' --ignore tests/e2e --ignore tests/examples

test: $(VENV)/check.stamp
	PYTHONDONTWRITEBYTECODE= $(PY) $(QUICK)

test-%: .venv-%/test.stamp
	PYTHONDONTWRITEBYTECODE= .venv-$*/bin/python $(QUICK)
	.venv-$*/bin/python -m pytest -q -m 'slow and not e2e'

check: $(VENV)/check.stamp
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m coverage run --data-file=.coverage.wire --source=sse.wire -m pytest -q tests/sse/wire
	$(PY) -m coverage report --data-file=.coverage.wire --fail-under=100
	$(PY) -m coverage run -m pytest -q
	@$(PY) -m coverage report --fail-under=90 >.coverage.txt || { cat .coverage.txt; exit 1; }
	@for version in `sh venv.sh --others $(VENV)`; do $(MAKE) test-$$version || exit 1; done

format: $(VENV)/check.stamp
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# The peers have environments of their own: what they need is no dependency of this project. The variables name others.
PEERS := $(if $(BENCH_PYTHON),,.venv-peers/peers.stamp) $(if $(BENCH_LITELLM),,.venv-litellm/litellm.stamp)

bench: $(VENV)/bench.stamp $(PEERS)
	$(PY) -m bench run
	$(PY) -m bench report

# Beside the last release, or BASE=<commit or directory>.
bench-quick: $(VENV)/bench.stamp
	$(PY) -m bench quick --base "$(BASE)"

# Without them the peers are left out, and the report says so.
.venv-peers/peers.stamp: bench/peers/requirements.txt
.venv-litellm/litellm.stamp: bench/peers/requirements-litellm.txt
.venv-peers/peers.stamp .venv-litellm/litellm.stamp: | $(VENV)/bench.stamp
	@echo "installing $< into $(@D)…"
	@$(PY) -m venv $(@D) && $(@D)/bin/python -m pip install -q --disable-pip-version-check -r $< && touch $@ || \
		echo "not all of $< could be installed: those peers are left out" >&2

clean:
	rm -rf .venv .venv-3.* .venv-peers .venv-litellm .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# One stamp for each set of packages in an environment. venv.sh makes it, or says what is missing.
%.stamp: pyproject.toml constraints.txt venv.sh
	@sh venv.sh $(@D) $(*F)
	@touch $@

.PRECIOUS: %.stamp
