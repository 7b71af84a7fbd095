"""Recognises what a web server repeats after a reconnect: the last segments or pictures, or the whole recording."""

import zlib
from collections import OrderedDict
from typing import Any

# Packets of a stream that are remembered, at some 100 bytes each: several minutes of picture and sound. If a server
# repeats more, the rest is taken for new.
_REMEMBERED = 20_000

# The most that a live stream's server repeats; a source that begins further back is a recording.
LIVE_PAST_S = 60.0

_Key = tuple[int, int, int, int]


class PacketMemory:
    """Remembers the packets of one stream over all of its connections.

    Attributes:
        again: This connection began with the packet with which the one before did.
        is_near: The last packet that was known is not far from what is new.
    """

    def __init__(self) -> None:
        self.again = self.is_near = False
        self._packets: OrderedDict[_Key, None] = OrderedDict()
        self._newest_s: dict[int, float] = {}  # by track
        self._began_with: _Key | None = None
        self._is_recording = False  # what is played again from its beginning, long ago
        self._is_first = True
        self._new_tracks: set[int] = set()  # those that have brought something new in this connection

    @property
    def has_new(self) -> bool:
        """This connection has brought something new."""
        return bool(self._new_tracks)

    def connect(self) -> None:
        """Begins a new connection."""
        self._is_first = True
        self._new_tracks.clear()
        self.again = self.is_near = False

    def knows(self, packet: Any) -> bool:
        """Remembers a packet; says whether a connection before has read it."""
        time = packet.dts if packet.dts is not None else packet.pts or 0
        time_s = float(time * packet.time_base) if packet.time_base else 0.0
        key = packet.stream_index, time % (1 << 33), packet.size, zlib.crc32(packet)
        newest_s = self._newest_s.get(packet.stream_index, time_s)
        if self._is_first:
            self._is_first = False
            self.again = key == self._began_with
            self._is_recording = self.again and newest_s - time_s > LIVE_PAST_S
            self._began_with = key
        self.is_near = newest_s - time_s <= LIVE_PAST_S
        is_known = key in self._packets or (self._is_recording and time_s <= newest_s)
        # Servers repeat nothing after something new: a repeated packet then is media that is shown twice, like adverts.
        if is_known and packet.stream_index not in self._new_tracks:
            return True
        self._new_tracks.add(packet.stream_index)
        self._newest_s[packet.stream_index] = time_s
        self._packets[key] = None
        if len(self._packets) > _REMEMBERED:
            self._packets.popitem(last=False)
        return False
