"""What all commands share: flags, logs on stderr, and one clear sentence where the user can mend something."""

import contextlib
import ctypes
import difflib
import gc
import logging
import os
import platform
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NoReturn

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from swin_jax.config import config_fields
from swin_jax.training import hosts
from swin_jax.training.watch import Watch, watching

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h


def run(main: Callable[[Sequence[str]], None], *, takes_arguments: bool = False) -> None:
    """Parses the command line and runs `main`. Exit status 0 only on success, 2 for a wrong command line."""
    _keep_freed_memory()
    app.call_after_init(_quiet)
    app.call_after_init(keep_compiled)
    app.run(main, flags_parser=partial(_parse, takes_arguments=takes_arguments))


@cache
def config_flag() -> flags.FlagHolder[Any]:
    """--config and its --config.field flags; read its value with `config`."""
    return config_flags.DEFINE_config_file(
        "config", None, "Experiment: a file, or file:variant.", lock_config=True
    )


@cache
def workdir_flag() -> flags.FlagHolder[str]:
    """--workdir, which most commands have."""
    return flags.DEFINE_string("workdir", "", "Run directory: a local path or URL.")


@cache
def checkpoint_flag() -> flags.FlagHolder[str]:
    return flags.DEFINE_string("checkpoint", "best", 'Which checkpoint: "best", "newest" or a step.')


@cache
def weights_flag() -> flags.FlagHolder[str]:
    return flags.DEFINE_string("weights", "", "Weight file of any format, or run directory.")


@cache
def output_flag() -> flags.FlagHolder[str]:
    return flags.DEFINE_string("output", "", "Where to write; see above for what lies there then.")


@cache
def parameters_flag() -> flags.FlagHolder[str]:
    return flags.DEFINE_string(
        "parameters", "", '"plain", or "ema": their average; when empty the average, where the run keeps one.'
    )


@cache
def split_flag() -> flags.FlagHolder[str]:
    return flags.DEFINE_string("split", "", "Split of the run's data; see above for what happens without.")


@cache
def data_root_flag() -> flags.FlagHolder[str]:
    return flags.DEFINE_string("data_root", "", "Where the data are now, if not where the run had them.")


@cache
def platform_flag() -> flags.FlagHolder[str]:
    return flags.DEFINE_string("platform", "", '"cpu", "gpu" or "tpu"; this machine\'s default when empty.')


@cache
def batch_size_flag() -> flags.FlagHolder[int]:
    return flags.DEFINE_integer(
        "batch_size", 0, "Images of a batch; 0 leaves it to the command.", lower_bound=0
    )


@cache
def model_flag() -> flags.FlagHolder[str]:
    return flags.DEFINE_string(
        "model", "", "Published name of a model (swin_jax.summary lists them); see above for what without."
    )


@cache
def json_flag() -> flags.FlagHolder[bool]:
    return flags.DEFINE_bool("json", False, "One JSON object a line instead of a table.")


@cache
def multi_scale_flag() -> flags.FlagHolder[bool]:
    return flags.DEFINE_bool(
        "multi_scale", False, "Dense tasks: average over the scales of the config, plain and mirrored."
    )


@cache
def window_flag() -> flags.FlagHolder[int]:
    return flags.DEFINE_integer(
        "window",
        0,
        "Segmentation: side of a window that slides over the picture; 0: as the config has it.",
        lower_bound=0,
    )


@cache
def stages_flag() -> flags.FlagHolder[int]:
    return flags.DEFINE_integer(
        "stages",
        0,
        "Detection: how many stages of a cascade judge; 0: as the config has it.",
        lower_bound=0,
    )


@cache
def label_format_flag() -> flags.FlagHolder[str]:
    return flags.DEFINE_string(
        "label_format",
        "classes",
        'Segmentation: what label files hold: "classes", numbers from 0 with a palette, or "dataset", the data set\'s '
        "own values in grey, as test servers want them.",
    )


def inference_overrides() -> dict[str, Any]:
    """The config fields that --multi_scale, --window and --stages change."""
    changed: dict[str, Any] = {"evaluation.multi_scale": True} if multi_scale_flag().value else {}
    if side := window_flag().value:
        changed["evaluation.window"] = (side, side)
    if stages := stages_flag().value:
        changed["detection.test_stages"] = stages
    return changed


HOSTS = hosts.Request()


@cache
def hosts_flags() -> dict[str, flags.FlagHolder[Any]]:
    """The flags of commands that run on several hosts at once, by the fields of `hosts.Request`."""
    number, text = partial(flags.DEFINE_integer, lower_bound=1), flags.DEFINE_string
    told = "Several hosts, each told the same but its own --host_id; SLURM and TPU slices need none of these."
    return {
        "coordinator": text("coordinator", "", f"host:port of host 0. {told}"),
        "num_hosts": number("num_hosts", None, "How many hosts; 1 runs alone whatever the environment says."),
        "host_id": flags.DEFINE_integer("host_id", None, "Which of them this is, from 0.", lower_bound=0),
        "join_timeout": number("join_timeout", HOSTS.join_timeout, "Seconds to wait until all have joined."),
        "heartbeat_timeout": number(
            "heartbeat_timeout",
            HOSTS.heartbeat_timeout,
            "Seconds without a sign of life after which a host is dead.",
        ),
        "stall_timeout": number(
            "stall_timeout",
            HOSTS.stall_timeout,
            "Seconds without a step, batch or other progress that end the run.",
        ),
    }


@contextlib.contextmanager
def joined_hosts() -> Iterator[Watch]:
    """Joins the other hosts of the run, if there are any, and watches over them. To be entered before jax wakes up."""
    request = hosts.Request(**{name: flag.value for name, flag in hosts_flags().items()})
    with one_sentence(ValueError, hosts.HostsError):
        joined = hosts.join(request)
    if joined and not hosts.writer():
        logging.getLogger("swin_jax").setLevel(logging.WARNING)  # host 0 says what all would say
    with one_sentence(hosts.HostsError), watching(request, joined=joined) as watch:
        yield watch


def config(flag: flags.FlagHolder[Any]) -> Any:
    """The value of a config flag.

    Raises:
        ValueError: there is none, or its file cannot be loaded.
    """
    try:
        value = flag.value
        # A file that could not be loaded shows only when a field is asked for.
        return value if value is None else (value.task, value)[1]
    except OSError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(f"--config cannot be loaded: {lines[-1]}") from error


def _keep_freed_memory() -> None:
    """Tells glibc to keep the memory it is given back, up to blocks of 32 MiB, the most it allows.

    XLA on a CPU allocates the temporaries of every step anew. By default glibc hands them back to the kernel each
    time, which clears the pages again: a training step of a micro Swin took a quarter longer.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of glibc alone
    if mallopt is not None:
        for option, value in {M_MMAP_THRESHOLD: 2**25, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26}.items():
            mallopt(option, value)


def keep_compiled() -> None:
    """Programs that took a second and more to compile are kept for the next run, in the user's cache directory.

    JAX_COMPILATION_CACHE_DIR names another directory, JAX_ENABLE_COMPILATION_CACHE=false keeps nothing. CPUs with other
    instructions have directories of their own: a home directory may be shared.
    """
    if (
        jax.config.values["jax_compilation_cache_dir"]
        or not jax.config.values["jax_enable_compilation_cache"]
    ):
        return
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    directory = os.path.join(home, "swin_jax", f"compiled-{platform.machine()}-{_instructions():08x}")
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        say(f"compiled programs are not kept for the next run: {error}")
        return
    jax.config.update("jax_compilation_cache_dir", directory)


def _instructions() -> int:
    """A number for what this machine's CPU can do, where the system tells."""
    try:
        with open("/proc/cpuinfo") as lines:
            told = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        told = platform.processor()
    return zlib.crc32(told.encode())


def _quiet() -> None:
    """Our own log lines on stderr as they are. What goes wrong in a library reaches us as an exception."""
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("jax").setLevel(logging.ERROR)
    ours = logging.getLogger("swin_jax")
    ours.setLevel(logging.INFO)
    ours.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain())
    ours.addHandler(handler)


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        return level + record.getMessage()


def _parse(argv: Sequence[str], *, takes_arguments: bool) -> Sequence[str]:
    try:
        left = flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        fail(_explained(error, argv), status=2)
    if len(left) > 1 and not takes_arguments:
        fail(f"unexpected argument {left[1]!r}; every option is written --name=value", status=2)
    return left


def _explained(error: Exception, argv: Sequence[str]) -> str:
    """The error of the flag parser as one sentence; for an unknown config field with the nearest known one."""
    if isinstance(error, AttributeError | KeyError):
        for argument in argv[1:]:
            field = re.match(r"--?(?:no)?config\.([\w.]+)", argument)
            if field and (path := field.group(1)) not in (known := config_fields()):
                return unknown_field(path, known)
    text = str(error.args[0] if error.args else error)
    # An experiment file that refuses its variant reaches us as the text of its traceback.
    inner = re.findall(r"^\w*(?:Error|Exception): (.*)$", text, flags=re.MULTILINE)
    return inner[-1] if inner else " ".join(text.split())


def unknown_field(path: str, known: Sequence[str]) -> str:
    """The sentence for a config field that does not exist: the nearest one, or what its section holds."""
    close = difflib.get_close_matches(path, known, n=1, cutoff=0.75)
    section = path.rpartition(".")[0]
    beside = [name for name in known if name.rpartition(".")[0] == section]
    if close:
        hint = f"did you mean {close[0]!r}?"
    elif beside:
        hint = f"{section or 'its top level'} has {', '.join(name.rpartition('.')[2] for name in beside)}"
    else:
        hint = f"sections: {', '.join(sorted({name.split('.')[0] for name in known if '.' in name}))}"
    return f"the config has no field {path!r}; {hint}"


@contextlib.contextmanager
def one_sentence(*kinds: type[Exception]) -> Iterator[None]:
    """Within it, an error of these kinds (default ValueError) ends the command with its message alone.

    SWIN_JAX_TRACEBACK=1 shows the whole trace instead.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, kinds or ValueError) or os.environ.get("SWIN_JAX_TRACEBACK"):
            raise
        message = str(error)
        # What the failed work left behind complains when it is collected: now, and not after our sentence.
        error.__cause__ = error.__context__ = error.__traceback__ = None
        gc.collect()
        fail(message)


def say(message: str) -> None:
    """A remark for the person at the terminal: on stderr, beside the results on stdout."""
    print(message, file=sys.stderr, flush=True)


class Failed(SystemExit):
    """The end of a command after its one sentence, which it carries as its text."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(status)
        self._message = message

    def __str__(self) -> str:
        return self._message


def fail(message: str, *, status: int = 1) -> NoReturn:
    print(f"error: {message}", file=sys.stderr, flush=True)
    raise Failed(message, status)
