"""TREC's topics in XML: web tracks (2009 to 2014), TREC-COVID, health misinformation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from ..errors import InputError
from .lines import lines

__all__ = ["xml_topics"]

QUERY = ("query", "title")


def xml_topics(path: Path) -> Iterator[tuple[str, str, str]]:
    """("file, topic N", qid, query) of every ``<topic>``.

    Its qid is the attribute ``number`` or the element ``<number>``, its query the ``<query>``, else the ``<title>``.
    Raises InputError for what is no such XML, and a topic without one of these.
    """
    expected = 'expected <topic number="..."> with a <query> or <title>, or TREC\'s older <top><num><title>'
    held = dict(lines(path))
    try:
        root = ElementTree.fromstring("\n".join(held.get(number, "") for number in range(1, max(held) + 1)))
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is not valid XML ({error}); {expected}") from None
    topics = list(root.iter("topic"))
    if not topics:
        raise InputError(f"{path} holds no topics but <{root.tag}>; {expected}")
    for place, topic in enumerate(topics, 1):
        where = f"{path}, topic {place}"
        number = topic.get("number") or topic.findtext("number") or ""
        query = next((found for name in QUERY if (found := topic.find(name)) is not None), None)
        if query is None or not number.strip():
            names = ", ".join(dict.fromkeys(f"<{child.tag}>" for child in topic)) or "no elements"
            raise InputError(f"{where} has {names}; {expected}")
        yield where, number.strip(), " ".join("".join(query.itertext()).split())
