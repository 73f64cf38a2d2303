"""Where a work goes: filters rule places out, weighted scorers compare the rest, a picker takes one.

One chain serves jobs on nodes and requests on engines; it holds no state besides its picker's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from sage_core.common.config import Config, SelectorConfig
from sage_core.common.contracts import NodeFilter, NodePicker, NodeScorer
from sage_core.common.errors import ConfigError, PluginError, SageError, UnknownName
from sage_core.common.policies import create
from sage_core.common.records import Candidate, Needs, Work
from sage_core.common.registry import Registry

T = TypeVar("T")

#: What ``default`` means where sage.toml has no ``[selectors.default]``.
DEFAULT = SelectorConfig(scorers={"least_loaded": 1.0}, picker="round_robin")
#: Filters of every chain that no table of sage.toml describes.
NODES = ("capability", "fits")


class Chain:
    """A composed node selector; made with `build` from a ``[selectors.NAME]`` table, or with `named`."""

    def __init__(
        self,
        filters: Sequence[tuple[str, NodeFilter]],
        scorers: Sequence[tuple[str, float, NodeScorer]],
        picker: tuple[str, NodePicker],
    ) -> None:
        self._filters = filters
        whole = sum(weight for _, weight, _ in scorers)
        #: Each with its share of the score.
        self._scorers = [(name, weight / whole, scorer) for name, weight, scorer in scorers]
        self._picker_name, self._picker = picker
        #: Whether any of them looks at `Candidate.local`; it does unless it says ``local = False``.
        self.local = any(getattr(each, "local", True) for each in (*dict(filters).values(), *(s[2] for s in scorers)))
        #: What the scorers gave each candidate of the latest pick; empty where nothing was compared.
        self.scores: dict[str, float] = {}

    @classmethod
    def build(cls, config: SelectorConfig, registry: Registry, *, seed: int = 0, where: str = "[selectors]") -> Chain:
        """Compose the selectors that `config` names; scorers without a picker mean the highest score."""
        for name, weight in config.scorers.items():
            if not (math.isfinite(weight) and weight > 0):
                raise ConfigError(f"{where} scorers.{name}", f"weight {weight} is not a number above 0")
        picker = config.picker or ("best" if config.scorers else "round_robin")

        def make(kind: type[T], name: str) -> T:
            return _make(kind, name, registry, seed)

        # mypy refuses Protocols where it expects classes to instantiate; here they are only compared with.
        return cls(
            [(name, make(NodeFilter, name)) for name in config.filters],  # type: ignore[type-abstract]
            [(name, weight, make(NodeScorer, name)) for name, weight in config.scorers.items()],  # type: ignore[type-abstract]
            (picker, make(NodePicker, picker)),  # type: ignore[type-abstract]
        )

    @classmethod
    def named(
        cls, name: str, config: Config, registry: Registry, *, filters: Sequence[str] = NODES, seed: int = 0
    ) -> Chain:
        """Compose ``[selectors.NAME]`` of sage.toml; a name that is a scorer or a picker is a chain of its own.

        Args:
            filters: what such a chain begins with, and the default; none where only places with room are offered.
        """
        filters = tuple(filters)
        if name in config.selectors:
            return cls.build(config.selectors[name], registry, seed=seed, where=f"[selectors.{name}]")
        if name == "default":
            return cls.build(msgspec.structs.replace(DEFAULT, filters=filters), registry, seed=seed)
        if name not in registry:
            raise UnknownName("node selector", name, ("default", *config.selectors, *registry))
        entry = registry[name]
        if hasattr(entry, "score"):
            alone = SelectorConfig(filters=filters, scorers={name: 1.0})
        elif hasattr(entry, "pick"):
            # A picker that only makes sense over scores says over which.
            alone = SelectorConfig(filters=filters, scorers=dict(getattr(entry, "scorers", {})), picker=name)
        else:
            alone = SelectorConfig(filters=(*filters, name))
        return cls.build(alone, registry, seed=seed)

    def pick(self, work: Work, needs: Needs, candidates: Sequence[Candidate]) -> Candidate | None:
        """Return the candidate for this work, or None where none is admitted."""
        admitted = list(candidates)
        for name, selector in self._filters:
            admitted = _call(name, _admitted, selector, work, needs, admitted)
        if not admitted:
            return None
        compared = self._scorers and len(admitted) > 1
        totals = self._score(work, admitted) if compared else {candidate.id: 0.0 for candidate in admitted}
        self.scores = totals if compared else {}
        chosen = _call(self._picker_name, self._picker.pick, work, totals)
        for candidate in admitted:
            if candidate.id == chosen:
                return candidate
        known = ", ".join(candidate.id for candidate in admitted)
        raise PluginError(self._picker_name, f"picked {chosen!r}, which is not a candidate", f"candidates: {known}")

    def _score(self, work: Work, candidates: Sequence[Candidate]) -> dict[str, float]:
        """Weighted means of the clamped scores: in [0, 1]."""
        ids = [candidate.id for candidate in candidates]
        totals = [0.0] * len(ids)
        for name, share, scorer in self._scorers:
            given = _call(name, scorer.score, work, candidates)
            try:
                values = [given[each] for each in ids]
            except KeyError as error:
                problem = f"gave candidate {error.args[0]!r} no score"
                raise PluginError(name, problem, "a scorer scores every candidate") from None
            # NaN compares false with everything, and counts as 0.
            clamped = [(value if value < 1.0 else 1.0) if value > 0.0 else 0.0 for value in values]
            totals = [total + share * value for total, value in zip(totals, clamped, strict=True)]
        return dict(zip(ids, totals, strict=True))


def _admitted(selector: NodeFilter, work: Work, needs: Needs, candidates: list[Candidate]) -> list[Candidate]:
    admits = selector.admits
    return [each for each in candidates if admits(work, needs, each)]


def _make(kind: type[T], name: str, registry: Registry, seed: int) -> T:
    selector = create(registry[name], seed=seed)
    if isinstance(selector, kind):
        return selector
    raise PluginError(registry.origin(name), f"node selector {name!r} is not a {kind.__name__}")


def _call(name: str, method: Callable[..., T], *args: object) -> T:
    try:
        return method(*args)
    except SageError:
        raise
    except Exception as error:
        raise PluginError(name, f"raised {type(error).__name__}: {error}") from error
