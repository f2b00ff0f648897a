# The whole developer interface. Everything happens in .venv; the first call installs it (about two minutes).
PYTHON ?= python3
BIN := .venv/bin
# The package as it is installed, for tools that read files: integrations/ and eval/ lie below mixlm_rerank/.
TREE = rm -rf build/types && mkdir -p build/types/mixlm_rerank && \
	ln -s $(CURDIR)/mixlm_rerank/* $(CURDIR)/integrations $(CURDIR)/eval build/types/mixlm_rerank/

.PHONY: demo test test-all test-dist test-lowest eval bench check docs dist format clean

demo: .venv/installed        ## BM25 against MixLM on Python's own documentation, no download
	$(BIN)/mixlm-rerank demo

test: .venv/installed        ## the fast tests, on all cores
	$(BIN)/pytest -n auto --dist loadfile

test-all: .venv/installed    ## all tests, the slow ones too
	$(BIN)/pytest -m "slow or processes or not slow"

test-dist: dist              ## the fast tests on the wheel, in an environment that has nothing of the checkout
	$(PYTHON) -m venv --clear build/dist
	build/dist/bin/pip install --quiet -c constraints.txt "$$(ls -t dist/*.whl | head -1)[dev]"
	build/dist/bin/pytest -n auto --dist loadfile $(TESTS)

test-lowest:                 ## the same with the lowest versions that pyproject.toml allows (needs uv)
	uv venv --quiet --clear --python $(PYTHON) build/lowest
	uv pip install --quiet --python build/lowest --resolution lowest-direct -e '.[dev]'
	build/lowest/bin/pytest -n auto --dist loadfile $(TESTS)

eval: .venv/installed        ## are the figures in README and docs still true? DATA=folder of the collections
	$(BIN)/mixlm-rerank eval figures docs/figures.yaml --output build/figures $(if $(DATA),--data $(DATA))

bench: .venv/installed       ## how fast is it here, against a cross-encoder and the arithmetic? It says how long it takes
	$(BIN)/mixlm-rerank bench all --output build/bench

check: .venv/installed       ## style, types, examples in docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(TREE)
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p mixlm_rerank
	$(BIN)/pytest --doctest-modules mixlm_rerank eval integrations -p no:cacheprovider

docs: .venv/installed        ## docs/cli.md, and the site in build/site; a broken link is an error
	$(BIN)/python -m typer mixlm_rerank.cli utils docs --name mixlm-rerank --output docs/cli.md
	$(TREE)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

dist: .venv/installed        ## sdist and wheel, in dist/
	$(BIN)/python -m build

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info mixlm-demo

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
