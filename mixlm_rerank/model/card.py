"""The README.md written beside saved weights."""

from __future__ import annotations

from .network import Network

__all__ = ["model_card"]


def model_card(model: Network) -> str:
    """Markdown: what the model is, how to use it, and what is still to be filled in by whoever trained it."""
    config = model.config
    sizes = {
        "item encoder": sum(p.numel() for p in model.item_encoder.parameters()),
        "ranker": sum(p.numel() for p in model.ranker.parameters()),
    }
    source = "from_vectors(docids, vectors" if config.vectors else "build(documents"
    rows = "\n".join(f"| {name} | {count / 1e6:.1f} M parameters |" for name, count in sizes.items())
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
{rows}
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
