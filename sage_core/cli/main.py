"""The `sage` command: the table of core commands, and the one place where errors become exit codes."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence

import click

from sage_core import __version__
from sage_core.cli.app import App
from sage_core.cli.lazy import Entry, LazyGroup
from sage_core.common.errors import InvalidWorkflow, SageError
from sage_core.common.registry import Registry

#: Unix's statuses for a defect in the program, an interrupt, and a reader that closed the pipe.
DEFECT, INTERRUPTED, READER_LEFT = 70, 130, 141

COMMANDS = {
    "Workflows": {
        "run": Entry("sage_core.cli.run:run", "Run WORKFLOW and print its outputs."),
        "check": Entry(
            "sage_core.cli.check:check",
            "Report every error of WORKFLOW as ``file:line:column: message``; needs no parameter values.",
        ),
        "plan": Entry(
            "sage_core.cli.plan:plan",
            "Show, step by step, what a run of WORKFLOW would reuse and what it would do; writes no run.",
        ),
        "graph": Entry(
            "sage_core.cli.graph:graph", "Draw the steps of WORKFLOW by grain, and what flows between them."
        ),
        "runs": Entry("sage_core.cli.runs:runs", "List, show, resume, redrive, fork and prune runs of this project."),
        "jobs": Entry("sage_core.cli.jobs:jobs", "List, show, cancel and redrive jobs; failed ones stay listed."),
        "queues": Entry("sage_core.cli.queues:queues", "List, pause and resume queues."),
        "worker": Entry(
            "sage_core.cli.worker:worker",
            "Serve queues on this machine: start workers as they are needed, and finish the runs they work on.",
        ),
        "nodes": Entry(
            "sage_core.cli.nodes:nodes",
            "List the nodes of the cluster, and what of them is in use: machines on which `sage worker` runs, or ran.",
        ),
        "deploy": Entry("sage_core.cli.deploy:deploy", "Keep WORKFLOW in the job store, with its schedules."),
        "invoke": Entry("sage_core.cli.invoke:invoke", "Queue a run of the deployment NAME and print its id."),
        "schedules": Entry(
            "sage_core.cli.schedules:schedules", "List, pause, resume and backfill schedules, and have them fired."
        ),
        "tick": Entry("sage_core.cli.tick:tick", "Fire what is due, start workers where jobs wait, and leave."),
        "schema": Entry("sage_core.cli.schema:schema", "Print the JSON Schema of workflow files, for editors."),
    },
    "Plugins and models": {
        "plugins": Entry("sage_core.cli.plugins:plugins", "List, show, install and uninstall plugins."),
        "models": Entry("sage_core.cli.models:models", "List models, and add one."),
    },
    "Requests": {
        "explain": Entry("sage_core.cli.explain:explain", "Tell what the control plane decided, and why."),
        "replay": Entry(
            "sage_core.cli.replay:replay",
            "Decide again, with a fresh control plane, all of the recording FILE, and compare with the decision log.",
        ),
    },
    "This installation": {
        "doctor": Entry("sage_core.cli.doctor:doctor", "Examine the installation and say what is wrong with it."),
        "version": Entry("sage_core.cli.version:version", "Print the versions that matter in a report."),
    },
}

HELP = """Describe an LLM or embedding pipeline in one TOML file, and run it durably.

\b
Examples:
  sage check workflow.toml
  sage run workflow.toml --param question="What is a fence?"
  sage runs list
"""

EPILOG = """\b
Exit codes:
  0    done
  1    failed, for the reason printed
  2    the command line, a workflow or sage.toml is wrong
  70   a defect in SAGE or in a plugin (a traceback is printed)
  130  interrupted; finished work is kept
  141  the reader of the output closed the pipe

\b
Environment:
  SAGE_HOME         keep runs, models and sockets below this folder
  SAGE_CONFIG       use this sage.toml
  SAGE_PLUGINS      load only these plugins (comma-separated; empty: none)
  SAGE_LOG          text or json: log on stderr; what workers log is json too
  SAGE_TRACE_HOOKS  1 prints every plugin hook call
"""


def make_cli(app: App) -> click.Group:
    """Return the root command, bound to one process's `App`."""

    def plugin_commands() -> Registry:
        return app.host.commands

    return LazyGroup(
        name="sage",
        core=COMMANDS,
        plugins=plugin_commands,
        help=HELP,
        epilog=EPILOG,
        params=[
            click.Option(
                ["--version"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_version,
                help="Print SAGE's version.",
            )
        ],
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def run(arguments: Sequence[str], app: App | None = None) -> int:
    """Run one command line and return its exit status; every failure is explained on stderr."""
    app = app or App()
    cli = make_cli(app)
    try:
        if os.environ.get("SAGE_LOG"):
            # Without a wish for logs, standard error is for people, and `sage --version` is spared the import.
            from sage_core.common.telemetry import log_to_stderr  # noqa: PLC0415 - see above

            log_to_stderr()
        with cli.make_context("sage", list(arguments), obj=app) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except InvalidWorkflow as error:
        # Diagnostics start with file:line:column, which editors parse: no prefix.
        click.echo(str(error), err=True)
        return error.exit_code
    except SageError as error:
        click.echo(f"Error: {error}", err=True)
        return error.exit_code
    except click.Abort:
        click.echo("Aborted.", err=True)
        return 1
    except KeyboardInterrupt:
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last line of defence: whatever is left is a defect, and says so
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            _close_stdout()
            return READER_LEFT
        traceback.print_exc()
        click.echo("\nError: this is a defect in SAGE or in a plugin; please report it with the lines above.", err=True)
        return DEFECT
    return 0


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))


def _version(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(f"sage {__version__}")
        context.exit()


def _close_stdout() -> None:
    # The interpreter flushes stdout once more at exit and would complain about the closed pipe.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
