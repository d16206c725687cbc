"""What the plugin does while it is active."""

from rustllm import Plugin
from rustllm_reverse.tokenizer import ReverseTokenizer


class ReversePlugin(Plugin):
    """Counts tokens for other plugins, over a channel, and lists its name on a hook."""

    def setup(self, context):
        tokenizer = ReverseTokenizer()
        # released by the manager when the plugin stops; nothing to undo by hand
        context.open_requests("example.reverse.count", str, int, handler=tokenizer.count)
        context.on_hook("tokenizer.names", lambda: tokenizer.name)
