"""Plugins and manifests for the tests."""

from rustllm.traits import Plugin


def manifest(plugin, version="1.0", **keys):
    return {"api": "1", "id": plugin, "version": version, **keys}


class Recorder(Plugin):
    """Writes down what is done to it; does what it is told to."""

    def __init__(self, log=None, *, fail_in=(), setup=None, name="r"):
        self.log = [] if log is None else log
        self.fail_in = fail_in
        self.on_setup = setup
        self.name = name
        self.context = None

    def _do(self, step):
        self.log.append((self.name, step))
        if step in self.fail_in:
            raise ValueError(f"{step} of {self.name}")

    def setup(self, context):
        self.context = context
        if self.on_setup is not None:
            self.on_setup(context)
        self._do("setup")

    def start(self):
        self._do("start")

    def stop(self):
        self._do("stop")


def write_plugin(folder, plugin, code="", *, version="1.0", extra=""):
    """Write a plugin into a folder; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rustllm-plugin.toml").write_text(
        f'api = "1"\nid = "{plugin}"\nversion = "{version}"\n{extra}'
    )
    if code:
        (folder / "code.py").write_text(code)
    return folder
