"""Room for K and V as blocks of tokens, shared by requests that begin alike (paged attention with a prefix cache).

The order in which free blocks are taken decides what the prefix cache still holds, so it is kept exactly: new blocks come from
the front of the free queue; when a request gives its blocks back, the last first, one that holds a complete cached block goes
to the end and any other to the front; a hit takes a free block out of the queue.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

BlockKey = bytes
"""Identity of a block's content and of everything before it."""


class Content(Protocol):
    """What the tokens of a request are, as far as blocks of equal content are to be found."""

    def block_key(self, parent: BlockKey, index: int, block_size: int) -> BlockKey:
        """The key of block ``index``, which is complete, behind the block with key ``parent``."""
        ...


class TokenContent:
    """Tokens by their ids: the prompt's, then ``generated`` for every token that the model answers."""

    def __init__(self, prompt: Sequence[int], generated: int) -> None:
        self._prompt = prompt
        self._generated = generated

    def block_key(self, parent: BlockKey, index: int, block_size: int) -> BlockKey:
        """See :class:`Content`."""
        tokens = list(self._prompt[index * block_size : (index + 1) * block_size])
        tokens += [self._generated] * (block_size - len(tokens))
        return _chained(parent, ",".join(map(str, tokens)))


class ChunkContent:
    """Tokens by the ids of chunks that are longer than a block, as Mooncake's traces have them.

    chunk_tokens: tokens of a chunk. What lies behind the last chunk is the request's own (``owner``).
    """

    def __init__(self, chunks: Sequence[int], chunk_tokens: int, prompt_tokens: int, owner: int) -> None:
        self._chunks = chunks
        self._chunk_tokens = chunk_tokens
        self._prompt_tokens = prompt_tokens
        self._owner = owner

    def block_key(self, parent: BlockKey, index: int, block_size: int) -> BlockKey:
        """See :class:`Content`. A block that reaches into the next chunk is known by both."""
        first, end = index * block_size, (index + 1) * block_size
        if end > min(self._prompt_tokens, len(self._chunks) * self._chunk_tokens):
            return _chained(parent, f"{index} of request {self._owner}")
        parts = self._chunks[first // self._chunk_tokens : (end - 1) // self._chunk_tokens + 1]
        return _chained(parent, f"{first % self._chunk_tokens} in {parts}")


class OwnContent:
    """Tokens that nobody else has: only the request itself finds them again, after it was preempted."""

    def __init__(self, owner: int) -> None:
        self._owner = owner

    def block_key(self, parent: BlockKey, index: int, block_size: int) -> BlockKey:
        """See :class:`Content`."""
        return _chained(parent, f"{index} of request {self._owner}")


def _chained(parent: BlockKey, content: str) -> BlockKey:
    return hashlib.blake2b(content.encode(), digest_size=16, key=parent).digest()


class BlockPool:
    """The blocks of one memory.

    Parameters
    ----------
    blocks: that can be used.
    caching: whether complete blocks stay findable by their content until they are taken for something else.
    """

    def __init__(self, blocks: int, caching: bool) -> None:
        self.blocks = blocks
        self.caching = caching
        self._free: OrderedDict[int, None] = OrderedDict((block, None) for block in range(blocks))
        self._users = [0] * blocks
        self._keys: list[BlockKey | None] = [None] * blocks
        self._found: dict[BlockKey, list[int]] = {}

    @property
    def free(self) -> int:
        """Blocks that no request holds; some may still be found by their content."""
        return len(self._free)

    def lies_free(self, block: int) -> bool:
        """Whether no request holds ``block``."""
        return self._users[block] == 0

    def find(self, key: BlockKey) -> int | None:
        """The block with this content; of several the one that has had it for longest."""
        holders = self._found.get(key)
        return holders[0] if holders else None

    def share(self, block: int) -> None:
        """One more request holds ``block``."""
        if self._users[block] == 0:
            del self._free[block]
        self._users[block] += 1

    def take(self) -> int:
        """A block for new content; what it held is forgotten. There must be a free one."""
        block, _ = self._free.popitem(last=False)
        self._forget(block)
        self._users[block] = 1
        return block

    def publish(self, block: int, key: BlockKey) -> None:
        """From now on ``block`` is found by its content."""
        if self._keys[block] is None:
            self._keys[block] = key
            self._found.setdefault(key, []).append(block)

    def give_back(self, blocks: Sequence[int]) -> None:
        """A request no longer holds its ``blocks``, given in the order of its tokens."""
        for block in reversed(blocks):
            self._users[block] -= 1
            if self._users[block] == 0:
                self._free[block] = None
                if self._keys[block] is None:
                    self._free.move_to_end(block, last=False)

    def _forget(self, block: int) -> None:
        key, self._keys[block] = self._keys[block], None
        if key is not None:
            holders = self._found[key]
            holders.remove(block)
            if not holders:
                del self._found[key]
