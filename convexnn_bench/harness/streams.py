"""Reading ends of pipes that are never waited for: what a process sends and prints, however it comes."""

import contextlib
import os
import pickle
import struct
from typing import Any

PIECE = 2**16
MOST = 2**20  # bytes of output taken at a time, so that limits are looked at meanwhile
LARGEST = 2**28  # bytes of one message; more is no message of ours


class _Stream:
    """open: False once the other end is closed."""

    def __init__(self, descriptor: int):
        self.descriptor, self.open = descriptor, True
        os.set_blocking(descriptor, False)

    def _piece(self) -> bytes:
        """What lies in the pipe; nothing when it is empty, or closed."""
        try:
            data = os.read(self.descriptor, PIECE)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        self.open = bool(data)
        return data


class Tail(_Stream):
    """Text of which the last bytes are kept."""

    def __init__(self, descriptor: int, keep: int):
        super().__init__(descriptor)
        self.keep, self.kept = keep, b""

    def read(self) -> None:
        taken = 0
        while taken < MOST and self.open and (piece := self._piece()):
            self.kept = (self.kept + piece)[-self.keep :]
            taken += len(piece)

    def text(self) -> str:
        return self.kept.decode(errors="replace")


class Messages(_Stream):
    """Pairs (kind, content) as `multiprocessing.connection.Connection.send` writes them.

    A message that stays half-written holds nobody up. garbled: something else was written into the pipe.
    """

    def __init__(self, descriptor: int):
        super().__init__(descriptor)
        self.garbled = False
        self._left = bytearray()

    def read(self) -> list[tuple[str, Any]]:
        """The whole messages that have come."""
        while self.open and (piece := self._piece()):
            self._left += piece
        found: list[tuple[str, Any]] = []
        while not self.garbled and (frame := self._frame()) is not None:
            try:
                kind, content = pickle.loads(frame)
            except Exception:  # bytes of another writer may raise anything
                self.garbled = True
            else:
                found.append((str(kind), content))
        return found

    def _frame(self) -> bytes | None:
        """One whole message: its length as !i, or -1 and !Q, and its bytes."""
        head, size = 4, -1
        with contextlib.suppress(struct.error):  # not all of the length is here yet
            (size,) = struct.unpack_from("!i", self._left)
            if size == -1:
                head = 12
                (size,) = struct.unpack_from("!Q", self._left, 4)
            if not 0 <= size <= LARGEST:
                self.garbled = True
                return None
        if size < 0 or len(self._left) < head + size:
            return None
        frame = bytes(self._left[head : head + size])
        del self._left[: head + size]
        return frame
