"""A known answer, asked of every ranker when it is loaded: does this architecture compute what MixLM needs?"""

from __future__ import annotations

import torch

from ..errors import InputError
from .inference import scoring
from .ranker import Ranker

__all__ = ["check_ranker"]

TESTED = "MixLM is tested with BERT, ModernBERT, XLM-RoBERTa, Qwen3, Llama and Mistral"
TOLERANCE = 1e-3  # of the largest state; float32 rounding stays below 1e-5, a wrong mask shows at 1e-1


@scoring
def check_ranker(ranker: Ranker, tokens: int) -> None:
    """Two queries with three documents each, scored alone and packed behind a shared prefix, must get the same states.

    Architectures that mix positions by other means than the attention interface (FNet, Mamba, Qwen3-Next) run packed
    sequences without an error, and wrong. Raises InputError for them, and for those that cannot run at all.
    """
    kind = type(ranker.backbone).__name__
    try:
        off = _difference(*_answers(ranker, tokens))
        off_in_parts = _difference(*_parts(ranker)) if ranker.mix_layer else 0.0
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{kind} cannot be a ranker ({reason}); {TESTED}") from None
    if not off <= TOLERANCE:
        raise InputError(
            f"{kind} cannot be a ranker: behind a shared prefix its states are off by {off:.0%}, so it mixes positions "
            f"by more than attention; {TESTED}"
        )
    if not off_in_parts <= TOLERANCE:
        raise InputError(
            f"{kind} cannot have a mix layer: its layers in two parts give states that are off by {off_in_parts:.0%}; "
            f"{TESTED}"
        )


def _difference(right: torch.Tensor, other: torch.Tensor) -> float:
    """The largest, as a share of the largest state."""
    return float((right - other).abs().max() / right.abs().max())


def _parts(ranker: Ranker) -> tuple[torch.Tensor, torch.Tensor]:
    """States of a text, [length, d]: all layers as the backbone runs them; up to the mix layer, and on from there."""
    inputs, middle = ranker.inputs(["a longer query"]), ranker.mix_layer
    lengths = [len(own) for own in inputs]
    (whole,) = ranker.states(inputs, lengths, 0, ranker.layers)
    (parts,) = ranker.states(ranker.states(inputs, lengths, 0, middle), lengths, middle, ranker.layers)
    return whole, parts


def _answers(ranker: Ranker, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States [6, d] of all documents: each with its own prefix; packed."""
    prefixes = ranker.prefixes(["a", "a longer query"])
    size = 6 * tokens * ranker.hidden_size
    items = torch.arange(size, device=ranker.device).sin().view(2, 3, tokens, ranker.hidden_size)
    items *= prefixes[0].states.std()
    pairs = [(prefix, item) for prefix, group in zip(prefixes, items, strict=True) for item in group]
    alone = ranker([prefix for prefix, _ in pairs], [item for _, item in pairs])
    return alone, torch.cat(ranker.forward_packed(prefixes, list(items)))
