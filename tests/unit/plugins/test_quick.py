"""The quick lookup gives what the manager gives, and steps aside where there are settings."""

import os
import subprocess
import sys

import pytest

from rustllm import plugins
from rustllm.errors import UnsupportedError
from rustllm.plugins import quick


def test_every_built_in_entry_is_what_the_manager_finds():
    for kind, name in quick._entries():
        assert quick.lookup(kind, name) is plugins.lookup(kind, name)


def test_an_unknown_name_is_explained_by_the_manager():
    with pytest.raises(UnsupportedError, match="no architecture 'nothing'"):
        quick.lookup("architecture", "nothing")


def test_no_manager_is_started_for_what_is_built_in():
    code = (
        "import sys; from rustllm.plugins.quick import lookup; lookup('architecture', 'llama');"
        "sys.exit('rustllm.plugins.builtin' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RUSTLLM_")}
    environment |= {"PYTHONPATH": ":".join(sys.path), "HOME": "/nowhere"}
    environment.pop("XDG_CONFIG_HOME", None)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    environment["RUSTLLM_PLUGINS_DISABLED"] = "acme.any"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode
