"""The pictures of a topic, whether each message is one or they are the packets of a video."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sac_ae_ros.bag.messages import FFMPEG_PACKET, IMAGE_TYPES, PICTURE_TYPES, peek_stamp_ns, to_image
from sac_ae_ros.core.compressed import CompressedImage, video_codec
from sac_ae_ros.core.encodings import MAX_PIXELS, Image
from sac_ae_ros.core.errors import ImageError, SacAeError, quote

if TYPE_CHECKING:
    from sac_ae_ros.bag.reader import Bag, Record, Topic

MOST_WAITING = 64  # packets; a decoder holds 16 pictures back at most

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

        Records of a video come in the order in which their pictures are shown, and other topics' after those before
        them; so these may be some pictures late.
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
class _Waiting:
    """A packet whose picture has not come yet; reason: what is told if none does."""

    record: Record
    stamp_ns: int
    reason: str = _NO_PICTURE


class _Video:
    """A decoder, and the records whose pictures it holds back."""

    def __init__(self, bag: Bag, topic: str) -> None:
        self._bag, self._topic = bag, topic
        self._codec = ""
        self._decoder: Any = None
        self._damaged = False
        self._packets: dict[int, _Waiting] = {}  # by their number
        self._others: deque[tuple[int, Record]] = deque()  # with the number of packets before them
        self._count = 0

    def follow(self, records: Iterable[Record]) -> Iterator[tuple[Record, Picture]]:
        for record in records:
            if record.topic != self._topic:
                self._others.append((self._count, record))
            else:
                yield from self._shown(record)
            yield from self._free()
        for frame in self._decode(None):
            yield from self._show(frame)
        yield from self._give_up(list(self._packets))
        yield from self._free()

    def _shown(self, record: Record) -> Iterator[tuple[Record, Picture]]:
        number, self._count = self._count, self._count + 1
        self._packets[number] = _Waiting(record, peek_stamp_ns(record) or record.stamp_ns)
        try:
            frames = self._decode(record, number)
        except SacAeError as error:
            self._packets[number].reason, frames = str(error), []
        for frame in frames:
            yield from self._show(frame)
        if len(self._packets) > MOST_WAITING:
            yield from self._give_up([min(self._packets)])

    def _show(self, frame: Any) -> Iterator[tuple[Record, Picture]]:
        """A picture that comes out of the decoder; those that are older by their stamps will not come any more."""
        self._damaged = bool(frame.is_corrupt) or (self._damaged and not frame.key_frame)
        waiting = self._packets.pop(frame.pts, None)
        if waiting is None:
            return
        yield from self._give_up([n for n, each in self._packets.items() if each.stamp_ns < waiting.stamp_ns])
        yield waiting.record, partial(_refuse, _DAMAGED) if self._damaged else partial(_pixels, frame)

    def _give_up(self, numbers: list[int]) -> Iterator[tuple[Record, Picture]]:
        for waiting in sorted((self._packets.pop(n) for n in numbers), key=lambda each: each.stamp_ns):
            yield waiting.record, partial(_refuse, waiting.reason)

    def _free(self) -> Iterator[tuple[Record, Picture]]:
        """Other topics' records that wait for no packet any more."""
        oldest = min(self._packets, default=self._count)
        while self._others and self._others[0][0] <= oldest:
            record = self._others.popleft()[1]
            yield record, partial(_refuse, "no image")

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
