"""What all commands share: flags, logs on stderr, and one clear sentence where the user can mend something."""

import contextlib
import difflib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging


def run(main: Callable[[Sequence[str]], None], *, takes_arguments: bool = False) -> None:
    """Parses the command line and runs `main`. Exit status 0 only on success, 2 for a wrong command line."""
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)
    absl_logging.use_absl_handler()
    absl_logging.set_verbosity(absl_logging.WARNING)
    absl_logging.set_stderrthreshold("info")
    app.run(main, flags_parser=partial(_parse, takes_arguments=takes_arguments))


def _parse(argv: Sequence[str], *, takes_arguments: bool) -> Sequence[str]:
    try:
        left = flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        fail(_explained(error, argv), status=2)
    logging.getLogger("swin_jax").setLevel(logging.INFO)
    if len(left) > 1 and not takes_arguments:
        fail(f"unexpected argument {left[1]!r}; every option is written --name=value", status=2)
    return left


def _explained(error: Exception, argv: Sequence[str]) -> str:
    """The error of the flag parser as one sentence; for an unknown config field with the nearest known one."""
    text = " ".join(str(error.args[0] if error.args else error).split())
    for argument in argv[1:]:
        field = re.match(r"--?(?:no)?config\.([\w.]+)", argument)
        if field and isinstance(error, AttributeError | KeyError):
            known = _config_fields()
            path = field.group(1)
            if known and path not in known:
                close = difflib.get_close_matches(path, known, n=1, cutoff=0.4)
                hint = f"; did you mean config.{close[0]}?" if close else ""
                return f"the config has no field {path!r}{hint}"
    return text


def _config_fields() -> list[str]:
    from swin_jax.experiment import base_config

    def paths(node: object, prefix: str) -> Iterator[str]:
        for name, value in node.items():  # type: ignore[attr-defined]
            if hasattr(value, "items"):
                yield from paths(value, f"{prefix}{name}.")
            yield f"{prefix}{name}"

    return list(paths(base_config(), ""))


@contextlib.contextmanager
def one_sentence(*kinds: type[Exception]) -> Iterator[None]:
    """Within it, an error of these kinds (default ValueError) ends the command with its message alone.

    SWIN_JAX_TRACEBACK=1 shows the whole trace instead.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, kinds or ValueError):
            raise
        if os.environ.get("SWIN_JAX_TRACEBACK"):
            raise
        fail(str(error))


def say(message: str) -> None:
    """A remark for the person at the terminal: on stderr, beside the results on stdout."""
    print(message, file=sys.stderr, flush=True)


def fail(message: str, *, status: int = 1) -> NoReturn:
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(status)
