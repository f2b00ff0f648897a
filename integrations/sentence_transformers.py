"""sentence-transformers: a MixLM as the module of a CrossEncoder, which predicts, ranks, evaluates, saves and loads.

docs/integrations/sentence-transformers.md has an example that runs. ``predict`` maps scores to [0, 1] by a sigmoid, as
CrossEncoder does by default; ``activation_fn=torch.nn.Identity()`` gives log-odds. Neither is a probability
before ``mixlm-rerank calibrate``. ``save_pretrained`` makes a folder that is a MixLM and a CrossEncoder.
sentence-transformers loads modules that are not its own only with ``CrossEncoder(folder, trust_remote_code=True)``
(the folder holds no code); a CrossEncoder of ``MixLMModule(MixLM.from_pretrained(folder))`` does not need that option.
Train with ``mixlm-rerank train``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mixlm_rerank.documents import check_pairs, score_pairs
from mixlm_rerank.errors import InputError, optional_import
from mixlm_rerank.index import TokenStore
from mixlm_rerank.model import MixLM
from mixlm_rerank.reranker import Reranker
from mixlm_rerank.types import Missing

with optional_import("this needs sentence-transformers 6", "sentence-transformers"):
    from sentence_transformers.base.modules import InputModule
    from sentence_transformers.util import load_dir_path

__all__ = ["Docid", "MixLMModule"]


NO_LENGTH = (
    "a MixLM has no max_length: max_query_tokens and max_document_tokens are part of the model (in its config.json), "
    "since a token index depends on them"
)


ALLOWED = (("backend", "torch"), ("num_labels", 1))


class Docid(str):
    """A docid in place of a document's text: the document is looked up in the index."""


class MixLMModule(InputModule):
    """The one module of a ``CrossEncoder(modules=[...])``: pairs of query and document (text, or Docid) -> log-odds.

    Args:
        model: the MixLM.
        index: for documents that are given as :class:`Docid`; not saved with the model.
        missing: what happens to a Docid that the index lacks: ``"error"`` or ``"last"`` (log-odds below
            -10,000, as for an empty text or query). Texts are always encoded.
    """

    def __init__(self, model: MixLM, index: TokenStore | None = None, missing: Missing = "last") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = model
        self.tokenizer = model.ranker.tokenizer
        self.missing = missing
        self.index = index

    @property
    def index(self) -> TokenStore | None:
        return self._index

    @index.setter
    def index(self, index: TokenStore | None) -> None:
        self._index = index
        self._by_text = Reranker(self.model)
        self._by_docid = None if index is None else Reranker(self.model, index, missing=self.missing)

    @property
    def max_seq_length(self) -> None:
        """None: a MixLM has a length for queries and one for documents. Setting it raises InputError."""
        return None

    @max_seq_length.setter
    def max_seq_length(self, value: object) -> None:
        raise InputError(NO_LENGTH)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **options: Any) -> dict[str, Any]:
        """Pairs -> features; nothing is tokenised yet. Raises InputError unless they are query and document."""
        check_pairs(inputs)
        return {"pairs": [((prompt or "") + query, document) for query, document in inputs]}

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Adds ``scores``: float32 [n, 1]."""
        pairs = features["pairs"]
        scores = torch.empty(len(pairs), 1, dtype=torch.float32)
        for by_docid, reranker in ((False, self._by_text), (True, self._by_docid)):
            places = [place for place, (_, document) in enumerate(pairs) if isinstance(document, Docid) is by_docid]
            if places and reranker is None:
                raise InputError("a Docid was given, and there is no index: MixLMModule(model, TokenIndex(...))")
            if places and reranker is not None:
                found = score_pairs(reranker, [pairs[place] for place in places], by_docid=by_docid)
                scores[places, 0] = torch.tensor(found, dtype=torch.float32)
        return {**features, "scores": scores.to(self.model.ranker.device)}

    def save(self, output_path: str, *arguments: Any, safe_serialization: bool = True, **options: Any) -> None:
        """Save with :meth:`MixLM.save_pretrained`: the folder is a MixLM and a CrossEncoder."""
        self.model.save_pretrained(output_path)

    @classmethod
    def load(  # type: ignore[override]  # their own arguments are among the options
        cls, model_name_or_path: str, subfolder: str = "", **options: Any
    ) -> MixLMModule:
        local, given = bool(options.get("local_files_only")), options.get("model_kwargs") or {}
        dtype = given.get("dtype", given.get("torch_dtype"))
        of_processor, settings = options.get("processor_kwargs") or {}, options.get("config_kwargs") or {}
        if "model_max_length" in of_processor:
            raise InputError(NO_LENGTH)
        others = {"backend": options.get("backend", "torch")} | of_processor | settings
        refused = {name: value for name, value in others.items() if (name, value) not in ALLOWED}
        if refused:
            raise InputError(f"a MixLM is loaded as it was saved, by torch, and gives one score: it takes no {refused}")
        where = {name: options.get(name) for name in ("token", "cache_folder", "revision")}
        folder = load_dir_path(model_name_or_path, subfolder, local_files_only=local, **where)
        name, dtype = folder or model_name_or_path, None if dtype == "auto" else dtype
        return cls(MixLM.from_pretrained(name, device="cpu", dtype=dtype, local_files_only=local))
