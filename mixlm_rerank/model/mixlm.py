"""The MixLM class and its saved form: two Hugging Face checkpoints, the head, the configuration and a model card."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, Unpack, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import InputError
from ..folders import replacing, settle
from .assembly import Part, assemble
from .config import EXPORTED, MixLMConfig
from .cross_encoder import FromCrossEncoder
from .families import opened
from .fast.int8 import in_int8, is_int8
from .hub import HubOptions, checked, load_backbone, model_folder, quiet
from .known_answer import check_known_answer, write_known_answer
from .network import Network
from .running import parameter_dtype
from .start import FromBackbones

__all__ = ["DEFAULT", "ITEM_ENCODER", "MixLM"]

ITEM_ENCODER, RANKER, CONFIG, CARD = "item_encoder", "ranker", "config.json", "README.md"
HEAD = "head.safetensors"  # readout, projector and memory tokens: everything outside the two backbones
KNOWN_ANSWER = "known_answer.json"
DEFAULT = Path(__file__).with_name("default")  # comes with the package; its card says what it was trained on


class MixLM(FromBackbones, FromCrossEncoder):
    """Reads the query as text and each document as a few embedding tokens.

    Load one with ``from_pretrained`` (a saved model, or ``"default"``). Create an untrained one with ``from_backbones``
    (from two Hugging Face checkpoints) or ``from_cross_encoder``. Rank with ``mixlm_rerank.Reranker``, or score with
    ``mixlm_rerank.scoring.SharedPrefixScorer``.
    """

    def save_pretrained(self, folder: str | Path, *, half: bool = False) -> None:
        """Write config, weights (safetensors), both tokenizers, a model card and a known answer into ``folder``.

        Args:
            folder: where to save the model.
            half: save the backbones in float16, half the size. The loaded model is then the rounded one, with its own
                fingerprint.
        """
        if is_int8(self):
            raise InputError("a model in int8 cannot be written: load it in float32")
        folder = Path(folder)
        try:
            with replacing(folder) as draft:  # read back before it replaces anything
                with quiet():
                    _save_backbones(self, draft, torch.float16 if half else torch.float32)
                save_file(_head_of(self), draft / HEAD)
                self.config.save(draft / CONFIG)
                written = self._read(draft)
                write_known_answer(written.known_answers(), draft / KNOWN_ANSWER)
                (draft / CARD).write_text(_model_card(written), encoding="utf-8")
        except (OSError, SafetensorError) as error:
            raise InputError(f"cannot write the model to {folder}: {error}") from None
        self.name = str(folder)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        title_tokens: int | None = None,
        **hub: Unpack[HubOptions],
    ) -> Self:
        """Load a saved MixLM.

        Args:
            name: ``"default"``, a folder, or a Hugging Face hub id.
            device: the device to load it on; by default a GPU, if there is one.
            dtype: of the ranker: ``"float32"``, ``"bfloat16"``, ``"float16"``, or (on a CPU) ``"int8"``. By default
                float32, on a GPU bfloat16. Item encoder and readout are always float32.
            title_tokens: how many tokens of a document's title to read as text, whatever the saved model does; 0: none.
                A model that has not read titles before must be trained to.
            **hub: ``revision``, ``token``, ``cache_dir``, ``local_files_only``, as in Transformers.

        Raises:
            InputError: there is no such model, it is not a MixLM, or it does not give its known answer.
        """
        int8 = str(dtype).removeprefix("torch.") == "int8"
        device = str(device or ("cuda" if torch.cuda.is_available() and not int8 else "cpu"))
        wanted = torch.float32 if int8 else parameter_dtype(dtype)
        if wanted is None:
            wanted = torch.bfloat16 if device.startswith("cuda") else torch.float32
        options = checked(hub)
        folder = DEFAULT if str(name) == "default" else model_folder(str(name), options)
        settle(folder)
        if (folder / EXPORTED).exists():
            raise InputError(
                f"{folder} was exported to ONNX: OnnxMixLM.from_pretrained reads it, and of the commands index, rerank "
                "and search. Here give the model that it was exported from"
            )
        model = cls._read(folder, title_tokens)
        check_known_answer(model.known_answers, folder / KNOWN_ANSWER)
        model.name = str(name)
        try:  # the item encoder stays float32: its tokens, and so its fingerprint, are the same on every device
            model = model.to(device, wanted).eval()
        except (RuntimeError, AssertionError) as error:  # torch: unknown device, no CUDA
            raise InputError(f"cannot use device {device!r}: {error}") from None
        return in_int8(model) if int8 else model

    @classmethod
    def _read(cls, folder: Path, title_tokens: int | None = None) -> Self:
        config = MixLMConfig.load(folder / CONFIG)
        if title_tokens is not None:
            config = replace(config, title_tokens=title_tokens)
        encoder = table = None
        if not config.vectors:
            encoder = _saved_part(folder / ITEM_ENCODER, final_norm=not config.mix_layer)
            table = cast(Tensor, encoder[0].get_input_embeddings().weight)
        model = assemble(cls, config, encoder, _saved_part(folder / RANKER, word_embeddings=table))
        head = folder / HEAD
        try:
            state = load_file(head)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{head} cannot be read: {error}") from None
        held, wanted = (
            {name: list(weight.shape) for name, weight in part.items()} for part in (state, _head_of(model))
        )
        if held != wanted:
            raise InputError(f"{head} does not fit config.json: it holds {held}, expected {wanted}")
        model.load_state_dict(state, strict=False)
        return model.eval()


def _save_backbones(model: Network, folder: Path, dtype: torch.dtype) -> None:
    """Write both backbones. Word embeddings that training left equal are written once: half of a small model."""
    backbones = {name: _merged(part.backbone) for name, part in model.readers.items()}
    tables = [cast(Tensor, backbone.get_input_embeddings().weight) for backbone in backbones.values()]
    first, last = tables[0], tables[-1]
    shared = len(backbones) > 1 and first.shape == last.shape and torch.equal(first.cpu(), last.cpu())
    for name, backbone in backbones.items():
        left_out = last.data_ptr() if shared and name == RANKER else None
        state = {key: weight for key, weight in backbone.state_dict().items() if weight.data_ptr() != left_out}
        kept = {key: weight.to(dtype) if weight.is_floating_point() else weight for key, weight in state.items()}
        backbone.save_pretrained(folder / name, state_dict=kept)
        model.readers[name].tokenizer.save_pretrained(folder / name)


def _merged(backbone: Any) -> PreTrainedModel:
    """The backbone, or a copy with its PEFT adapters merged in: saved alone they would lack the base model."""
    tuners: Any = sys.modules.get("peft.tuners.tuners_utils")
    if tuners is None or not any(isinstance(module, tuners.BaseTunerLayer) for module in backbone.modules()):
        return cast(PreTrainedModel, backbone)
    plain = copy.deepcopy(backbone)
    for name, module in list(plain.named_modules()):
        if isinstance(module, tuners.BaseTunerLayer):
            module.merge()
            plain.set_submodule(name, module.get_base_layer())
    return cast(PreTrainedModel, plain.get_base_model() if hasattr(plain, "get_base_model") else plain)


def _saved_part(folder: Path, **options: Any) -> Part:
    source, _, tokenizer = opened(str(folder), {"local_files_only": True})
    # float32 whatever the files hold: fp16 only makes them smaller, and widening is exact
    backbone = load_backbone(source, local_files_only=True, dtype=torch.float32, **options)
    return backbone, tokenizer


def _head_of(model: Network) -> dict[str, Tensor]:
    return {
        name: weight.contiguous()
        for name, weight in model.state_dict().items()
        if not name.startswith(("item_encoder.backbone.", "ranker.backbone."))
    }


def _model_card(model: Network) -> str:
    """The model card, in Markdown: what the model is, how to use it, and what its trainer still has to fill in."""
    config = model.config
    source = "from_vectors(docids, vectors" if config.vectors else "build(documents"
    sizes = (sum(weight.numel() for weight in part.parameters()) / 1e6 for part in (model.item_encoder, model.ranker))
    encoder, ranker = (f"{size:.1f} M parameters" for size in sizes)
    return f"""---
library_name: mixlm-rerank
pipeline_tag: text-ranking
tags: [reranker, mixlm]
---
# A MixLM reranker

Reads the query as text and each document as up to {config.tokens} embedding tokens, computed once per corpus
(MixLM, arXiv 2512.07846).

| part | |
|---|---|
| item encoder | {encoder} |
| ranker | {ranker} |
| token budget | 1 to {config.tokens} |
| tokens of the title that the ranker reads as text | {config.title_tokens} |
| layer of the ranker that embedding tokens enter | {config.mix_layer} |
| pooling | {config.pooling}, {config.memory_tokens} memory tokens |
| longest query, document | {config.max_query_tokens}, {config.max_document_tokens} tokens |
| item encoder fingerprint | `{model.fingerprint}` |

```python
from mixlm_rerank import MixLM, Reranker, TokenIndex

model = MixLM.from_pretrained("THIS_FOLDER")
index = TokenIndex.{source}, model, "corpus.index")
Reranker(model, index).rerank("a query", hits, top_k=10)
```

## Training data and licences

Not recorded. If you trained this model, write here what on, under which licences (MS MARCO text, for one, is for
non-commercial research only), and the figures you measured.
"""
