"""Hooks: order, isolation, swapping while they are called."""

import threading

import pytest

from rustllm._core.hooks import Hook
from rustllm.errors import PluginError
from rustllm.plugins.hooks import HookTable


def test_results_come_in_order_without_those_that_say_nothing():
    hook = Hook("h")
    hook.set([("a", lambda x: x + 1), ("b", lambda x: None), ("c", lambda x: x * 2)])
    assert hook(5) == [6, 10]
    assert hook.first(5) == 6
    assert len(hook) == 3
    assert [owner for owner, _ in hook.implementations] == ["a", "b", "c"]


def test_a_hook_without_implementations_is_false_and_returns_nothing():
    hook = Hook("h")
    assert (hook(1, 2, 3), hook.first(), bool(hook), hook.implementations) == ([], None, False, ())


def test_without_isolation_the_error_reaches_the_caller_with_a_note():
    hook = Hook("h")
    hook.set([("acme", lambda: 1 // 0)])
    with pytest.raises(ZeroDivisionError) as caught:
        hook()
    assert caught.value.__notes__ == ["raised in hook 'h' by plugin 'acme'"]


def test_with_isolation_the_others_are_called_all_the_same():
    told = []
    hook = Hook("h", lambda owner, error: told.append((owner, type(error))))
    hook.set([("bad", lambda: 1 // 0), ("good", lambda: 7)])
    assert hook() == [7]
    assert hook.first() == 7
    assert told == [("bad", ZeroDivisionError)] * 2


def test_signals_are_never_isolated():
    def interrupt():
        raise KeyboardInterrupt

    hook = Hook("h", lambda owner, error: None)
    hook.set([("a", interrupt)])
    with pytest.raises(KeyboardInterrupt):
        hook()


def test_what_cannot_be_called_is_refused_and_the_old_ones_stay():
    hook = Hook("h")
    hook.set([("a", lambda: 1)])
    with pytest.raises(TypeError):
        hook.set([("b", 5)])
    with pytest.raises((TypeError, ValueError)):
        hook.set([("b",)])
    assert hook() == [1]


def test_an_implementation_may_replace_the_implementations_that_are_being_called():
    hook = Hook("h")
    seen = []

    def swap():
        hook.set([])
        seen.append("swap")

    hook.set([("a", swap), ("b", lambda: seen.append("b"))])
    hook()
    assert seen == ["swap", "b"]
    assert hook() == []


def test_a_call_sees_all_old_or_all_new_implementations_in_eight_threads():
    hook = Hook("h")
    sets = [[(str(k), lambda k=k: k)] * (k + 1) for k in range(4)]
    hook.set(sets[0])
    wrong = []
    done = threading.Event()

    def call():
        while not done.is_set():
            result = hook()
            if result != [result[0]] * (result[0] + 1):
                wrong.append(result)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for thread in callers:
        thread.start()
    for i in range(4000):
        hook.set(sets[i % 4])
    done.set()
    for thread in callers:
        thread.join(60)
    assert not wrong


def table(limit=3):
    told = []
    return HookTable(lambda *args: told.append(args), limit), told


def test_priorities_go_first_and_ties_in_the_order_of_starting():
    hooks, _ = table()
    hook = hooks.get("h")
    hooks.publish("a", [("h", 0, lambda: "a")])
    hooks.publish("b", [("h", 5, lambda: "b"), ("other", 0, int)])
    hooks.publish("c", [("h", 0, lambda: "c")])
    assert hook() == ["b", "a", "c"]
    hooks.remove("b")
    assert hook() == ["a", "c"]
    assert hooks.get("other")() == []


def test_a_definition_refuses_functions_that_cannot_be_called_that_way():
    hooks, _ = table()

    def like(text, n):
        """What the hook looks like."""

    hooks.define("h", like, True)
    hooks.check("p", "h", lambda a, b, c=1: None)
    hooks.check("p", "h", lambda *args: None)
    hooks.check("p", "undefined", lambda: None)
    for wrong in (lambda a: None, lambda a, b, c: None, lambda a, b, *, c: None):
        with pytest.raises(PluginError, match="hook h"):
            hooks.check("p", "h", wrong)
    with pytest.raises(PluginError, match="already"):
        hooks.define("h", like, True)


def test_the_last_straw_is_told_once():
    hooks, told = table(limit=2)
    hooks.publish("p", [("h", 0, lambda: 1 // 0)])
    hook = hooks.get("h")
    for _ in range(3):
        hook()
    assert [last for *_, last in told] == [False, True, False]


def test_defining_without_isolation_lets_errors_through():
    hooks, told = table()
    hook = hooks.define("h", None, False)
    hooks.publish("p", [("h", 0, lambda: 1 // 0)])
    with pytest.raises(ZeroDivisionError):
        hook()
    assert not told
