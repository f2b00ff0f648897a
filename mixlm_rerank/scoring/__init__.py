"""One query against its candidates: the plain reference, the fast way that equals it, and full-text mode."""

from .common import Scorer
from .plain import BiEncoderScorer, FullTextScorer, ReferenceScorer
from .shared_prefix import SharedPrefixScorer

__all__ = ["BiEncoderScorer", "FullTextScorer", "ReferenceScorer", "Scorer", "SharedPrefixScorer"]
