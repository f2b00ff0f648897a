"""The package as a whole: what importing costs, which way imports run, and pages that cannot rot."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import mixlm_rerank
from mixlm_rerank import MixLM
from mixlm_rerank.scoring import SharedPrefixScorer

ROOT = Path(__file__).parent.parent
PINS = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()

# A folder or module and what it may import of this package (DESIGN: imports run one way).
LAYERS = {
    "errors": set(),
    "arguments": {"errors", "types"},
    "folders": {"errors"},
    "types": {"errors"},
    "progress": set(),
    "model": {"arguments", "errors", "types", "progress", "folders"},
    "data": {"arguments", "errors", "types"},
    "onnx": {"scoring", "model", "errors", "folders", "progress"},
    "scoring": {"model", "errors", "types", "progress"},
    "index": {"model", "arguments", "errors", "numbers", "types", "progress", "folders"},
    "ranking": {"errors", "types"},
    "texts": {"errors", "index", "types"},
    "documents": {"arguments", "errors", "ranking", "texts", "types"},
    "reranker": {
        *("documents", "ranking", "texts", "scoring", "index", "onnx", "model"),
        *("arguments", "errors", "types", "progress"),
    },
    "numbers": set(),
    "systems": {
        *("integrations", "reranker", "ranking", "scoring", "index", "onnx", "model"),
        *("data", "errors", "types", "progress"),
    },
    "eval": {
        *("eval", "training", "systems", "reranker", "ranking", "scoring", "index", "onnx", "model"),
        *("data", "arguments", "errors", "numbers", "types", "progress"),
    },
    "training": {
        *("systems", "scoring", "index", "ranking", "model"),
        *("data", "errors", "numbers", "types", "progress", "folders"),
    },
    "serving": {"integrations", "documents", "reranker", "scoring", "ranking", "index", "model", "errors", "types"},
    "integrations": {
        *("integrations", "data", "documents", "reranker", "ranking", "texts", "index", "model"),
        *("arguments", "errors", "types", "progress", "folders"),
    },
}


def imported(path: Path, package: tuple[str, ...]) -> set[str]:
    """Absolute names of what a file imports of this package, first of all modules (but for type checking alone)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = [
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    ]
    names = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node in typing_only:
            continue
        if node.level:
            base = ("mixlm_rerank", *package)[: len(package) + 2 - node.level]
            full = ".".join([*base, *([node.module] if node.module else [])])
        else:
            full = node.module or ""
        if full.partition(".")[0] == "mixlm_rerank":
            names |= {full, *(f"{full}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_run_one_way(layer: str) -> None:
    folder = ROOT / layer if layer in ("eval", "integrations") else ROOT / "mixlm_rerank" / layer
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    assert files
    for path in files:
        package = (layer, *path.relative_to(folder).parts[:-1]) if folder.is_dir() else ()
        names = {name.split(".")[1] for name in imported(path, package) if name != "mixlm_rerank"}
        assert names - {layer, *mixlm_rerank.__all__} <= LAYERS[layer], path


def test_no_modules_import_each_other() -> None:
    """Not even inside a function: each can be understood, and imported, without those that build on it."""
    folders = {ROOT / "mixlm_rerank": (), ROOT / "eval": ("eval",), ROOT / "integrations": ("integrations",)}
    graph = {}
    for folder, package in folders.items():
        for path in folder.rglob("*.py"):
            within = (*package, *path.relative_to(folder).parts[:-1])
            module = ".".join(["mixlm_rerank", *within, *([] if path.stem == "__init__" else [path.stem])])
            graph[module] = imported(path, within) - {module}
    assert len(graph) > 150
    packages = {name for name in graph if any(other.startswith(f"{name}.") for other in graph)}
    modules = graph.keys() - packages  # the __init__ of a package only passes on
    TopologicalSorter({name: needed & modules for name, needed in graph.items()}).prepare()


QUERY, TEXTS = "a dog barks", ["the moon is a rock", "a cat never barks", "bread"]
PROGRAM = """
import json, sys
import mixlm_rerank.cli, mixlm_rerank.index
from mixlm_rerank import MixLM, Reranker
loaded = sorted(sys.modules)
import torch
from mixlm_rerank.scoring import SharedPrefixScorer
model = MixLM.from_pretrained(sys.argv[1])
scores = SharedPrefixScorer(model).score(sys.argv[2], torch.from_numpy(model.encode(sys.argv[3:])))
print(json.dumps([loaded, scores.tolist(), model.fingerprint]))
"""


@pytest.mark.processes
def test_the_core_in_a_fresh_process(tiny: Callable[..., MixLM], tmp_path: Path) -> None:
    """It brings in no Java, no pandas, no optional library, and prints nothing; a saved model is the same one there."""
    model = tiny("bert")
    model.save_pretrained(tmp_path)
    program = [sys.executable, "-c", PROGRAM, str(tmp_path), QUERY, *TEXTS]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    loaded, scores, fingerprint = json.loads(done.stdout)
    extras = {
        *("jnius", "pyserini", "faiss", "pandas", "ir_measures", "ir_datasets", "datasets", "redis", "pyarrow", "ray"),
        *("sentence_transformers", "langchain_core", "llama_index", "haystack", "rerankers", "pyterrier", "beir"),
        *("mteb", "fastapi"),
    }
    assert not set(loaded) & extras
    assert done.stderr == ""
    assert fingerprint == model.fingerprint
    expected = SharedPrefixScorer(model).score(QUERY, torch.from_numpy(model.encode(TEXTS)))
    assert scores == pytest.approx(expected.tolist(), abs=1e-4)


def test_importing_the_parts_of_an_evaluation_starts_no_java() -> None:
    """``eval`` may use ``integrations``, inside its functions."""
    program = (
        "import sys, mixlm_rerank.systems.collections, mixlm_rerank.systems.first_stages; "
        "print({'jnius', 'pyserini', 'sentence_transformers', 'torch', 'ir_datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_help_does_not_wait_for_torch() -> None:
    program = "import sys, mixlm_rerank.cli; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_public_names_are_there() -> None:
    import mixlm_rerank

    assert all(getattr(mixlm_rerank, name) for name in mixlm_rerank.__all__)
    with pytest.raises(AttributeError, match="Rernaker"):
        mixlm_rerank.Rernaker  # noqa: B018


@pytest.mark.skipif(f"typer=={version('typer')}" not in PINS, reason="another Typer writes another page")
def test_the_command_line_page_is_what_the_commands_say(tmp_path: Path) -> None:
    """``make docs`` writes it."""
    page = tmp_path / "cli.md"
    command = [sys.executable, "-m", "typer", "mixlm_rerank.cli", "utils", "docs", "--name", "mixlm-rerank"]
    subprocess.run([*command, "--output", str(page)], check=True, capture_output=True)
    assert page.read_text(encoding="utf-8") == (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


@pytest.mark.processes
def test_the_site_is_built_and_no_link_is_broken(tmp_path: Path) -> None:
    """``make docs``: README on its first page, files outside docs/ beside it, and the public names from docstrings."""
    package = tmp_path / "types" / "mixlm_rerank"
    package.mkdir(parents=True)
    for path in [*(ROOT / "mixlm_rerank").iterdir(), ROOT / "integrations", ROOT / "eval"]:
        (package / path.name).symlink_to(path)
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    config = config.replace("[build/types]", f"[{tmp_path}/types]").replace("[docs/site.py]", f"[{ROOT}/docs/site.py]")
    (tmp_path / "mkdocs.yml").write_text(f"{config}\ndocs_dir: {ROOT}/docs\n", encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run([*command, "-f", str(tmp_path / "mkdocs.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {name: (tmp_path / "site" / name / "index.html").read_text() for name in ("", "api", "distill")}
    assert "Rerank a thousand candidates" in pages[""] and 'href="tutorials/pyserini/"' in pages[""]
    assert 'id="mixlm_rerank.Reranker.rerank_batch"' in pages["api"] and ":class:" not in pages["api"]
    assert 'href="../mixlm_rerank/training/recipes/distill/cut.yaml"' in pages["distill"]
    assert (tmp_path / "site/mixlm_rerank/training/recipes/distill/cut.yaml").is_file()


def test_pages_install_extras_that_there_are_in_a_form_that_works_before_a_release() -> None:
    """From a checkout or a git URL; README says what $MIXLM is."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pages = {page: page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]}
    commands = [
        (page, found) for page, text in pages.items() for found in re.findall(r"pip install\s+(\S.*?)[`\n]", text)
    ]
    assert len(commands) > 10
    light = {
        '--no-deps "mixlm-rerank @ $MIXLM"',
        "lmdb numpy onnxruntime tokenizers tqdm typer",
    }  # its own test has these
    others = light | {"cohere", "httpx qdrant-client"}  # and clients of the server
    assert others <= {command for _, command in commands}
    for page, command in commands:
        if command in others:
            continue
        form = re.fullmatch(r'"mixlm-rerank\[([\w,-]+)\] @ \$MIXLM"', command)
        assert form is not None and set(form[1].split(",")) <= extras.keys(), (page, command)
    assert 'MIXLM="git+https://' in pages[ROOT / "README.md"] and 'MIXLM="file://$PWD"' in pages[ROOT / "README.md"]


def test_there_is_one_version() -> None:
    (version,) = re.findall(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert mixlm_rerank.__version__ == version
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert set(mixlm_rerank.__all__) <= set(dir(mixlm_rerank))


@pytest.mark.slow
def test_a_wheel_holds_all_that_is_needed(tmp_path: Path) -> None:
    """Beside the libraries that are installed here."""
    run = partial(subprocess.run, check=True, capture_output=True, text=True)
    run([sys.executable, "-m", "build", "--outdir", tmp_path / "dist", ROOT])  # the wheel out of the sdist
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    run([sys.executable, "-m", "pip", "install", "--no-deps", "--target", tmp_path / "there", wheel])
    ranking = "m.Reranker(m.MixLM.from_pretrained('default')).rank('dog', ['a dog'])"
    program = f"import mixlm_rerank as m; print(m.__file__, {ranking})"
    done = run([sys.executable, "-c", program], env={"PYTHONPATH": str(tmp_path / "there"), "PATH": ""}, cwd=tmp_path)
    assert str(tmp_path / "there") in done.stdout and "ScoredDoc" in done.stdout
    for name in ("py.typed", "training/recipes/train/default.yaml", "serving/page.html", "eval/report/templates"):
        assert (tmp_path / "there" / "mixlm_rerank" / name).exists(), name
