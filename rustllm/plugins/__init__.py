"""Plugins: manifests, a resolver that explains itself, lifecycle, registry, hooks and channels.

The names below are imported on first use, so that looking one provider up stays cheap.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

_PUBLIC = {
    "Candidate": "discovery",
    "Channel": "channels",
    "Counters": "channels",
    "Hook": "hooks",
    "Leftovers": "scope",
    "Lock": "trust",
    "Manifest": "manifest",
    "PluginContext": "scope",
    "PluginHandle": "scope",
    "PluginInfo": "records",
    "PluginManager": "manager",
    "Provider": "registry",
    "Provision": "manifest",
    "Refusal": "resolver",
    "Registry": "registry",
    "Request": "requests",
    "RequestChannel": "requests",
    "Resolution": "resolver",
    "StartReport": "records",
    "State": "lifecycle",
    "Subscription": "channels",
    "default_manager": "builtin",
    "lookup": "builtin",
    "names": "builtin",
    "parse_manifest": "manifest",
    "read_manifest": "manifest",
}

__all__ = list(_PUBLIC)

if TYPE_CHECKING:
    from rustllm.plugins.builtin import default_manager as default_manager
    from rustllm.plugins.builtin import lookup as lookup
    from rustllm.plugins.builtin import names as names
    from rustllm.plugins.channels import Channel as Channel
    from rustllm.plugins.channels import Counters as Counters
    from rustllm.plugins.channels import Subscription as Subscription
    from rustllm.plugins.discovery import Candidate as Candidate
    from rustllm.plugins.hooks import Hook as Hook
    from rustllm.plugins.lifecycle import State as State
    from rustllm.plugins.manager import PluginManager as PluginManager
    from rustllm.plugins.manifest import Manifest as Manifest
    from rustllm.plugins.manifest import Provision as Provision
    from rustllm.plugins.manifest import parse_manifest as parse_manifest
    from rustllm.plugins.manifest import read_manifest as read_manifest
    from rustllm.plugins.records import PluginInfo as PluginInfo
    from rustllm.plugins.records import StartReport as StartReport
    from rustllm.plugins.registry import Provider as Provider
    from rustllm.plugins.registry import Registry as Registry
    from rustllm.plugins.requests import Request as Request
    from rustllm.plugins.requests import RequestChannel as RequestChannel
    from rustllm.plugins.resolver import Refusal as Refusal
    from rustllm.plugins.resolver import Resolution as Resolution
    from rustllm.plugins.scope import Leftovers as Leftovers
    from rustllm.plugins.scope import PluginContext as PluginContext
    from rustllm.plugins.scope import PluginHandle as PluginHandle
    from rustllm.plugins.trust import Lock as Lock


def __getattr__(name: str) -> object:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
