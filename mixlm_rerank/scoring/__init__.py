"""One query against its candidates: the plain reference, the fast way that equals it, and full-text mode."""

from .plain import BiEncoderScorer, FullTextScorer, ReferenceScorer, Scorer
from .shared_prefix import SharedPrefixScorer

__all__ = ["BiEncoderScorer", "FullTextScorer", "ReferenceScorer", "Scorer", "SharedPrefixScorer"]
