"""What a place was chosen from, for the decision log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from sage_core.common.records import Candidate, Place, Record

#: Places kept for the decision log.
CANDIDATES = 8


class Choice(Record):
    """What a place was chosen from: it and the best ones beside it, with the selector's scores, and how many in all."""

    places: tuple[Place, ...]
    scores: tuple[float, ...] = ()
    open: int = 0
    why: str = ""


def chosen_from(found: Sequence[Candidate], chosen: Place, scores: Mapping[str, float], *, selected: bool) -> Choice:
    """Tell what a place was chosen from; `selected` by a selector, which may have scored some of them."""
    others = {each.id: each.place for each in found if each.place is not None}
    others.pop(chosen.engine, None)
    best: Iterable[str] = others
    if scores:
        # Those that a filter ruled out have no score, and are named last.
        ranked = sorted(scores, key=scores.__getitem__, reverse=True)[:CANDIDATES]
        best = dict.fromkeys((*ranked, *others)) if len(ranked) < CANDIDATES else ranked
    places = (chosen, *(others[engine] for engine in islice((e for e in best if e in others), CANDIDATES - 1)))
    count = len(others) + 1
    if count == 1:
        why = "the only place open"
    elif scores:
        why = f"score {scores.get(chosen.engine, 0.0):.3g}, the selector's choice of {count}"
    else:
        why = f"the selector's choice of {count}" if selected else f"the least loaded of {count}"
    told = tuple([scores.get(place.engine, 0.0) for place in places]) if scores else ()
    return Choice(places=places, scores=told, open=count, why=why)
