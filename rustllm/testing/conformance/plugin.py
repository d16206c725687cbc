"""What every `rustllm.Plugin` and `rustllm.Token` has to do."""

from __future__ import annotations

import threading
from typing import Any

from rustllm.testing.conformance.base import Conformance
from rustllm.traits import Plugin, PluginLike, Token, TokenLike

__all__ = ["PluginConformance", "TokenConformance"]


class PluginConformance(Conformance[Plugin[Any]]):
    """Checks for plugins. `make` returns a new one each time, `context` what it is set up with."""

    def context(self) -> Any:
        """Return a new context."""
        from unittest.mock import MagicMock

        return MagicMock()

    def test_it_fits_the_protocol(self) -> None:
        plugin = self.make()
        assert isinstance(plugin, Plugin)
        assert isinstance(plugin, PluginLike)

    def test_it_can_be_set_up_started_and_stopped(self) -> None:
        plugin = self.make()
        plugin.setup(self.context())
        plugin.start()
        plugin.stop()

    def test_it_can_be_stopped_without_having_been_started(self) -> None:
        plugin = self.make()
        plugin.setup(self.context())
        plugin.stop()

    def test_setup_starts_no_thread_and_stop_ends_all(self) -> None:
        before = set(threading.enumerate())
        plugin = self.make()
        plugin.setup(self.context())
        assert set(threading.enumerate()) <= before
        plugin.start()
        plugin.stop()
        for thread in set(threading.enumerate()) - before:
            thread.join(timeout=10)
            assert not thread.is_alive(), f"{thread.name} is still running"

    def test_a_second_instance_works_like_the_first(self) -> None:
        for _ in range(2):
            self.test_it_can_be_set_up_started_and_stopped()


class TokenConformance(Conformance[Token]):
    """Checks for tokens."""

    def test_it_is_a_token_by_class_and_by_protocol(self) -> None:
        token = self.make()
        assert isinstance(token, Token)
        assert isinstance(token, TokenLike)

    def test_it_stands_for_its_id_and_bytes(self) -> None:
        token = self.make()
        assert token.id >= 0
        assert int(token) == token.id
        assert range(token.id + 1)[token] == token.id
        assert token.text == token.to_bytes().decode("utf-8", "replace")
        assert isinstance(token.is_special, bool)

    def test_equal_tokens_are_equal_and_hash_alike(self) -> None:
        token, again = self.make(), self.make()
        assert token == again
        assert hash(token) == hash(again)
        assert token != token.id
