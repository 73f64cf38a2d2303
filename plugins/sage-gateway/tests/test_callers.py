from __future__ import annotations

import msgspec
import pytest
from sage_gateway.accounts import Account
from sage_gateway.callers import ClassDefaults, caller_of
from sage_gateway.errors import ApiError

from sage_core import Caller, ConfigError
from sage_core.serving import Config, parse_config

TOML = """
[classes.interactive]
ttft = "500ms"
tpot = "30ms"
[classes.batch]
end_to_end = "1h"
"""
MS = 1_000_000


def made(account: Account | None = None, **headers: str) -> Caller:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return caller_of(
        pairs, account or Account(trusted=True), ClassDefaults(parse_config(TOML, "x")), route="/r", id="1"
    )


def test_nothing_said_is_the_standard_class_without_an_slo() -> None:
    assert made() == Caller(route="/r", worker="1")


def test_headers_are_milliseconds() -> None:
    caller = made(x_sage_slo_ttft_ms="250", x_sage_slo_tpot_ms="12.5", x_sage_slo_e2e_ms="9000", x_sage_priority="-3")
    assert (caller.ttft, caller.tpot, caller.remaining) == (250 * MS, 12_500_000, 9_000 * MS)
    assert caller.priority == -3


def test_the_names_of_llm_d_are_understood() -> None:
    caller = made(
        x_llm_d_slo_ttft_ms="1",
        x_llm_d_slo_tpot_ms="2",
        x_llm_d_inference_fairness_id="team",
        x_llm_d_inference_objective="batch",
    )
    assert (caller.ttft, caller.tpot, caller.tenant, caller.service_class) == (MS, 2 * MS, "team", "batch")
    assert made(x_llm_d_inference_objective="an-objective-of-theirs").service_class == "standard"


def test_a_header_goes_before_the_key_and_the_key_before_the_class() -> None:
    key = Account(service_class="interactive", ttft=100 * MS)
    assert (made(key).ttft, made(key).tpot) == (100 * MS, 30 * MS)
    assert made(key, x_sage_slo_ttft_ms="7").ttft == 7 * MS
    assert made(x_sage_class="interactive").ttft == 500 * MS
    assert made(x_sage_class="batch").remaining == 3_600_000 * MS


def test_a_key_of_a_class_may_step_back_and_not_forward() -> None:
    key = Account(service_class="standard", bounded=True)
    assert made(key, x_sage_class="interactive").service_class == "standard"
    assert made(key, x_llm_d_inference_objective="interactive").service_class == "standard"
    assert made(key, x_sage_class="batch").service_class == "batch"
    assert made(Account(), x_sage_class="interactive").service_class == "interactive"


def test_a_tenant_is_believed_only_where_there_are_no_keys() -> None:
    assert made(x_sage_tenant="other").tenant == "other"
    assert made(Account(tenant="mine"), x_sage_tenant="other").tenant == "mine"


def test_a_key_may_step_back_but_not_forward() -> None:
    key = Account(priority=2)
    assert made(key, x_sage_priority="9").priority == 2
    assert made(key, x_sage_priority="1").priority == 1
    assert made(x_sage_priority="9").priority == 9


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x_sage_slo_ttft_ms", "soon"),
        ("x_sage_slo_ttft_ms", "0"),
        ("x_sage_slo_tpot_ms", "-1"),
        ("x_sage_slo_e2e_ms", "nan"),
        ("x_sage_slo_e2e_ms", "inf"),
        ("x_sage_class", "vip"),
        ("x_sage_priority", "high"),
        ("x_sage_priority", "1000000"),
    ],
)
def test_what_cannot_be_read_is_an_error(header: str, value: str) -> None:
    with pytest.raises(ApiError) as caught:
        made(None, **{header: value})
    assert caught.value.status == 400
    assert caught.value.param == header.replace("_", "-")


def test_a_class_that_cannot_be_read_is_an_error_at_the_start() -> None:
    config: Config = parse_config('[classes.batch]\nttft = "soon"\n', "sage.toml")
    with pytest.raises(ConfigError, match=r"\[classes\.batch\]"):
        ClassDefaults(config)


def test_run_step_and_worker_are_names_that_grant_nothing() -> None:
    key = Account(tenant="mine", service_class="batch", priority=-5)
    plain = made(key)
    named = made(key, x_sage_run="r" * 200, x_sage_step="schlu\u00df", x_sage_worker="w")
    assert (named.run, named.step, named.worker) == ("r" * 128, "schlu\u00df", "w")
    assert msgspec.structs.replace(named, run="", step="", worker="1") == plain
