"""``python -m sage_core.cli`` is ``sage`` of that interpreter, whatever is first on PATH."""

from sage_core.cli.main import main

main()
