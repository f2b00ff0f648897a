"""A bi-encoder's token states as a model for late interaction, to compare with: `--systems multi-vector:FOLDER@8`.

    python docs/examples/late_interaction.py BI_ENCODER FOLDER

Nothing is trained, and there is no projection. A document keeps one vector for each token, or with @8 one for eight.
"""

from __future__ import annotations

import typer
from sentence_transformers import MultiVectorEncoder


def convert(bi_encoder: str, folder: str) -> None:
    made = MultiVectorEncoder(bi_encoder)
    plain = [module for name, module in made.named_children() if type(module).__name__ != "Dense"]
    MultiVectorEncoder(modules=plain).save_pretrained(folder)


if __name__ == "__main__":
    typer.run(convert)
