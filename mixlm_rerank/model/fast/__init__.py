"""The fast paths, behind one door: :class:`.ranker.FastRanker`; each equals its plain counterpart, which tests show."""
