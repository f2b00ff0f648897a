"""One query against its candidates: the plain reference, the fast way that equals it, and full-text mode."""

from .bi_encoder import BiEncoderScorer
from .full_text import FullTextScorer
from .protocol import Scorer
from .reference import ReferenceScorer
from .shared_prefix import SharedPrefixScorer

__all__ = ["BiEncoderScorer", "FullTextScorer", "ReferenceScorer", "Scorer", "SharedPrefixScorer"]
