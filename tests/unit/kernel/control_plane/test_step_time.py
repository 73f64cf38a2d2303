"""The step-time model: it finds the coefficients behind noisy times, and predicts nothing absurd from absurd ones."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_core.kernel.control_plane.step_time import STEP, TOKEN, StepTime, prompts_per_step

#: Seconds per step, prompt token, token of context and sequence: two GPUs, and a CPU whose batches are dear.
ENGINES = {
    "h100": (0.0072, 2e-5, 7.6e-8, 2.5e-5),
    "a100": (0.0098, 6.7e-5, 1.25e-7, 1e-4),
    "cpu": (0.04, 5e-3, 1e-6, 4e-3),
}


def taught(engine: tuple[float, float, float, float], seed: int, noise: float = 0.1) -> StepTime:
    """A model that has seen 600 noisy times: first tokens of prompts, and paces."""
    rng = random.Random(seed)
    model = StepTime()
    each, per_token, per_context, per_sequence = engine
    for _ in range(600):
        batch = rng.randint(1, 32)
        context = batch * rng.randint(100, 2_000)
        tokens = rng.randint(20, 6_000) if rng.random() < 0.3 else 0
        steps = model.chunks(tokens)
        true = steps * (each + per_context * context + per_sequence * batch) + per_token * tokens
        model.learn(true * max(0.1, rng.gauss(1, noise)), steps=steps, tokens=tokens, context=context, batch=batch)
    return model


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", ENGINES)
def test_predictions_come_close_to_an_engine_that_is_known(name: str, seed: int) -> None:
    each, per_token, per_context, per_sequence = ENGINES[name]
    model = taught(ENGINES[name], seed)
    rng = random.Random(9)
    errors = []
    for _ in range(200):
        batch = rng.randint(1, 32)
        context, tokens = batch * rng.randint(100, 2_000), rng.randint(20, 6_000)
        step = each + per_context * context + per_sequence * batch
        errors.append(abs(model.step(context, batch) / step - 1))
        errors.append(abs(model.read(tokens, context, batch) / (model.chunks(tokens) * step + per_token * tokens) - 1))
    errors.sort()
    assert errors[200] < 0.03
    assert errors[380] < 0.05
    found = model.coefficients
    assert found[0] == pytest.approx(each, rel=0.05)
    assert found[1] == pytest.approx(per_token, rel=0.05)


def test_the_same_observations_give_the_same_model() -> None:
    assert taught(ENGINES["h100"], 4).coefficients == taught(ENGINES["h100"], 4).coefficients


def test_before_anything_is_measured_there_is_a_guess_or_what_an_engine_like_it_had_learnt() -> None:
    assert StepTime().step(5_000, 8) == pytest.approx(STEP)
    assert StepTime().read(100, 0, 1) == pytest.approx(STEP + 100 * TOKEN)
    assert StepTime((0.1, 0.0, 0.0, 0.001)).step(0, 10) == pytest.approx(0.11)


def test_it_follows_an_engine_that_slows_down() -> None:
    model = taught(ENGINES["h100"], 1)
    for _ in range(1_500):
        model.learn(0.05, steps=1, tokens=0, context=4_000, batch=4)
    assert model.step(4_000, 4) == pytest.approx(0.05, rel=0.05)


def test_what_constant_traffic_says_nothing_about_stays() -> None:
    model = taught(ENGINES["cpu"], 1)
    before = model.step(20_000, 20)
    each, _, per_context, per_sequence = ENGINES["cpu"]
    for _ in range(10_000):
        model.learn(each + per_context * 500 + per_sequence, steps=1, tokens=0, context=500, batch=1)
    assert model.step(20_000, 20) > 0.5 * before


def test_a_sequence_shares_the_steps_with_those_that_usually_run_beside_it() -> None:
    model = StepTime((0.02, 1e-4, 0.0, 0.0))
    alone = model.share(100, 50)
    assert alone == pytest.approx(0.01 + 1.0)
    for _ in range(500):
        model.learn(0.02, steps=1, tokens=0, context=0, batch=10)
    assert model.share(100, 50) < 0.2 * alone


def test_prompts_are_spread_over_the_steps_between_two_paces() -> None:
    assert prompts_per_step(1_000, 0.02, 100_000_000) == pytest.approx(200)
    assert prompts_per_step(1_000, 0.02, 0) == 0.0


numbers = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.0, 1e-300, 1e300]))
sizes = st.integers(0, 10**9)


@given(st.lists(st.tuples(numbers, sizes, sizes, sizes, sizes), max_size=40), sizes, sizes, sizes)
def test_no_prediction_is_negative_or_no_number(
    seen: list[tuple[float, int, int, int, int]], tokens: int, context: int, batch: int
) -> None:
    model = StepTime()
    for seconds, steps, read, held, running in seen:
        model.learn(seconds, steps=steps, tokens=read, context=held, batch=running)
    for found in (model.step(context, batch), model.read(tokens, context, batch), model.share(tokens, batch)):
        assert math.isfinite(found)
        assert found >= 0.0
