"""Needs as text, and what fits beside what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_core import Needs, Node
from sage_core.kernel.scheduler.ledger import fits, has_room, lacks, needs_from, needs_of, needs_text, with_jobs

GIB = 1 << 30
NODE = Node(name="n", cpu=4, memory=8 * GIB, gpu=1, gpu_memory=40 * GIB, labels=("fast",))
SOME = st.builds(
    Needs,
    cpu=st.sampled_from((0.0, 0.1, 0.5, 1.0, 2.0)),
    memory=st.sampled_from((0, GIB, 3 * GIB)),
    gpu=st.integers(0, 2),
    labels=st.lists(st.sampled_from(("fast", "ssd")), unique=True).map(tuple),
    model=st.sampled_from(("", "minilm")),
)


@given(SOME)
def test_a_text_says_the_needs_and_equal_needs_have_one_text(needs: Needs) -> None:
    again = needs_from(needs_text(needs))
    assert (again.cpu, again.memory, again.gpu, again.model) == (needs.cpu, needs.memory, needs.gpu, needs.model)
    assert set(again.labels) == set(needs.labels)
    assert needs_text(again) == needs_text(needs)
    assert (needs_text(needs) == "") == (needs == Needs())


def test_the_order_of_labels_makes_no_other_text() -> None:
    assert needs_text(Needs(labels=("b", "a"))) == needs_text(Needs(labels=("a", "b", "a"))) == '{"labels":["a","b"]}'


def test_a_job_of_several_steps_needs_the_most_of_each() -> None:
    assert needs_of([{"cpu": 2, "labels": ["b"]}, {"cpu": 0.5, "memory": 3}, {"labels": ["a"]}, {}]) == Needs(
        cpu=2.0, memory=3, labels=("a", "b")
    )
    assert needs_of([{"gpu_memory": 2}, {"gpu_memory": 3}]) == Needs(gpu_memory=3)
    assert needs_of([]) == Needs()


@pytest.mark.parametrize(
    ("needs", "missing"),
    [
        (Needs(), ()),
        (Needs(cpu=4, memory=8 * GIB, gpu=1, labels=("fast",)), ()),
        (Needs(gpu=2), ("gpu = 2 (it has 1)",)),
        (Needs(cpu=4.5, memory=9 * GIB), ("cpu = 4.5 (it has 4)", "memory = 9 GiB (it has 8)")),
        (Needs(labels=("fast", "ssd")), ("label 'ssd'",)),
        (Needs(gpu=1, gpu_memory=40 * GIB), ()),
        (Needs(gpu=1, gpu_memory=80 * GIB), ("gpu_memory = 80 GiB (it has 40)",)),
    ],
)
def test_what_a_node_lacks_is_named(needs: Needs, missing: tuple[str, ...]) -> None:
    assert lacks(NODE, needs) == missing


def test_running_jobs_and_what_the_node_says_is_used_leave_less_room() -> None:
    used = Node(name="n", cpu=4, memory=8 * GIB, gpu=1, used_cpu=1.0)
    two = needs_text(Needs(cpu=1.0))
    assert with_jobs(used, {two: 2}).used_cpu == 3.0
    assert fits(used)([two, needs_text(Needs(cpu=1.5)), needs_text(Needs(gpu=1))], {two: 2}) == [two, '{"gpu":1}']
    assert fits(used)([two], {two: 3}) == []


def test_ten_tenths_of_a_core_are_a_core() -> None:
    tenth = needs_text(Needs(cpu=0.1))
    one = Node(name="n", cpu=1.0)
    assert fits(one)([tenth], {tenth: 9}) == [tenth]
    assert fits(one)([tenth], {tenth: 10}) == []


@given(st.lists(SOME, max_size=12))
def test_taking_one_after_another_never_takes_more_than_there_is(asked: list[Needs]) -> None:
    running: dict[str, int] = {}
    for needs in asked:
        text = needs_text(needs)
        if fits(NODE)([text], running):
            running[text] = running.get(text, 0) + 1
    held = with_jobs(NODE, running)
    assert held.used_cpu <= NODE.cpu + 1e-6
    assert held.used_memory <= NODE.memory
    assert held.used_gpu <= NODE.gpu
    assert all(text == "" or has_room(NODE, needs_from(text)) for text in running)
