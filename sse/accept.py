"""Whether an Accept header asks for a media type (RFC 9110, 12.4.2 and 12.5.1).

In:  the header, and one of the types that are offered. Out: whether the header names that type and prefers no other one that is
offered. `*/*` and `application/*` don't count: a client that wants one of the types names it.
"""

import re

OFFERED = ("application/json", "text/event-stream")

_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


def names(accept: str, media_type: str) -> bool:
    """Whether an Accept header names `media_type`, one of `OFFERED`, and prefers no other one of them."""
    accept = accept.lower()
    if accept == media_type or media_type not in accept:  # true of nearly every request
        return accept == media_type
    weights = dict(map(_weighed, accept.split(",")))
    return 0 < weights.get(media_type, 0) >= max(weights.get(offered, 0) for offered in OFFERED)


def _weighed(part: str) -> tuple[str, float]:
    """A media type and its weight, from 0 (not acceptable) to 1."""
    media_type, *parameters = (piece.strip() for piece in part.split(";"))
    weight = next((parameter[2:] for parameter in parameters if parameter.startswith("q=")), "1")
    return media_type, float(weight) if _WEIGHT.fullmatch(weight) else 0
