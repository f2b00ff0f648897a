"""The Dockerfile, as far as it can be tried without Docker."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = (ROOT / "integrations" / "docker" / "Dockerfile").read_text()


def test_its_health_check_tells_a_server_from_none(url: str) -> None:
    (found,) = re.findall(r"HEALTHCHECK.*?CMD (\[.*?\])\n", DOCKERFILE, flags=re.DOTALL)
    python, *arguments = json.loads(found)
    assert python == "python"

    def checked(address: str) -> int:
        command = [each.replace("http://127.0.0.1:8000", address) for each in arguments]
        return subprocess.run([sys.executable, *command], capture_output=True).returncode

    assert "http://127.0.0.1:8000/health" in arguments[-1]
    assert checked(url) == 0 and checked("http://127.0.0.1:9") == 1


def test_its_command_is_one(mixlm: Any) -> None:
    (found,) = re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE, flags=re.MULTILINE)
    program, *options = json.loads(found)
    done = mixlm(" ".join([*options, "--index", "docs=nowhere", "--offline"]))
    assert program == "mixlm-rerank" and done.code == 2 and "no token index at nowhere" in done.err


def test_what_it_copies_and_installs_is_there() -> None:
    kept = (ROOT / "integrations" / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert all((ROOT / line[1:]).exists() for line in kept if line.startswith("!"))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (asked,) = re.findall(r'"/src\[(.*?)\]"', DOCKERFILE)
    assert set(asked.split(",")) <= set(extras)
