"""What plugins cost: a hook call, a lookup, a start, a message; a peer beside each."""

import queue
import tempfile
import threading
from importlib import import_module
from pathlib import Path

from rustllm import Channel, PluginManager, Registry, VersionRange
from rustllm.plugins import RequestChannel, lookup
from rustllm.plugins.discovery import find_installed
from rustllm.plugins.hooks import Hook
from rustllm.plugins.manifest import parse_manifest
from rustllm.plugins.resolver import resolve

N_MESSAGES = 20_000


def need(module):
    """Import a peer; asv skips a benchmark whose setup raises NotImplementedError."""
    try:
        return import_module(module)
    except ImportError:
        raise NotImplementedError(f"{module} is not installed") from None


def implementation(x):
    return x


class HookCall:
    """One call of a hook from Python, against pluggy and against a plain loop of calls."""

    params = [0, 1, 10]
    param_names = ["implementations"]

    def setup(self, n):
        self.hook = Hook("f")
        self.hook.set([(str(i), implementation) for i in range(n)])
        self.functions = [implementation] * n

    def time_rustllm(self, n):
        self.hook(1)

    def time_plain_calls(self, n):
        [f(1) for f in self.functions]


class HookCallPluggy:
    """The same by pluggy."""

    params = [0, 1, 10]
    param_names = ["implementations"]

    def setup(self, n):
        pluggy = need("pluggy")
        spec, impl = pluggy.HookspecMarker("bench"), pluggy.HookimplMarker("bench")

        class Spec:
            @spec
            def f(self, x):
                """A hook."""

        class Plugin:
            @impl
            def f(self, x):
                return x

        manager = pluggy.PluginManager("bench")
        manager.add_hookspecs(Spec)
        for _ in range(n):
            manager.register(Plugin())
        self.hook = manager.hook.f

    def time_pluggy(self, n):
        self.hook(x=1)


class Lookup:
    """Finding what a name stands for."""

    def setup(self):
        self.registry = Registry()
        with self.registry.transaction("bench") as stage:
            for i in range(100):
                stage.add("kind", f"name{i}", i)
        lookup("loader", "gguf")

    def time_registry_get(self):
        self.registry.get("kind", "name50")

    def time_built_in_lookup(self):
        lookup("loader", "gguf")


class Discovery:
    """Finding the plugins among this environment's distributions, against what peers do."""

    def time_rustllm(self):
        list(find_installed())

    def time_importlib_metadata(self):
        from importlib.metadata import entry_points

        entry_points(group="rustllm.plugins")


class DiscoveryStevedore:
    """The same by stevedore, with its cache on disk and without."""

    params = [True, False]
    param_names = ["disk_cache"]

    def setup(self, disk_cache):
        self.cache = need("stevedore._cache").Cache()
        self.folder = tempfile.TemporaryDirectory()
        self.cache._dir = self.folder.name
        self.cache._disable_caching = not disk_cache
        self.cache.get_group_all("rustllm.plugins")

    def teardown(self, disk_cache):
        self.folder.cleanup()

    def time_stevedore(self, disk_cache):
        self.cache._internal.clear()  # what it keeps in memory, as a new process would not have it
        self.cache.get_group_all("rustllm.plugins")


class Start:
    """Bringing plugins up and down again."""

    params = [1, 10, 100]
    param_names = ["plugins"]

    def setup(self, n):
        self.folder = tempfile.TemporaryDirectory()
        for i in range(n):
            folder = Path(self.folder.name, f"p{i}")
            folder.mkdir()
            (folder / "rustllm-plugin.toml").write_text(
                f'api = "1"\nid = "p{i}"\nversion = "1.0"\n'
                + (f'requires = {{ p{i - 1} = ">=1" }}\n' if i else "")
                + f'[[provides]]\nkind = "k"\nname = "p{i}"\nentry = "code:x"\n'
            )

    def teardown(self, n):
        self.folder.cleanup()

    def time_discover_resolve_start_stop(self, n):
        with PluginManager(safe_mode=False) as manager:
            manager.discover(installed=False, folders=[self.folder.name])
            manager.start()


class Resolve:
    """Ordering plugins that need each other in a long chain."""

    params = [100, 1000]
    param_names = ["plugins"]

    def setup(self, n):
        self.manifests = {}
        for i in range(n):
            raw = {"api": "1", "id": f"p{i}", "version": "1.0"}
            if i:
                raw["requires"] = {f"p{i - 1}": ">=1,<2"}
            self.manifests[raw["id"]] = parse_manifest(raw)

    def time_resolve(self, n):
        resolve(self.manifests, host={})


class Channels:
    """Messages in one thread and from one thread to another, against the standard queue."""

    timeout = 120

    def setup(self):
        self.channel = Channel("c", int, capacity=1024)
        self.subscription = self.channel.subscribe()
        self.queue = queue.Queue(1024)

    def time_publish_and_receive(self):
        self.channel.publish(1)
        self.subscription.receive()

    def time_queue_put_and_get(self):
        self.queue.put(1)
        self.queue.get()

    def time_20000_across_threads(self):
        def publish():
            for i in range(N_MESSAGES):
                self.channel.publish(i)

        thread = threading.Thread(target=publish)
        thread.start()
        for _ in range(N_MESSAGES):
            self.subscription.receive()
        thread.join()

    def time_queue_20000_across_threads(self):
        def put():
            for i in range(N_MESSAGES):
                self.queue.put(i)

        thread = threading.Thread(target=put)
        thread.start()
        for _ in range(N_MESSAGES):
            self.queue.get()
        thread.join()


class Requests:
    """A question and its answer across threads, against two queues."""

    def setup(self):
        self.channel = RequestChannel("r", int, int)
        self.server = threading.Thread(target=self.channel.serve, args=(abs,))
        self.server.start()
        self.questions, self.answers = queue.Queue(), queue.Queue()
        self.peer = threading.Thread(target=self._serve)
        self.peer.start()

    def _serve(self):
        while (question := self.questions.get()) is not None:
            self.answers.put(abs(question))

    def teardown(self):
        self.channel.close()
        self.server.join()
        self.questions.put(None)
        self.peer.join()

    def time_request(self):
        self.channel.request(-1, timeout=10)

    def time_two_queues(self):
        self.questions.put(-1)
        self.answers.get()


class Ranges:
    """Is a version in a range? Against packaging."""

    def setup(self):
        self.mine = VersionRange(">=1.2,<2,!=1.5.*")
        specifiers = need("packaging.specifiers")
        self.theirs = specifiers.SpecifierSet(">=1.2,<2,!=1.5.*")

    def time_rustllm(self):
        self.mine.contains("1.9.1")

    def time_packaging(self):
        self.theirs.contains("1.9.1")

    def time_rustllm_parse(self):
        VersionRange(">=1.2,<2,!=1.5.*")

    def time_packaging_parse(self):
        type(self.theirs)(">=1.2,<2,!=1.5.*")
