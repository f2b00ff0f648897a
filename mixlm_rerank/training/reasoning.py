"""What stage I learns from: a judge's rationale and verdict on a query and a document, one JSON object a line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixlm_rerank.data.lines import json_lines
from mixlm_rerank.errors import InputError

__all__ = ["Judgement", "read_judgements"]


@dataclass(frozen=True)
class Judgement:
    """Attributes:
    grade: the judge's p(yes), in [0, 1].
    rationale: why, in words.
    logits: for each token of the rationale the judge's likeliest next tokens, {token id: log-probability}; None where
        it only gave words.
    """

    query: str
    document: str
    rationale: str
    grade: float
    logits: list[dict[int, float]] | None = None


def read_judgements(path: str | Path) -> list[Judgement]:
    """``{"query", "document", "rationale", "grade"}``, perhaps ``"logits"``: a list of [id, log-probability] a token.

    Raises InputError for a malformed line, by its number, a pair judged twice with different grades, or an empty file.
    """
    found = [_judgement(fields, where) for where, fields in json_lines(path)]
    if not found:
        raise InputError(f"{path} holds no judgements")
    grades: dict[tuple[str, str], float] = {}
    for one in found:
        if grades.setdefault((one.query, one.document), one.grade) != one.grade:
            raise InputError(f"{path}: the query {one.query!r} and one of its documents have two different grades")
    return found


def _judgement(fields: dict[str, Any], where: str) -> Judgement:
    texts = [fields.get(name) for name in ("query", "document", "rationale")]
    grade, logits = fields.get("grade"), fields.get("logits")
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise InputError(f"{where}: query, document and rationale must be texts that are not empty")
    if not isinstance(grade, int | float) or not 0 <= grade <= 1:
        raise InputError(f"{where}: grade must be a number from 0 to 1, not {grade!r}")
    try:
        steps = None if logits is None else [{int(token): float(value) for token, value in step} for step in logits]
    except (TypeError, ValueError):
        steps = [{}]
    if steps is not None and not all(step and all(map(math.isfinite, step.values())) for step in steps):
        raise InputError(
            f"{where}: logits must be a list of [token id, log-probability] for each token of the rationale"
        )
    query, document, rationale = (str(text) for text in texts)
    return Judgement(query, document, rationale, float(grade), steps)
