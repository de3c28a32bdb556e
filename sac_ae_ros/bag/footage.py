"""The pictures of a topic, whether each message is one or they are the packets of a video."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sac_ae_ros.bag.messages import FFMPEG_PACKET, IMAGE_TYPES, PICTURE_TYPES, peek_stamp_ns, to_image
from sac_ae_ros.core.compressed import CompressedImage, video_codec
from sac_ae_ros.core.encodings import MAX_PIXELS, Image
from sac_ae_ros.core.errors import BagError, ImageError, SacAeError, quote

if TYPE_CHECKING:
    from sac_ae_ros.bag.reader import Bag, Record, Topic

MOST_WAITING = 64  # packets without a picture
MOST_HELD = 17  # pictures behind one that has not come; a decoder holds 16 back at most

Picture = Callable[[], Image | CompressedImage]
_UNTIL = "its pictures are used from the next key frame on"
_NO_PICTURE, _DAMAGED = f"video: no picture came of this packet; {_UNTIL}", f"video: it is damaged here; {_UNTIL}"


class Footage:
    """A topic of sensor_msgs Image or CompressedImage, or of ffmpeg_image_transport_msgs FFMPEGPacket.

    A video (H.264 or HEVC, in packets or in CompressedImages) is decoded whole, in order, since each picture needs
    those before it; of anything else only the pictures that somebody asks for.
    """

    def __init__(self, bag: Bag, topic: Topic) -> None:
        self._bag, self._topic = bag, topic
        self._is_video = topic.type == FFMPEG_PACKET or self._begins_as_video()

    def follow(self, records: Iterable[Record]) -> Iterator[tuple[Record, Picture]]:
        """Records in their order with what gives their picture, which raises SacAeError where there is none.

        Records of a video come in the order in which their pictures are shown, as if recorded in it: where
        that is not the order of their packets (B-frames), their log times are those of their stamps, and as much later
        as the soonest packet was. Other topics' records keep their place among them by log time.

        Raises:
            BagError: a video's packets are in another order than its pictures, and have no stamps.
        """
        if self._is_video:
            yield from _Video(self._bag, self._topic.name).follow(records)
            return
        for record in records:
            yield record, partial(self._picture, record)

    def _picture(self, record: Record) -> Image | CompressedImage:
        return to_image(self._bag.message(record, IMAGE_TYPES))

    def _begins_as_video(self) -> bool:
        """By the first message that can be read."""
        if self._topic.type != IMAGE_TYPES[1]:
            return False
        for record in self._bag.records([self._topic.name]):
            try:
                return bool(video_codec(self._bag.message(record, IMAGE_TYPES[1:]).format))
            except SacAeError:
                continue
        return False


@dataclass
class _Shown:
    """A packet of a video with its picture; number: its place among the packets; stamp_ns: None where it has none.

    reason: what is told if no picture comes of it.
    """

    record: Record
    number: int
    stamp_ns: int | None
    reason: str = _NO_PICTURE
    picture: Picture | None = None

    def is_before(self, other: _Shown) -> bool:
        """Whether it is shown before the other: by stamps, where both have one."""
        if self.stamp_ns and other.stamp_ns:
            return self.stamp_ns < other.stamp_ns
        return self.number < other.number


class _Video:
    """A decoder, and the records whose pictures it holds back."""

    def __init__(self, bag: Bag, topic: str) -> None:
        self._bag, self._topic = bag, topic
        self._codec = ""
        self._decoder: Any = None
        self._damaged = False
        self._packets: dict[int, _Shown] = {}  # those without a picture yet, by their number
        self._group: list[_Shown] = []  # in the order in which they are shown, until those before them have come
        self._others: deque[Record] = deque()
        self._count = 0

    def follow(self, records: Iterable[Record]) -> Iterator[tuple[Record, Picture]]:
        for record in records:
            if record.topic != self._topic:
                self._others.append(record)
                continue
            self._take(record)
            yield from self._close_group()
        for frame in self._decode(None):
            self._show(frame)
        self._give_up(list(self._packets))
        yield from self._close_group()
        for record in self._others:
            yield record, partial(_refuse, "no image")

    def _take(self, record: Record) -> None:
        number, self._count = self._count, self._count + 1
        self._packets[number] = _Shown(record, number, peek_stamp_ns(record) or None)
        try:
            frames = self._decode(record, number)
        except SacAeError as error:
            self._packets[number].reason, frames = str(error), []
        for frame in frames:
            self._show(frame)
        if len(self._packets) > MOST_WAITING or len(self._group) > MOST_HELD:
            self._give_up([min(self._packets)])

    def _show(self, frame: Any) -> None:
        """A picture that comes out of the decoder; those that are older by their stamps will not come any more."""
        self._damaged = bool(frame.is_corrupt) or (self._damaged and not frame.key_frame)
        shown = self._packets.pop(frame.pts, None)
        if shown is None:
            return
        shown.picture = partial(_refuse, _DAMAGED) if self._damaged else partial(_pixels, frame)
        stamp_ns = shown.stamp_ns or 0
        self._give_up([number for number, each in self._packets.items() if 0 < (each.stamp_ns or 0) < stamp_ns])
        self._group.append(shown)

    def _give_up(self, numbers: list[int]) -> None:
        """Takes packets as those of which no picture came, each where it would have been shown."""
        for number in numbers:
            lost = self._packets.pop(number)
            lost.picture = partial(_refuse, lost.reason)
            place = next((i for i, each in enumerate(self._group) if lost.is_before(each)), len(self._group))
            self._group.insert(place, lost)

    def _close_group(self) -> Iterator[tuple[Record, Picture]]:
        """Gives pictures once all packets before them have theirs, and other records between them by log time."""
        if not self._group or min(self._packets, default=self._count) < max(each.number for each in self._group):
            return
        group, self._group = self._group, []
        for shown, log_ns in zip(group, self._logs_ns(group), strict=True):
            while self._others and self._others[0].stamp_ns < log_ns:
                yield self._others.popleft(), partial(_refuse, "no image")
            assert shown.picture is not None
            yield replace(shown.record, stamp_ns=log_ns), shown.picture

    def _logs_ns(self, group: list[_Shown]) -> list[int]:
        """When the pictures would have been recorded, had they come in the order in which they are shown.

        A packet that waits for a later picture is recorded late, so the one that came soonest after its stamp tells how
        long the way takes. Where stamps do not grow the log times are only put in order.
        """
        logs_ns = [shown.record.stamp_ns for shown in group]
        if all(a.number < b.number for a, b in itertools.pairwise(group)):
            return logs_ns
        logs_ns.sort()
        stamps_ns = [shown.stamp_ns for shown in group if shown.stamp_ns]
        if not stamps_ns:
            raise BagError(
                f"{self._bag.path}: {self._topic}: expected stamps, all are 0 where the video's pictures are coded in"
                " another order than they are shown (B-frames), so that nothing tells when each was taken; record with"
                " stamps, or encode without B-frames"
            )
        if len(stamps_ns) < len(group) or any(a >= b for a, b in itertools.pairwise(stamps_ns)):
            return logs_ns
        late_ns = min(log_ns - stamp_ns for log_ns, stamp_ns in zip(logs_ns, stamps_ns, strict=True))
        return [stamp_ns + late_ns for stamp_ns in stamps_ns]

    def _decode(self, record: Record | None, number: int = 0) -> list[Any]:
        """The pictures that come of a packet, or with None those that are held back still.

        Raises:
            SacAeError: the packet cannot be read, or is of no video that is known; or it is damaged.
        """
        import av

        if record is None:
            packet = None
        else:
            message = self._bag.message(record, PICTURE_TYPES[1:])
            text = message.encoding if record.type == FFMPEG_PACKET else message.format
            self._open(text)
            if not len(message.data):  # which the decoder would take for the end of the video
                self._damaged = True
                raise ImageError(f"video: an empty packet; {_UNTIL}")
            packet = av.Packet(bytes(message.data))
            packet.pts = number
        if self._decoder is None:
            return []
        try:
            return list(self._decoder.decode(packet))
        except av.FFmpegError as error:
            self._damaged = record is not None
            if record is None:
                return []
            raise ImageError(f"video: a packet that does not decode ({error.strerror}); {_UNTIL}") from error

    def _open(self, text: str) -> None:
        import av

        codec = video_codec(text)
        if not codec:
            raise ImageError(f"video: expected H.264 or HEVC, got the format {quote(text)}")
        if codec != self._codec:
            self._decoder = av.CodecContext.create(codec, "r")
            self._decoder.options = {"max_pixels": str(MAX_PIXELS)}
            self._decoder.thread_count = 1  # threads hold back pictures
            self._codec = codec


def _pixels(frame: Any) -> Image:
    pixels = frame.to_ndarray(format="rgb24")
    return Image(frame.height, frame.width, "rgb8", 3 * frame.width, False, pixels)


def _refuse(reason: str) -> Image:
    raise ImageError(reason)
