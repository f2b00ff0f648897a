# mypy: ignore-errors
"""Shared-prefix attention as one GPU kernel (Triton): no masks in memory, no copies of keys.

Of the keys that a row must not see, at most one block is read. Online softmax over blocks of keys as in FlashAttention
(2205.14135), first over the prefix, then over the row's item.
"""

import triton
import triton.language as tl

__all__ = ["attend_tiles"]


@triton.jit
def attend_tiles(
    query, key, value, out, table, scale,
    query_row, query_head, key_row, key_head, value_row, value_head, out_row, out_head,
    GROUPS: tl.constexpr, HEAD: tl.constexpr, ITEM: tl.constexpr, STEP: tl.constexpr, CAUSAL: tl.constexpr,
    BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute one tile of rows of one head. Rows are STEP positions of an item apart; items have ITEM positions.

    A tile: rows [row, + rows); prefix keys [first_key, + keys), in which the first row is number ``before`` or later;
    keys of its items [own, + own_keys), in which the first row's STEP begins at number ``own_before``.
    """
    head = tl.program_id(1)
    entry = table + tl.program_id(0) * 8
    row, rows = tl.load(entry), tl.load(entry + 1)
    first_key, keys, before = tl.load(entry + 2), tl.load(entry + 3), tl.load(entry + 4)
    own, own_keys, own_before = tl.load(entry + 5), tl.load(entry + 6), tl.load(entry + 7)
    number, place = tl.arange(0, BLOCK), tl.arange(0, HEAD)
    own_place = own_before + number * STEP + STEP - 1
    real = (number < rows)[:, None]
    q = tl.load(query + (row + number)[:, None] * query_row + head * query_head + place[None], mask=real, other=0.0)
    keys_of, values_of = key + head // GROUPS * key_head, value + head // GROUPS * value_head
    best = tl.full([BLOCK], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    mixed = tl.zeros([BLOCK, HEAD], tl.float32)
    for start in range(0, keys, BLOCK):
        at = start + number
        seen = (at < keys)[None]
        if CAUSAL:
            seen = seen & (at[None] <= (before + number)[:, None])
        k = tl.load(keys_of + (first_key + at)[:, None] * key_row + place[None], mask=(at < keys)[:, None], other=0.0)
        v = tl.load(
            values_of + (first_key + at)[:, None] * value_row + place[None], mask=(at < keys)[:, None], other=0.0
        )
        best, total, mixed = _more(q, k, v, seen, scale, best, total, mixed, PRECISION)
    for start in range(0, own_keys, BLOCK):
        at = start + number
        seen = (at < own_keys)[None] & (at[None] // ITEM == own_place[:, None] // ITEM)
        if CAUSAL:
            seen = seen & (at[None] <= own_place[:, None])
        k = tl.load(keys_of + (own + at)[:, None] * key_row + place[None], mask=(at < own_keys)[:, None], other=0.0)
        v = tl.load(values_of + (own + at)[:, None] * value_row + place[None], mask=(at < own_keys)[:, None], other=0.0)
        best, total, mixed = _more(q, k, v, seen, scale, best, total, mixed, PRECISION)
    answer = (mixed / total[:, None]).to(out.dtype.element_ty)
    tl.store(out + (row + number)[:, None] * out_row + head * out_head + place[None], answer, mask=real)


@triton.jit
def _more(q, k, v, seen, scale, best, total, mixed, PRECISION: tl.constexpr):
    """Add a block of keys to the running softmax. ``scale`` includes log2(e): powers of two are cheaper."""
    logits = tl.where(seen, tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale, -float("inf"))
    higher = tl.maximum(best, tl.max(logits, 1))
    shrunk = tl.exp2(best - higher)
    weights = tl.exp2(logits - higher[:, None])
    mixed = mixed * shrunk[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
    return higher, total * shrunk + tl.sum(weights, 1), mixed
