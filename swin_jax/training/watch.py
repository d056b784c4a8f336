"""The watch over the other hosts of a run: none dies, hangs or fails without all of them ending with a sentence.

Every host tells the coordinator once a second that it lives and what it is doing, and reads what the others told.
Two threads do this besides the loop, which only notes what it begins: one talks, one looks at the clock, so that a
coordinator that does not answer is noticed as well. When host 0 dies, its connections break and jax's own runtime
aborts the process before any Python can run; a second, tiny process then says the sentence in its place.
"""

import atexit
import contextlib
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np

from swin_jax.training.hosts import HostsError, Request, client, leave

INTERVAL = 1.0  # seconds between two signs of life
AGAIN = "start all hosts again with the same command: the run goes on from its newest checkpoint"
# What the second process runs: it prints what it was told, unless it was told that all is well.
LAST_WORDS = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)
words = sys.stdin.read().split("\\n")
if words[-1] != "well": print(words[0], file=sys.stderr, flush=True)
"""


class Watch:
    """What a host tells the others, and its judgement of them. With no others (`joined` False) it does nothing."""

    def __init__(self, request: Request, *, joined: bool) -> None:
        self._request = request
        self._index, self._count = (jax.process_index(), jax.process_count()) if joined else (0, 1)
        self._name = socket.gethostname()
        self._does, self._since = "prepares", time.monotonic()
        self._over = threading.Event()
        # Of every host: its last sign of life, and by our clock when it came.
        self._beats: dict[int, dict[str, Any]] = {}
        self._heard = {host: time.monotonic() for host in range(self._count)}
        self._answered = time.monotonic()
        self._ended: dict[int, str] = {}
        if self._count > 1:
            self._line = client()
            self._last_words = _say_at_death(self._lost())
            for target in (self._talk, self._judge):
                threading.Thread(target=target, daemon=True).start()

    def note(self, what: str) -> None:
        """Says what this host begins to do. Too long between two notes is a stall."""
        self._does, self._since = what, time.monotonic()

    def follow(
        self, batches: Iterator[Mapping[str, np.ndarray]], what: str, first: int
    ) -> Iterator[Mapping[str, np.ndarray]]:
        """Hands on `batches`, noting for each that it is read and then used, numbered from `first`."""
        for number in itertools.count(first):
            self.note(f"reads the batch of {what} {number}")
            batch = next(batches, None)
            if batch is None:
                return
            self.note(f"computes {what} {number}")
            yield batch

    def close(self) -> None:
        """Ends the watch when all hosts have come to the end."""
        if self._count == 1:
            return
        self.note("has come to the end and waits for the others")
        try:
            self._line.wait_at_barrier("swin_jax/end", int(self._request.stall_timeout * 1000))
        except RuntimeError as error:
            raise HostsError(f"not all hosts came to the end; {AGAIN}") from error
        self._over.set()
        jax.distributed.shutdown()
        self._be_silent()

    def fail(self, error: BaseException) -> None:
        """Tells the others why this host ends. Its process then leaves without waiting for them."""
        if self._count == 1:
            return
        if isinstance(error, jax.errors.JaxRuntimeError):
            # Most likely what a dead host looks like from here: the watch knows better which, and ends us.
            time.sleep(self._request.heartbeat_timeout + 3 * INTERVAL)
        self._over.set()
        self._be_silent()
        self._tell(str(error) or type(error).__name__)
        self._linger()
        # The interpreter would wait for threads that wait for the other hosts.
        atexit.register(leave)
        threading.Thread(target=lambda: (time.sleep(20), leave()), daemon=True).start()

    def _talk(self) -> None:
        mine = f"swin_jax/beat/{self._index}"
        for number in itertools.count():
            if self._over.wait(INTERVAL * max(1.0, self._count / 64)):
                return
            since = time.monotonic() - self._since
            beat = {"number": number, "name": self._name, "does": self._does, "seconds": since}
            with contextlib.suppress(RuntimeError):  # no answer: the judge counts the seconds
                self._line.key_value_set(mine, json.dumps(beat), allow_overwrite=True)
                beats = _by_host(self._line.key_value_dir_get("swin_jax/beat/"))
                ended = _by_host(self._line.key_value_dir_get("swin_jax/ended/"))
                now = self._answered = time.monotonic()
                for host, text in beats.items():
                    if (told := json.loads(text)) != self._beats.get(host):
                        self._beats[host], self._heard[host] = told, now
                self._ended.update(ended)

    def _judge(self) -> None:
        while not self._over.wait(INTERVAL / 4):
            if sentence := self._found():
                self._end(sentence)

    def _found(self) -> str | None:
        """What is wrong with the run, None when nothing is."""
        now = time.monotonic()
        patience, longest = self._request.heartbeat_timeout, self._request.stall_timeout
        for host, reason in self._ended.items():
            if host != self._index:
                return f"{self._called(host)} ended the run: {reason}"
        if now - self._answered > patience:
            return f"{self._called(0)}, the coordinator, has not answered for {patience} s; {AGAIN}"
        for host, heard in self._heard.items():
            if host != self._index and now - heard > patience:
                return f"{self._called(host)} has given no sign of life for {patience} s; {AGAIN}"
        if now - self._since > longest:
            doing = [
                f"{self._called(host)} {beat['does']} since {beat['seconds'] + now - self._heard[host]:.0f} s"
                for host, beat in sorted(self._beats.items())
            ]
            return f"nothing has moved for {longest} s: {', '.join(doing[:8])}; {AGAIN}"
        return None

    def _called(self, host: int) -> str:
        name = self._beats.get(host, {}).get("name")
        return f"host {host} ({name})" if name else f"host {host}"

    def _end(self, sentence: str) -> NoReturn:
        """Ends this process with `sentence`, from the watch's own thread: the loop may never come back."""
        print(f"error: {sentence}", file=sys.stderr, flush=True)
        self._be_silent()
        if not self._ended:
            self._tell(sentence)
        self._linger()
        leave()

    def _tell(self, sentence: str) -> None:
        """Lets the others know why this host ends."""
        words = " ".join(sentence.split())[:1000]
        telling = threading.Thread(
            target=lambda: self._line.key_value_set(f"swin_jax/ended/{self._index}", words), daemon=True
        )
        telling.start()
        telling.join(INTERVAL)

    def _linger(self) -> None:
        """Host 0 leaves last: what the hosts tell one another lies there, and without it jax aborts the others."""
        if self._index == 0:
            time.sleep(3 * INTERVAL)

    def _lost(self) -> str:
        return (
            f"error: host {self._index} ({self._name}) of {self._count} has ended without a word: it was killed, or "
            f"the connection to host 0, the coordinator, broke; {AGAIN}"
        )

    def _be_silent(self) -> None:
        """Takes the last words back: a sentence has been said, or all is well."""
        stream = self._last_words.stdin
        assert stream is not None
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            stream.write(b"\nwell")
            stream.close()
            self._last_words.wait(INTERVAL)


def _by_host(pairs: list[tuple[str, str]]) -> dict[int, str]:
    return {int(key.rpartition("/")[2]): text for key, text in pairs}


def _say_at_death(words: str) -> "subprocess.Popen[bytes]":
    """A process that says `words` on our stderr when this one dies without taking them back."""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", LAST_WORDS], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(words.encode())
    process.stdin.flush()
    return process


def alone() -> Watch:
    """The watch of a process that has joined no others."""
    return Watch(Request(), joined=False)


@contextlib.contextmanager
def watching(request: Request, *, joined: bool) -> Iterator[Watch]:
    """A watch over what is done within; an error that leaves it reaches all hosts as a sentence."""
    watch = Watch(request, joined=joined)
    try:
        yield watch
    except BaseException as error:
        watch.fail(error)
        raise
    watch.close()
