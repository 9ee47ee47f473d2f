"""Read what a process sends and prints from pipes, without ever waiting for it."""

import contextlib
import os
import pickle
import struct
from typing import Any

CHUNK = 2**16  # bytes read at a time, the size of a pipe on Linux
MOST_OUTPUT = 2**20  # bytes of output taken before the limits are looked at again
LARGEST_MESSAGE = 2**28  # bytes; a longer one was not sent by `Link`


class _Stream:
    """The reading end of a pipe. open: False once the other end is closed."""

    def __init__(self, descriptor: int):
        self.descriptor, self.open = descriptor, True
        # A solver may write half a message and hang. A read that waited for the rest would outlast the deadline.
        os.set_blocking(descriptor, False)

    def _chunk(self) -> bytes:
        """Return what lies in the pipe; nothing when it is empty or closed."""
        try:
            data = os.read(self.descriptor, CHUNK)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        # An empty read is the end of the file: all copies of the writing end are closed.
        self.open = bool(data)
        return data


class Tail(_Stream):
    """A stream of text, of which the last `keep` bytes are kept."""

    def __init__(self, descriptor: int, keep: int):
        super().__init__(descriptor)
        self.keep, self.kept = keep, b""

    def read(self) -> None:
        """Take what has come, at most about MOST_OUTPUT bytes."""
        taken = 0
        while taken < MOST_OUTPUT and self.open and (chunk := self._chunk()):
            self.kept = (self.kept + chunk)[-self.keep :]
            taken += len(chunk)

    def text(self) -> str:
        """Return the end of the text."""
        return self.kept.decode(errors="replace")


class Messages(_Stream):
    """A stream of pairs (kind, content), as `multiprocessing.connection.Connection.send` writes them.

    Nobody waits for the rest of a message that was half-written. garbled: True once something else was in the pipe.
    """

    def __init__(self, descriptor: int):
        super().__init__(descriptor)
        self.garbled = False
        self._left = bytearray()

    def read(self) -> list[tuple[str, Any]]:
        """Return the messages that have come whole."""
        while self.open and (chunk := self._chunk()):
            self._left += chunk
        messages: list[tuple[str, Any]] = []
        while not self.garbled and (frame := self._frame()) is not None:
            try:
                # The sender is code that the user chose to run with the same rights, so unpickling gives it nothing
                # new.
                kind, content = pickle.loads(frame)
            except Exception:  # bytes of another writer may raise anything
                self.garbled = True
            else:
                messages.append((str(kind), content))
        return messages

    def _frame(self) -> bytes | None:
        """Return one whole message or None.

        It stands behind its length, which is written as !i, or as -1 and !Q.
        """
        head, size = 4, -1
        with contextlib.suppress(struct.error):  # a part of the length has not come yet
            # `Connection.send` writes lengths above 2^31 - 1 bytes as -1, followed by eight bytes.
            (size,) = struct.unpack_from("!i", self._left)
            if size == -1:
                head = 12
                (size,) = struct.unpack_from("!Q", self._left, 4)
            # Foreign bytes read as a length are mostly huge. Waiting for so many bytes would end at the deadline only.
            if not 0 <= size <= LARGEST_MESSAGE:
                self.garbled = True
                return None
        if size < 0 or len(self._left) < head + size:
            return None
        frame = bytes(self._left[head : head + size])
        del self._left[: head + size]
        return frame
