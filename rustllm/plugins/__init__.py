"""Plugins: manifests, a resolver that explains itself, lifecycle, registry, hooks and channels.

The names below are imported on first use, so that looking one provider up stays cheap.
"""

from typing import TYPE_CHECKING

from rustllm._lazy import lazy_names

_PUBLIC = {
    "Candidate": "rustllm.plugins.discovery",
    "Channel": "rustllm.plugins.channels",
    "Counters": "rustllm.plugins.channels",
    "Hook": "rustllm.plugins.hooks",
    "Leftovers": "rustllm.plugins.scope",
    "Lock": "rustllm.plugins.trust",
    "Manifest": "rustllm.plugins.manifest",
    "PluginContext": "rustllm.plugins.scope",
    "PluginHandle": "rustllm.plugins.scope",
    "PluginInfo": "rustllm.plugins.records",
    "PluginManager": "rustllm.plugins.manager",
    "Provider": "rustllm.plugins.registry",
    "Provision": "rustllm.plugins.manifest",
    "Refusal": "rustllm.plugins.resolver",
    "Registry": "rustllm.plugins.registry",
    "Request": "rustllm.plugins.requests",
    "RequestChannel": "rustllm.plugins.requests",
    "Resolution": "rustllm.plugins.resolver",
    "StartReport": "rustllm.plugins.records",
    "State": "rustllm.plugins.lifecycle",
    "Subscription": "rustllm.plugins.channels",
    "default_manager": "rustllm.plugins.builtin",
    "lookup": "rustllm.plugins.builtin",
    "names": "rustllm.plugins.builtin",
    "parse_manifest": "rustllm.plugins.manifest",
    "read_manifest": "rustllm.plugins.manifest",
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

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
