"""The fast paths, used through :class:`.ranker.FastRanker`; tests show that each equals its plain counterpart."""
