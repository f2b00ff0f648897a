"""The model: item encoder + ranker + readout, its configuration, and its life on disk."""

from .config import MixLMConfig
from .mixlm import MixLM

__all__ = ["MixLM", "MixLMConfig"]
