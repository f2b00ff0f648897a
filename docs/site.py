"""Hooks of MkDocs: README.md becomes the first page, and files outside docs/ that pages link to come along."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(?<=\]\()[^)\s#:]+(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:  # grows
        if page.name == "README.md":
            files.append(File.generated(config, _place(page), abs_src_path=str(page)))
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            path = Path(os.path.normpath(page.parent / link))
            if path.is_file() and not files.get_file_from_path(_place(path)):
                files.append(File.generated(config, _place(path), abs_src_path=str(path)))
                pages += [path] if path.suffix == ".md" else []


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between files of the repository -> links between files of the site."""
    source = Path(str(page.file.abs_src_path))

    def link(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(source.parent / found[0]))
        return os.path.relpath(_place(target), PurePosixPath(_place(source)).parent)

    return LINK.sub(link, markdown)


def _place(path: Path) -> str:
    """Where a file of the repository lies in the site."""
    place = path.relative_to(ROOT)
    if place == Path("README.md"):
        return "index.md"
    return str(place.relative_to("docs") if place.is_relative_to("docs") else place)
