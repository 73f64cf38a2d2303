"""What the manager keeps is bounded, whatever callers call themselves and however engines behave."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from sage_core.common.clock import MILLISECOND
from sage_core.common.records import Caller, Capacity, PoolSpec
from sage_core.kernel.control_plane import events
from sage_core.kernel.control_plane.history import REMEMBERED
from sage_core.kernel.control_plane.manager import ControlPlaneManager
from sage_core.testing.virtual import EngineModel, VirtualDriver

#: More than anything is remembered of, but for estimates and prefixes, whose bounds have tests of their own.
ROUND = REMEMBERED + 200


def kept(manager: ControlPlaneManager) -> dict[str, int]:
    """Elements of every container that is reached from a manager, by the way there."""
    found: dict[str, int] = {}
    seen: dict[int, object] = {}
    ahead: deque[tuple[str, object]] = deque([("manager", manager)])
    while ahead:
        path, item = ahead.popleft()
        if id(item) in seen:
            continue
        seen[id(item)] = item
        if isinstance(item, Mapping):
            found[path] = found.get(path, 0) + len(item)
            ahead.extend((f"{path}[]", value) for value in item.values())
        elif isinstance(item, list | tuple | deque):
            found[path] = found.get(path, 0) + len(item)
            ahead.extend((f"{path}[]", value) for value in item)
        elif type(item).__module__.startswith("sage_core"):
            names = [name for kind in type(item).__mro__ for name in getattr(kind, "__slots__", ())]
            for name in [*names, *getattr(item, "__dict__", {})]:
                if hasattr(item, name) and not callable(value := getattr(item, name)):
                    ahead.append((f"{path}.{name}", value))
    return found


def test_ever_more_names_leave_no_more_behind() -> None:
    manager = ControlPlaneManager()
    driver = VirtualDriver(manager, EngineModel(capacity=Capacity(sequences=8), first=MILLISECOND, token=MILLISECOND))
    driver.tell(0, events.PoolSet(pool=PoolSpec(lane="m", model="m", members=3, min=3)))
    sizes = []
    for turn in range(2):
        for number in range(ROUND):
            name = f"{turn}/{number}"
            embed = number % 3 == 0
            outline = events.Outline(
                id=name,
                kind="embed" if embed else "generate",
                model="m",
                lane="m",
                caller=Caller(tenant=f"tenant {name}", route=f"/{name}", run=name, step=name, worker=name),
                sizes=(400,),
                keys=(name,) if embed else (),
                max_tokens=0 if embed else 4,
                prefix=() if embed else (number % 50,),
            )
            driver.submit(driver.now + number * MILLISECOND, outline)
            if number % 7 == 0:
                driver.cancel(driver.now + number * MILLISECOND + 2, name)
        start = driver.now
        for instant in range(0, ROUND, 10):
            driver.advance(start + instant * MILLISECOND)
            # An attempt that fails is made on another engine, which its work is kept from no longer than it lives.
            for ticket in driver.flying()[:2]:
                driver.fail(ticket)
        driver.advance()
        assert manager.held == 0
        driver.actions.clear()
        sizes.append(kept(manager))
    first, second = sizes
    grown = {path: (first.get(path, 0), size) for path, size in second.items() if size > 1.1 * first.get(path, 0) + 8}
    estimates = "manager._classifier._written"
    assert [path for path in grown if not path.startswith(estimates)] == []
    assert first["manager._history._lines"] == REMEMBERED
