"""The plugin as the host sees it."""

from __future__ import annotations

import subprocess
import sys

import sage_cron

from sage_core import Host
from sage_core.testing import PluginContract


class TestPlugin(PluginContract):
    plugin = sage_cron
    name = "cron"


def test_it_offers_one_trigger() -> None:
    assert Host({"cron": sage_cron}).contributions("cron") == {"triggers": ["cron"]}


def test_the_library_is_imported_only_when_a_time_is_asked_for() -> None:
    script = (
        "import sys, sage_cron; from sage_core import Host; host = Host({'cron': sage_cron});"
        "print('apscheduler' in sys.modules, host.triggers['cron'].__name__, 'apscheduler' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "Cron", "True"]
