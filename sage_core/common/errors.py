"""Every error SAGE raises on purpose, as one tree.

SageError
├── ConfigError            sage.toml or an environment variable is wrong
├── UnknownName            a name that nothing installed answers to
├── DuplicateName          two plugins offer one name
├── PluginError            a plugin failed to load, or broke its contract
├── InvalidWorkflow        a workflow file with one or more diagnostics (exit code 2)
├── BadValue               a text with a syntax of its own (duration, size, expression, template, cron) is wrong
├── UsageError             a command line, parameter or argument is wrong (exit code 2)
├── StoreError             the job store cannot be used as asked
│   ├── StoreUnavailable   the database cannot be reached or is busy
│   ├── StoreTooNew        the database was written by a newer SAGE
│   └── StaleAttempt       a write came from an attempt that has lost its fence
├── CorruptArtifact        a stored file is not what its digest says
├── OperatorError          an operator broke its signature or raised
│   └── BadSignature       an operator's annotations cannot be used (exit code 2)
├── UnsupportedType        an annotation that no port, option or column can have
├── ModelError             a model is missing, or its engine is broken
│   └── InvalidRequest     the request is at fault: no engine of the model can serve it
├── AttemptFailed          an engine failed one attempt at a request; another engine may do better
├── NoEngine               no engine of a model can serve at present
├── RequestRejected        the control plane refused or shed a request
├── EngineHostError        the engine-host process cannot be started, or died
├── PortTaken              a TCP port SAGE wants is held by another process
├── RunFailed              a run ended without its outputs
└── Interrupted            the user stopped the command; the run can be resumed (exit code 130)

Fields travel in ``args``, so every error survives pickling; ``__str__`` says what, where, and the way out.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def suggest(name: str, candidates: Sequence[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the closest candidate, or an empty string."""
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def _with_help(text: str, help: str) -> str:
    return f"{text}\n  help: {help}" if help else text


class SageError(Exception):
    """Root of every error that is SAGE's to explain; anything else is a defect."""

    #: Exit status of the `sage` command when this error ends it.
    exit_code = 1


class _Placed(SageError):
    """What is wrong in one place, and the way out."""

    #: How the message names the place.
    place = "{}"

    def __init__(self, where: str, problem: str, help: str = "") -> None:
        SageError.__init__(self, where, problem, help)

    def __str__(self) -> str:
        where, problem, help, *_ = self.args
        return _with_help(f"{self.place.format(where)}: {problem}", help)


class _Explained(SageError):
    """What is wrong with what was written, and the way out."""

    exit_code = 2

    def __init__(self, problem: str, help: str = "") -> None:
        super().__init__(problem, help)

    @property
    def problem(self) -> str:
        """What is wrong, without the way out."""
        text: str = self.args[0]
        return text

    @property
    def help(self) -> str:
        """The way out, or an empty string."""
        text: str = self.args[1]
        return text

    def __str__(self) -> str:
        return _with_help(self.problem, self.help)


class ConfigError(_Placed):
    """A configuration value cannot be used."""

    exit_code = 2


class UnknownName(SageError):
    """Nothing installed answers to this name."""

    exit_code = 2

    def __init__(self, kind: str, name: str, installed: Sequence[str], hint: str = "") -> None:
        super().__init__(kind, name, tuple(installed), hint)

    def __str__(self) -> str:
        kind, name, installed, hint = self.args
        known = f" Known: {', '.join(installed)}." if installed else f" No {kind} is known."
        return f"No {kind} is named {name!r}.{suggest(name, installed)}{known}" + (f" {hint}" if hint else "")


class DuplicateName(SageError):
    """Two plugins offer one name; the one loaded first keeps it only after the other is removed."""

    def __init__(self, kind: str, name: str, first: str, second: str) -> None:
        super().__init__(kind, name, first, second)

    def __str__(self) -> str:
        kind, name, first, second = self.args
        return f"The {kind} {name!r} is offered by both {first!r} and {second!r}. Uninstall one of them."


class PluginError(_Placed):
    """A plugin failed to load or broke its contract."""

    place = "plugin {!r}"


class InvalidWorkflow(SageError):
    """A workflow file is wrong; carries every diagnostic, rendered, in file order."""

    exit_code = 2

    def __init__(self, rendered: Sequence[str]) -> None:
        super().__init__(tuple(rendered))

    @property
    def diagnostics(self) -> tuple[str, ...]:
        """The rendered diagnostics: ``file:line:col: message``, a caret line, help."""
        rendered: tuple[str, ...] = self.args[0]
        return rendered

    def __str__(self) -> str:
        count = len(self.diagnostics)
        return "\n\n".join(self.diagnostics) + f"\n\n{count} error{'s' if count != 1 else ''}"


class BadValue(_Explained):
    """A text with a syntax of its own (duration, size, expression, template, reference, cron) is wrong."""


class UsageError(_Explained):
    """A command line, parameter or argument is wrong."""


class StoreError(_Placed):
    """The job store cannot be used as asked; the URL is shown without its password."""

    place = "store {}"


class StoreUnavailable(StoreError):
    """The database cannot be reached or is busy; try again: nothing was written, unless a commit's answer got lost."""


class StoreTooNew(StoreError):
    """The database was written by a newer SAGE; nothing is changed in it."""


class StaleAttempt(StoreError):
    """A write carried a fence that is no longer the job's; the writer must stop and discard."""

    def __init__(self, url: str, job: int, fence: int) -> None:
        SageError.__init__(self, url, job, fence)

    def __str__(self) -> str:
        _, job, fence = self.args
        return f"job {job}: fence {fence} is stale; another attempt owns the job"


class CorruptArtifact(_Placed):
    """A stored file is missing or is not what its digest says; the job that made it can be run again."""

    place = "artifact {}"


class OperatorError(SageError):
    """An operator broke its signature or raised; names the step and, where known, the row."""

    def __init__(self, step: str, problem: str, row: str = "", help: str = "") -> None:
        super().__init__(step, problem, row, help)

    def __str__(self) -> str:
        step, problem, row, help = self.args
        at = f" (row {row})" if row else ""
        return _with_help(f"step {step!r}{at}: {problem}", help)


class BadSignature(_Placed, OperatorError):
    """An operator's annotations cannot be used; names the operator and says what to write."""

    exit_code = 2
    place = "operator {!r}"


class UnsupportedType(_Placed):
    """An annotation that no port, option or column can have."""

    exit_code = 2


class ModelError(_Placed):
    """A model is missing, or its engine is broken; says how to get one that is not."""

    place = "model {!r}"


class InvalidRequest(ModelError):
    """The request is at fault and not the engine: no engine of the model can serve it, however often it is sent."""

    def __init__(self, model: str, problem: str, help: str = "", code: str = "invalid_request") -> None:
        """`code` is for programs: ``invalid_request``, ``context_length_exceeded`` or ``unsupported``."""
        SageError.__init__(self, model, problem, help, code)

    @property
    def code(self) -> str:
        """What is wrong with it, in OpenAI's words where they have one."""
        word: str = self.args[3]
        return word


class AttemptFailed(SageError):
    """An engine failed one attempt at a request, through no fault of the request."""

    def __init__(self, model: str, problem: str, pause: float = 0.0) -> None:
        """`pause` is how many seconds the engine asks to be left alone."""
        super().__init__(model, problem, pause)

    @property
    def pause(self) -> float:
        """Seconds the engine asks to be left alone."""
        seconds: float = self.args[2]
        return seconds

    def __str__(self) -> str:
        model, problem, _ = self.args
        return f"model {model!r}: {problem}"


class NoEngine(SageError):
    """No engine of a model can serve at present."""

    def __init__(self, model: str, problem: str, retry_after: float | None = None) -> None:
        super().__init__(model, problem, retry_after)

    @property
    def retry_after(self) -> float | None:
        """Seconds after which an engine is tried again; None when nothing is planned."""
        seconds: float | None = self.args[2]
        return seconds

    def __str__(self) -> str:
        model, problem, retry_after = self.args
        later = f"; try again in {retry_after:.0f} s" if retry_after else ""
        return f"model {model!r} has no engine: {problem}{later}"


class RequestRejected(SageError):
    """The control plane refused or shed a request; `retry_after` is in seconds, None means never."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason, retry_after)

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the same request has a chance, or None."""
        after: float | None = self.args[1]
        return after

    def __str__(self) -> str:
        reason, after = self.args
        return f"request rejected: {reason}" + (f"; retry after {after:.1f} s" if after is not None else "")


class EngineHostError(SageError):
    """The engine-host process cannot be started, or died; names its log."""

    def __init__(self, problem: str, log: str = "") -> None:
        super().__init__(problem, log)

    def __str__(self) -> str:
        problem, log = self.args
        return f"engine host: {problem}" + (f"\n  help: its output is in {log}" if log else "")


class PortTaken(SageError):
    """A TCP port that SAGE wants is held by another process."""

    def __init__(self, name: str, port: int, holder: str) -> None:
        super().__init__(name, port, holder)

    def __str__(self) -> str:
        name, port, holder = self.args
        return (
            f"port {port} ({name}) is taken by {holder}\n"
            f"  help: stop it, or set [ports] {name} = N in sage.toml or SAGE_PORT_{name.upper()}=N"
        )


class RunFailed(SageError):
    """A run ended without its outputs; names the run so that it can be resumed."""

    def __init__(self, run: str, problem: str) -> None:
        super().__init__(run, problem)

    def __str__(self) -> str:
        run, problem = self.args
        return f"run {run} failed: {problem}\n  help: mend the cause, then: sage runs resume {run}"


class Interrupted(SageError):
    """The user stopped the command; what was finished is kept."""

    exit_code = 130

    def __init__(self, run: str) -> None:
        super().__init__(run)

    def __str__(self) -> str:
        return f"interrupted; finished work is kept\n  help: sage runs resume {self.args[0]}"
