"""A request on its way through a server."""

from __future__ import annotations

from neupims_sim.serving.blocks import BlockKey, Content


class ServedRequest:
    """One request: what it asks for, how far it is, and when.

    Times are integers of the serving clock (picoseconds).

    Attributes
    ----------
    number: position in the file, or order of arrival where requests are drawn.
    computed: tokens whose K and V are in the cache.
    produced: output tokens so far.
    cached: prompt tokens that the prefix cache had when it was first admitted; None before.
    blocks: that hold its K and V, in the order of its tokens.
    keys: of its complete blocks that are published, as many as were asked for so far.
    first_scheduled_at, first_token_at, ended_at: None before.
    """

    __slots__ = (
        "arrived_at",
        "blocks",
        "cached",
        "channel",
        "computed",
        "content",
        "ended_at",
        "first_scheduled_at",
        "first_token_at",
        "keys",
        "last_token_at",
        "number",
        "output_tokens",
        "preemptions",
        "produced",
        "prompt_tokens",
    )

    def __init__(self, number: int, arrived_at: int, prompt_tokens: int, output_tokens: int, content: Content) -> None:
        self.number = number
        self.arrived_at = arrived_at
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.content = content
        self.computed = 0
        self.produced = 0
        self.cached: int | None = None
        self.preemptions = 0
        self.blocks: list[int] = []
        self.keys: list[BlockKey] = []
        self.channel: int | None = None
        self.first_scheduled_at: int | None = None
        self.first_token_at: int | None = None
        self.last_token_at: int | None = None
        self.ended_at: int | None = None

    @property
    def known_tokens(self) -> int:
        """Prompt and outputs so far."""
        return self.prompt_tokens + self.produced

    @property
    def most_cached_tokens(self) -> int:
        """K and V at its end; the last output is never computed."""
        return self.prompt_tokens + self.output_tokens - 1

    def key(self, index: int, block_size: int) -> BlockKey:
        """The key of its complete block ``index``."""
        while len(self.keys) <= index:
            parent = self.keys[-1] if self.keys else b""
            self.keys.append(self.content.block_key(parent, len(self.keys), block_size))
        return self.keys[index]
