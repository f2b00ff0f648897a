"""The systems that an evaluation compares. Each ranks the candidates of one query; a new one is one small class."""

from mixlm_rerank.eval.systems.elsewhere import RankedElsewhere
from mixlm_rerank.eval.systems.ensemble import Ensemble
from mixlm_rerank.eval.systems.interpolated import Interpolated
from mixlm_rerank.eval.systems.mixlm import Cascade, Cosine, FullTextMode, TokenReranker
from mixlm_rerank.eval.systems.protocol import Footprint, System, by_score
from mixlm_rerank.eval.systems.sentence_transformers import BiEncoder, CrossEncoder

__all__ = [
    "BiEncoder",
    "Cascade",
    "Cosine",
    "CrossEncoder",
    "Ensemble",
    "Footprint",
    "FullTextMode",
    "Interpolated",
    "RankedElsewhere",
    "System",
    "TokenReranker",
    "by_score",
]
