"""The workers behind `parallel_map`: threads, and processes each looked after by a thread.

Tasks go in through one queue and come out through another. Nothing here refers to the iterator that
the consumer holds, so that dropping it lets everything end.
"""

from __future__ import annotations

import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from rustllm._core.context import ErrorFrame, attach
from rustllm.errors import RustLLMError, StateError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from rustllm.parallel import _Task

Run = Callable[["_Task"], None]

_SIGNALS = "a negative code is a signal; -9 is what the system sends when memory is gone"
_GUARD = "a script has to start its work under `if __name__ == '__main__':`"

# An untimed wait for a lock hears Ctrl-C everywhere but on Windows.
_WAIT = 0.1 if sys.platform == "win32" else None


class WorkerGroup:
    """Up to `n` workers, started as tasks come in."""

    def __init__(
        self, function: Callable[[Any], Any], n: int, mode: str, start_method: str | None
    ) -> None:
        self._function = function
        self._n = n
        self._mode = mode
        self._start_method = start_method
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._done: SimpleQueue[_Task] = SimpleQueue()
        self._cancelled = threading.Event()
        self._threads: list[threading.Thread] = []
        self._remotes: list[_Remote] = []
        self._context = copy_context()

    def send(self, task: _Task) -> None:
        """Queue a task; starts one more worker while there are fewer than `n`."""
        if len(self._threads) < self._n:
            self._start_one()
        self._tasks.put(task)

    def receive(self) -> _Task:
        """Wait for the next task that is done."""
        while True:
            try:
                return self._done.get(timeout=_WAIT)
            except Empty:
                continue

    def stop(self, *, wait: bool) -> None:
        """Let the workers go; with `wait`, return when the last one is gone."""
        self._cancelled.set()
        for _ in self._threads:
            self._tasks.put(None)
        if not wait:
            for remote in self._remotes:
                remote.terminate()
            return
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def _start_one(self) -> None:
        run: Run
        close: Callable[[], None] | None = None
        if self._mode == "threads":
            run = _LocalRun(self._function, self._cancelled)
        else:
            remote = _Remote(self._function, self._start_method)
            self._remotes.append(remote)
            run, close = remote.run, remote.close
        thread = threading.Thread(
            target=self._context.copy().run,
            args=(_work, self._tasks, self._done, self._cancelled, run, close),
            name="rustllm-worker",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:  # the system has no thread to spare
            if close is not None:
                close()
            if not self._threads:
                raise
            self._n = len(self._threads)
            return
        self._threads.append(thread)


def _work(
    tasks: SimpleQueue[_Task | None],
    done: SimpleQueue[_Task],
    cancelled: threading.Event,
    run: Run,
    close: Callable[[], None] | None,
) -> None:
    try:
        while (task := tasks.get()) is not None:
            if not cancelled.is_set():
                try:
                    run(task)
                except BaseException as error:
                    task.error = error
            done.put(task)
    finally:
        if close is not None:
            close()


class _LocalRun:
    """Runs tasks in the thread that calls."""

    __slots__ = ("_cancelled", "_function")

    def __init__(self, function: Callable[[Any], Any], cancelled: threading.Event) -> None:
        self._function = function
        self._cancelled = cancelled

    def __call__(self, task: _Task) -> None:
        function = self._function
        results = task.results
        try:
            for item in task.items:
                if self._cancelled.is_set():
                    return
                results.append(function(item))
        except BaseException as error:
            note_position(error, task.start + len(results))
            task.error = error


class _Remote:
    """Runs tasks in a process of its own.

    One task is in the pipe at a time, so that the two sides never write to each other at once.
    """

    def __init__(self, function: Callable[[Any], Any], start_method: str | None) -> None:
        import multiprocessing

        if start_method is None:
            # Not fork: this process has threads, and their locks would be copied as they are.
            methods = multiprocessing.get_all_start_methods()
            start_method = "forkserver" if "forkserver" in methods else "spawn"
        context = multiprocessing.get_context(start_method)
        self._connection: Connection
        self._connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(theirs, function), daemon=True, name="rustllm-worker"
        )
        try:
            self._process.start()
        except BaseException as error:
            self._connection.close()
            if isinstance(error, BrokenPipeError | EOFError):
                raise StateError("a worker process could not start", hint=_GUARD) from error
            raise
        finally:
            theirs.close()

    def run(self, task: _Task) -> None:
        try:
            self._connection.send(task.items)
            results, error, trace = self._connection.recv()
        except (EOFError, ConnectionError) as gone:
            self._process.join(1)
            raise StateError(
                f"a worker process died with exit code {self._process.exitcode} at items "
                f"{task.start} to {task.start + len(task.items) - 1}",
                hint=_SIGNALS if (self._process.exitcode or 0) < 0 else _GUARD,
                exitcode=self._process.exitcode,
            ) from gone
        task.results.extend(results)
        if error is not None:
            note_position(error, task.start + len(results))
            error.add_note(f"in a worker process:\n{trace}")
            task.error = error

    def close(self) -> None:
        """Let the process end, and wait for it."""
        try:
            self._connection.send(None)
        except OSError:  # it is gone
            pass
        self._process.join()
        self._connection.close()

    def terminate(self) -> None:
        """End the process now; the thread that looks after it sees a closed pipe."""
        self._process.terminate()


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """Answer tasks in a worker process until told to end, or until the other side is gone."""
    import signal

    # Ctrl-C reaches every process of the terminal; the parent decides what becomes of this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            items = connection.recv()
        except (EOFError, ConnectionError):
            return
        if items is None:
            return
        results: list[Any] = []
        error: BaseException | None = None
        trace = ""
        try:
            for item in items:
                results.append(function(item))
        except BaseException as raised:
            error, trace = raised, traceback.format_exc()
        try:
            connection.send((results, error and _portable(error), trace))
        except ConnectionError:
            return
        except Exception as unsendable:
            connection.send(([], _portable(unsendable), traceback.format_exc()))


def _portable(error: BaseException) -> BaseException:
    """Return the error, or one that says the same if it does not survive pickling."""
    try:
        again = pickle.loads(pickle.dumps(error))
    except Exception:
        again = None
    if isinstance(again, BaseException):
        return error
    return RustLLMError(f"{type(error).__name__}: {error}", type=type(error).__qualname__)


def note_position(error: BaseException, index: int) -> None:
    """Say, as an error context does, which item an error belongs to."""
    attach(error, (ErrorFrame("mapping in parallel", {"item": index}),))
