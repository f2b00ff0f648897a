"""The ranker's two ways of running a backbone are what the architecture itself computes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from mixlm_rerank import MixLM
from mixlm_rerank.errors import InputError
from mixlm_rerank.model.fast.passes import DecoderPass

ARCHITECTURES = ("bert", "modernbert", "xlm-roberta", "qwen3", "llama", "mistral", "gemma2", "gpt-oss")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_masks_and_positions_are_those_of_the_architecture(tiny: Callable[..., MixLM], architecture: str) -> None:
    """With nothing but a score token after the prefix, the forward pass must be Transformers' own."""
    ranker = tiny(architecture).ranker
    prefix = ranker.prefixes(["a dog barks at the moon and at the mail man, who fears it"])[0]
    assert len(prefix) > 10  # longer than ModernBERT's window here
    nothing = prefix.states[:0]
    with torch.inference_mode():
        ours = ranker([prefix, prefix], [nothing, prefix.states[:3]])[0]
        sequence = torch.cat([prefix.states, prefix.tail])[None]
        segments = torch.tensor([[0] * len(prefix) + [1]])
        extra = {"token_type_ids": segments} if architecture == "bert" else {}
        if ranker.family.causal:
            theirs = ranker.backbone(inputs_embeds=sequence, **extra).last_hidden_state[0, -1]
        else:  # our prefix does not see the score token: take its keys away from the prefix by a second, shorter pass
            theirs = _bidirectional_reference(ranker, sequence, extra)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def _bidirectional_reference(ranker, sequence, extra):  # type: ignore[no-untyped-def]
    """Transformers' own mask code, restricted so that no prefix position sees the last one."""
    from transformers.masking_utils import create_bidirectional_mask, create_bidirectional_sliding_window_mask

    length = sequence.shape[1]
    blind = torch.ones(1, 1, length, length, dtype=torch.bool)
    blind[..., :-1, -1] = False
    arguments = {"config": ranker.backbone.config, "inputs_embeds": sequence, "attention_mask": None}
    masks = {}
    for kind, make in (
        ("full_attention", create_bidirectional_mask),
        ("sliding_attention", create_bidirectional_sliding_window_mask),
    ):
        if kind in ranker._layer_types:
            made = make(**arguments)
            masks[kind] = blind if made is None else blind & made.bool()
    mask = masks if len(masks) > 1 else masks["full_attention"]
    return ranker.backbone(inputs_embeds=sequence, attention_mask=mask, **extra).last_hidden_state[0, -1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_prefix_states_do_not_depend_on_the_document(tiny: Callable[..., MixLM], architecture: str) -> None:
    """The identity that makes a prefix reusable: the query never sees a document."""
    ranker = tiny(architecture).ranker
    prefix = ranker.prefixes(["a dog"])[0]
    states = []
    hook = ranker.backbone.register_forward_hook(lambda _m, _i, output: states.append(output.last_hidden_state))
    with torch.inference_mode():
        for seed in (0, 1):
            torch.manual_seed(seed)
            ranker([prefix], [torch.randn(3, ranker.hidden_size)])
    hook.remove()
    torch.testing.assert_close(states[0][0, : len(prefix)], states[1][0, : len(prefix)], atol=1e-5, rtol=0)
    assert not torch.allclose(states[0][0, -1], states[1][0, -1], atol=1e-2)


def test_gradients_reach_ranker_and_tokens_through_the_packed_way(tiny: Callable[..., MixLM]) -> None:
    model = tiny("bert")
    tokens = torch.randn(3, 4, 64, requires_grad=True)
    states = model.ranker.forward_packed(model.ranker.prefixes(["a dog"]), [tokens])[0]
    model.readout(states).sum().backward()
    assert tokens.grad is not None and (tokens.grad.abs().sum(dim=(1, 2)) > 0).all()
    weight = model.ranker.backbone.get_input_embeddings().weight
    assert weight.grad is not None and weight.grad.abs().sum() > 0
    model.zero_grad()


def test_a_long_document_is_cut_to_the_positions_that_are_left(checkpoint: Callable[..., object]) -> None:
    folder = checkpoint("bert")
    model = MixLM.from_backbones(folder, folder, max_query_tokens=120, max_document_tokens=100)  # type: ignore[arg-type]
    prefix = model.ranker.prefixes(["dog " * 200])[0]
    (document,) = model.ranker.documents(["moon " * 200], [len(prefix)])
    assert len(prefix) == 120
    assert len(prefix) + len(document) + 1 == 128  # all of the backbone's positions, the score token included


def test_lengths_that_cannot_fit_are_refused(checkpoint: Callable[..., object]) -> None:
    folder = checkpoint("bert")
    with pytest.raises(InputError, match="128 positions"):
        MixLM.from_backbones(folder, folder, max_query_tokens=126, max_document_tokens=64)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="128 positions"):
        MixLM.from_backbones(folder, folder, max_query_tokens=64, max_document_tokens=129)  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ["bert", "xlm-roberta", "qwen3", "llama", "mistral"])
def test_the_packed_pass_equals_the_backbones_own_layers_gradients_too(
    tiny: Callable[..., MixLM], architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After scoring in inference mode, whose tiles a training step of the same layout takes over."""
    ranker = tiny(architecture).ranker
    items = [torch.randn(count, 3, 64) for count in (2, 17)]

    def states_and_gradients() -> tuple[torch.Tensor, list[torch.Tensor]]:
        ranker.zero_grad()
        states = torch.cat(ranker.forward_packed(ranker.prefixes(["a dog", "the moon is a rock"]), items))
        (states.sin() * torch.arange(64)).sum().backward()
        return states.detach(), [p.grad.clone() for p in ranker.parameters() if p.grad is not None]

    with torch.inference_mode():
        ranker.forward_packed(ranker.prefixes(["a dog", "the moon is a rock"]), items)
    packed, ours = states_and_gradients()
    monkeypatch.setattr(ranker, "_packed", None)
    whole, theirs = states_and_gradients()
    torch.testing.assert_close(packed, whole, atol=1e-4, rtol=1e-4)
    assert len(ours) == len(theirs) > 10
    largest = max(float(gradient.abs().max()) for gradient in theirs)  # those of key biases are 0, but for rounding
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * largest, rtol=1e-3)
    ranker.zero_grad()


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_compiled_layers_are_one_program_for_all_layers_and_lengths(
    tiny: Callable[..., MixLM], architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the compiler's front end alone: what it makes for a GPU is checked there."""
    ranker, compiled, programs = tiny(architecture).ranker, torch.compile, []
    packed = ranker._packed
    assert isinstance(packed, DecoderPass)

    def run(graph: Any, example: object) -> Any:
        programs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(compiled, backend=run, fullgraph=True))
    torch._dynamo.reset()
    quick = DecoderPass(ranker.backbone, None)
    quick.compile()
    for count in (7, 30):
        with torch.inference_mode():
            prefixes = ranker.prefixes(["a dog", "the moon is a rock"][: 1 + count % 2])
            items = [torch.randn(count, 2, 64) for _ in prefixes]
            expected = torch.cat(ranker.forward_packed(prefixes, items))
            monkeypatch.setattr(ranker, "_packed", quick)
            torch.testing.assert_close(torch.cat(ranker.forward_packed(prefixes, items)), expected)
            monkeypatch.setattr(ranker, "_packed", packed)
    assert len(programs) == 3  # before attention, in the last layer before it, after it


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_nothing_to_compile(tiny: Callable[..., MixLM]) -> None:
    ranker = tiny("qwen3").ranker
    before = ranker._packed
    ranker.compile_packed()
    assert ranker._packed is before
