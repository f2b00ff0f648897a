"""Numbers, times and lists as people read them: three decimals and no leading zero, units by size."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

__all__ = ["count", "difference", "duration", "interval", "listed", "measure", "milliseconds", "moment", "p_value"]
__all__ += ["DECIMALS", "percent", "ratio", "size", "speed"]

DECIMALS = 3  # in measures
MINUS = "\N{MINUS SIGN}"
count = "{:,}".format  # 5,183
percent = "{:.1%}".format  # 97.7%
SIZES = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3), ("B", 1))


def measure(value: float) -> str:
    """A measure.

    >>> measure(0.6789), measure(1), measure(-0.2)
    ('.679', '1.000', '−.200')
    """
    text = f"{abs(value):,.{DECIMALS}f}".removeprefix("0")
    return f"{MINUS}{text}" if value < 0 and text != ".000" else text


def difference(value: float) -> str:
    """A measure with its sign.

    >>> difference(0.0123), difference(-0.0123), difference(-0.0001)
    ('+.012', '−.012', '.000')
    """
    text = measure(value)
    return f"+{text}" if value > 0 and text != ".000" else text


def interval(ends: tuple[float, float] | None) -> str:
    """An interval of a measure.

    >>> interval((0.61234, 0.7)), interval(None)
    ('.612–.700', '')
    """
    return "" if ends is None else "–".join(map(measure, ends))


def p_value(p: float) -> str:
    """
    >>> p_value(0.0004), p_value(0.0312)
    ('<.001', '.031')
    """
    return "<.001" if p < 0.001 else measure(p)


def speed(value: float) -> str:
    """Documents per second, or milliseconds, to three significant digits.

    >>> speed(12345.6), speed(290.4), speed(3.216)
    ('12,300', '290', '3.22')
    """
    if value < 1:
        return f"{value:.2g}"
    digits = max(0, 3 - len(str(int(value))))
    return f"{round(value, 3 - len(str(int(value)))):,.{digits}f}"


milliseconds = speed


def size(value: float) -> str:
    """Bytes.

    >>> size(1600), size(2_140_000_000), size(12)
    ('1.6 KB', '2.1 GB', '12 B')
    """
    unit, length = next(((u, n) for u, n in SIZES if value >= 0.9995 * n), SIZES[-1])
    value /= length
    return f"{value:.1f} {unit}" if value < 9.95 and length > 1 else f"{value:,.0f} {unit}"


def duration(seconds: float) -> str:
    """
    >>> duration(4.21), duration(600), duration(10_000)
    ('4.2 s', '10 min', '2.8 h')
    """
    unit, length = ("s", 1) if seconds < 90 else ("min", 60) if seconds < 5400 else ("h", 3600)
    value = seconds / length
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:,.0f} {unit}"


def ratio(value: float) -> str:
    """
    >>> ratio(31.4), ratio(2.44), ratio(0.42)
    ('31×', '2.4×', '0.42×')
    """
    return f"{value:,.0f}×" if value >= 9.95 else f"{value:.1f}×" if value >= 0.95 else f"{value:.2g}×"


def moment(created: str) -> str:
    """An ISO time as people write it; anything else as it is.

    >>> moment("2026-11-03T09:05:00+00:00"), moment("yesterday")
    ('3 November 2026, 09:05 UTC', 'yesterday')
    """
    try:
        when = datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{when.day} {when:%B %Y, %H:%M}{f' {when.tzname()}' if when.tzinfo else ''}"


def listed(names: Sequence[str]) -> str:
    """
    >>> listed(["SciFact"]), listed(["SciFact", "FiQA", "ArguAna"])
    ('SciFact', 'SciFact, FiQA and ArguAna')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
