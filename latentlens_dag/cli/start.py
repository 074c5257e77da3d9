"""The first module of the command line: what it does of itself at Ctrl-C, from its own first import to the last.

The commands' own modules take a third of a second to import. Ctrl-C meanwhile, or while Python ends, would print a
traceback. Note: nothing but the standard library is imported above. Before this module, while
Python itself starts, nobody can help it.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any


def main() -> None:
    """Run the command line in a process of its own."""
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    report = sys.unraisablehook
    sys.unraisablehook = lambda hook: None if _is_interrupt(hook) else report(hook)
    try:
        signal.signal(signal.SIGINT, stop)
        from latentlens_dag.cli.main import main as run

        run()
    except SystemExit:
        raise
    except BaseException:  # an import may turn the interrupt into an error of its own
        if not received:
            raise
        print("Interrupted.", file=sys.stderr)  # noqa: T201 - click may not be there yet
        sys.exit(128 + signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command has ended; only Python has not


def _is_interrupt(hook: Any) -> bool:
    """Whether an interrupt came where Python cannot raise it; `main` finds it by its signal."""
    return isinstance(hook.exc_value, KeyboardInterrupt)


if __name__ == "__main__":
    main()
