"""Deployed workflows as models: ``workflow/NAME`` answers a chat with a run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from sage_core import Token
from sage_core.serving import DeployedGraph, Graph, Report, suggest
from sage_gateway.accounts import Account
from sage_gateway.asked import Chat
from sage_gateway.bodies import Fields
from sage_gateway.callers import caller_of
from sage_gateway.errors import ApiError
from sage_gateway.exchange import Exchange
from sage_gateway.following import Piece, followed, writer_of
from sage_gateway.gateway import Gateway
from sage_gateway.render import Renderer

#: How the names of such models begin.
PREFIX = "workflow/"
#: The param that takes the last user message, and the output that answers it, where a workflow has several.
QUESTION, ANSWER = "question", "answer"
_LETTERS_PER_TOKEN = 4


async def names(gateway: Gateway, account: Account) -> list[str]:
    """Models that are workflows, of those that an account may ask for."""
    every = (f"{PREFIX}{name}" for name in await gateway.desk.deployed())
    return sorted(filter(account.allows, every))


async def find(gateway: Gateway, model: str, account: Account) -> DeployedGraph:
    """The deployment behind a model's name; raises `ApiError` 404 with the candidates."""
    found = (await gateway.desk.deployed()).get(model.removeprefix(PREFIX)) if account.allows(model) else None
    if found is not None:
        return found
    known = await names(gateway, account)
    listed = f" Known: {', '.join(known)}." if known else " No workflow is deployed: sage deploy WORKFLOW."
    message = f"The model {model!r} does not exist.{suggest(model, known)}{listed}"
    raise ApiError(404, message, code="model_not_found", param="model")


async def chat(exchange: Exchange, asked: Chat, fields: Fields, path: str) -> None:
    """Answer a chat with a run; a client that goes away cancels it."""
    gateway, account = exchange.gateway, exchange.account
    deployed = await find(gateway, asked.model, account)
    for name in asked.extras:
        raise ApiError(400, f"a workflow cannot serve {name!r}", code="unsupported", param=name)
    if (asked.response_format or {}).get("type", "text") != "text":
        message = "a workflow cannot serve 'response_format': its steps say what they generate"
        raise ApiError(400, message, code="unsupported", param="response_format")
    params, question = _given(fields), question_of(deployed)
    if question in params:
        raise ApiError(400, f"params has {question!r}, which is the last message of role 'user'", param="params")
    params[question] = _last_message(asked)
    caller = caller_of(exchange.scope["headers"], account, gateway.classes, route=path, id=exchange.id)
    letters = sum(len(message.text) for message in asked.messages)
    permit = gateway.accounts.admit(account, asked.model, letters // _LETTERS_PER_TOKEN + asked.limit)
    run_id = ""
    try:
        run_id = await gateway.desk.invoke(deployed.name, params, caller, priority=caller.priority)
        report = await _answered(exchange, asked, deployed, run_id)
        permit.settle(report.tokens.get("prompt", 0), report.tokens.get("completion", 0))
    except BaseException:
        permit.refund()
        if run_id:
            await asyncio.shield(gateway.desk.cancel(run_id))
        raise


async def _answered(exchange: Exchange, asked: Chat, deployed: DeployedGraph, run_id: str) -> Report:
    renderer, shown = Renderer(exchange.id, asked.model, chat=True), ""
    named = [(b"x-sage-run", run_id.encode())]
    if asked.stream:
        await exchange.begin(headers=named)
        await exchange.write(renderer.begin())
    writer = writer_of(deployed.graph, answering(deployed.graph.outputs)) if asked.stream else ""
    async with aclosing(followed(exchange.gateway, run_id, writer)) as steps:
        async for told in steps:
            if isinstance(told, Report):
                break
            if isinstance(told, Piece):
                shown += told.text
                await exchange.write(renderer.piece(told.text))
            elif asked.stream:
                # A comment: shows whoever looks how far the run is, and keeps the connection alive.
                await exchange.write(f": step {told}\n\n".encode())
    assert isinstance(told, Report)
    if told.status not in ("succeeded", "partial"):
        raise ApiError(502, f"run {run_id} {told.status}: {told.error}", code="run_failed")
    text = answer_of(told.outputs)
    read, written = told.tokens.get("prompt", 0), told.tokens.get("completion", 0)
    last = Token(text=text, finish="stop", prompt_tokens=read, completion_tokens=written)
    if asked.stream:
        if not text.startswith(shown):
            problem = f"run {run_id} ended with another text than was streamed: step {writer!r} was done again"
            raise ApiError(502, problem, code="run_answer_changed")
        rest = text[len(shown) :]
        await exchange.write((renderer.piece(rest) if rest else b"") + renderer.end(last, with_usage=asked.wants_usage))
        await exchange.end()
    else:
        await exchange.reply(renderer.whole(text, last), headers=named)
    return told


def question_of(deployed: DeployedGraph) -> str:
    """The param that takes the last user message: ``question``, else the only text that a run has to be given."""
    graph: Graph = deployed.graph
    texts = [name for name, param in graph.params.items() if param.type == "string" and not param.secret]
    open_texts = [name for name in texts if graph.params[name].required and name not in deployed.given]
    for found in ([QUESTION] if QUESTION in texts else []), open_texts, texts:
        if len(found) == 1:
            return found[0]
    problem = f"declares {len(texts)} params of type string, and none is named {QUESTION!r}"
    message = f"workflow {deployed.name!r} cannot answer a chat: it {problem}"
    raise ApiError(400, message, code="no_question", param="model")


def answering(outputs: Mapping[str, object]) -> str:
    """The output that answers: ``answer``, else the only one; empty where it takes all of them."""
    if ANSWER in outputs:
        return ANSWER
    return next(iter(outputs)) if len(outputs) == 1 else ""


def answer_of(outputs: Mapping[str, Any]) -> str:
    """The text of a run's answer; what is no text is written as JSON."""
    name = answering(outputs)
    value: object = outputs[name] if name else outputs
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _given(fields: Fields) -> dict[str, object]:
    raw = fields.get("params")
    if raw is None:
        return {}
    try:
        return msgspec.json.decode(raw, type=dict[str, Any] | None) or {}
    except msgspec.MsgspecError as error:
        problem = str(error).replace("`", "'")
        raise ApiError(400, f"params: {problem}", code="invalid_type", param="params") from None


def _last_message(asked: Chat) -> str:
    for message in reversed(asked.messages):
        if message.role == "user":
            return message.text
    raise ApiError(400, "a workflow answers the last message of role 'user', and there is none", param="messages")
