"""Score a query's candidates: the plain reference, the fast scorer that equals it, and full-text mode."""

from .plain import BiEncoderScorer, FullTextScorer, ReferenceScorer, Scorer
from .shared_prefix import SharedPrefixScorer

__all__ = ["BiEncoderScorer", "FullTextScorer", "ReferenceScorer", "Scorer", "SharedPrefixScorer"]
