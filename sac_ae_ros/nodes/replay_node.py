"""replay_node: plays a recording to live nodes, and commands nobody unless told to; docs/ros.md has its interface."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from sac_ae_ros.bag.playback import Playback, PlayedClock, is_clock
from sac_ae_ros.bag.reader import Bag, Record
from sac_ae_ros.core.errors import BagError, ConfigError, SacAeError, printable
from sac_ae_ros.nodes import process
from sac_ae_ros.nodes.bag_params import ReplayParams
from sac_ae_ros.nodes.convert import from_ns
from sac_ae_ros.nodes.keys import Keys
from sac_ae_ros.nodes.params import declare, read
from sac_ae_ros.nodes.replay_outputs import ReplayOutputs
from sac_ae_ros.nodes.replay_progress import ReplayProgress
from sac_ae_ros.nodes.timeline import Timeline

CLOCK_EVERY_S = 0.008
SETTLE_S = 1.5  # a subscriber learns of this node later than this node of it: a second, where DDS lost a packet
NEWEST = QoSProfile(depth=1)
LOG_EVERY_S = 2.0


class ReplayNode(Node):
    """Publishes what was recorded, at the pace at which it was recorded, by the steady clock."""

    def __init__(
        self,
        overrides: Mapping[str, object] | None = None,
        progress: ReplayProgress | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        """Opens the recording and makes the publishers.

        Args:
            overrides: parameters that win over those of files and the command line.
            progress: tells how far it is; None: in the log.
            arguments: the process's command line.

        Raises:
            SacAeError: the recording cannot be read, or what is wanted of it is not there.
        """
        given = [Parameter(name, value=value) for name, value in (overrides or {}).items()]
        super().__init__("replay_node", parameter_overrides=given)
        declare(self, ReplayParams, arguments=arguments)
        self._params = params = read(self, ReplayParams)
        if not params.bag:
            raise ConfigError("bag: expected the path of a recording, got nothing; set -p bag:=PATH")
        self._bag = Bag.open(Path(params.bag), *(Path(path).expanduser() for path in params.merge))
        self._playback = Playback(
            self._bag,
            params.topics,
            image_topic=params.image_topic,
            as_recorded=params.as_recorded,
            start_s=params.start_s,
            duration_s=params.duration_s,
        )
        self._progress = progress or ReplayProgress(self.get_logger().info)
        self._clock_pub = self.create_publisher(Clock, "/clock", NEWEST) if params.publish_clock else None
        self._outputs = ReplayOutputs(self)
        self._announce(self._make_publishers())
        self._time, self._timeline = PlayedClock(self._playback), Timeline(params.rate)
        self._turn = threading.Lock()  # so that nothing is published once ~/pause has answered
        self._messages = self._broken = 0
        if params.start_paused:
            self._timeline.pause()
        for name, change in (("pause", self._pause), ("resume", self._resume), ("toggle_paused", self.toggle)):
            self.create_service(Trigger, f"~/{name}", _service(change))

    def play(self, end: process.EndRequest) -> None:
        """Plays until the end, or until `end` is asked for.

        Raises:
            BagError: the recording cannot be read any more, or nothing is in the part that is to be played.
        """
        first = next(self._playback.records(), None)
        if first is None:
            raise BagError(f"{self._params.bag}: expected messages between start_s and its end, there are none")
        self._wait_for_subscribers(first, end)
        begun_s = time.monotonic()
        while self._play_round(end) and self._params.loop:
            self._time.next_round()
            self._outputs.end_episodes()
        self._progress.close()
        self._sum_up(time.monotonic() - begun_s)

    def toggle(self) -> str:
        """Pauses, or goes on; says which."""
        return self._resume() if self._timeline.paused else self._pause()

    def close(self) -> None:
        """Waits for receipt, but not for long, and closes the recording."""
        self._outputs.wait_acknowledged()
        self._progress.close()
        self._bag.close()

    def _play_round(self, end: process.EndRequest) -> bool:
        """Plays all once; returns whether it came to the end."""
        self._progress.begin(self._playback.start_ns, self._playback.end_ns)
        for number, record in enumerate(self._playback.records()):
            if number == 0:
                with self._turn:
                    self._timeline.begin(record.stamp_ns)
            while left_s := self._publish_if_due(record):
                if end.wait(min(left_s, CLOCK_EVERY_S)):
                    return False
            self._progress.at(record.stamp_ns)
            if end.wait(0):
                return False
        return True

    def _publish_if_due(self, record: Record) -> float:
        """Publishes the message and returns 0, or the clock alone and returns how long it has still to wait, s."""
        with self._turn:
            left_s = self._timeline.left_s(record.stamp_ns)
            if left_s > 0:
                self._publish_clock(self._time.at(min(self._timeline.at_ns(), record.stamp_ns)))
                return left_s
            self._publish_clock(self._time.take(record))
            if not (self._playback.has_clock and is_clock(record)):
                self._publish(record)
            self._timeline.played(record.stamp_ns)
            return 0.0

    def _publish(self, record: Record) -> None:
        try:
            self._messages += self._outputs.publish(record.topic, self._bag.cdr(record), self._time.shift_ns)
        except Exception as error:  # rclpy's are no SacAeError
            self._broken += 1
            reason = printable(" ".join(str(error).split()))
            text = f"{record.topic}: a message of {len(record.raw)} bytes is left out: {reason}"
            self.get_logger().warning(text, throttle_duration_sec=LOG_EVERY_S)

    def _publish_clock(self, clock_ns: int) -> None:
        if self._clock_pub is not None and clock_ns > 0:  # 0: no time yet
            self._clock_pub.publish(Clock(clock=from_ns(clock_ns)))

    def _wait_for_subscribers(self, first: Record, end: process.EndRequest) -> None:
        """Waits until images are heard, while the clock stands at the first message."""
        images, wanted = self._playback.images, self._params.wait_for
        names = ", ".join(self._outputs.names_of(images))
        if not names or not wanted:
            return

        def stand(until_s: float) -> bool:
            self._publish_clock(self._time.at(first.stamp_ns))
            return time.monotonic() < until_s and not end.wait(CLOCK_EVERY_S)

        until_s = time.monotonic() + self._params.wait_s
        while self._outputs.subscribers(images) < wanted:
            if not stand(until_s):
                self.get_logger().warning(
                    f"{names}: expected {wanted} subscribers within {self._params.wait_s:g} s, got"
                    f" {self._outputs.subscribers(images)}; playing to whoever comes"
                )
                return
        until_s = time.monotonic() + SETTLE_S
        while stand(until_s):
            pass

    def _make_publishers(self) -> list[str]:
        """Returns what cannot be played, and why."""
        refused = []
        for topic in self._playback.topics.values():
            try:
                self._outputs.add(topic.name, self._playback.names[topic.name], topic.type, latched=topic.latched)
            except ConfigError as error:
                refused.append(str(error))
        if not self._outputs.names:
            raise BagError(f"{self._params.bag}: nothing in it can be played: {'; '.join(refused)}")
        return refused

    def _announce(self, refused: list[str]) -> None:
        log, playback = self.get_logger(), self._playback
        length_s = (playback.end_ns - playback.start_ns) * 1e-9
        log.info(
            f"{printable(self._params.bag)}: {length_s:.1f} s at rate {self._params.rate:g}:"
            f" {', '.join(self._outputs.names)}"
        )
        for reason in refused:
            log.warning(f"not played: {reason}")
        salvage = self._bag.salvage
        if salvage is not None:
            log.warning(f"damaged: {salvage.messages} messages are left and played: {salvage.reason}")
        for remark in self._bag.remarks:
            log.warning(remark)
        if self._params.as_recorded:
            log.warning("as_recorded: commands and switches have their own names; a robot that hears them moves")

    def _sum_up(self, took_s: float) -> None:
        timeline = self._timeline
        text = f"played {self._messages} messages in {took_s:.1f} s, the latest {timeline.latest_s * 1e3:.0f} ms late"
        if timeline.given_up_s:
            text += f"; {timeline.given_up_s:.2f} s longer than it should, since this machine could not keep up"
        if self._broken:
            text += f"; left out {self._broken} that are no such messages"
        self.get_logger().info(text)

    def _pause(self) -> str:
        with self._turn:
            self._timeline.pause()
        return "paused"

    def _resume(self) -> str:
        with self._turn:
            self._timeline.resume()
        return "playing"


def _service(change: Callable[[], str]) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
    def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, change()
        return response

    return answer


def _spin(executor: SingleThreadedExecutor, end: process.EndRequest) -> None:
    defect = process.spin(executor)
    if defect:
        print(defect, file=sys.stderr, end="")
        end.give(1)


def _use(node: ReplayNode, end: process.EndRequest, keys: bool) -> int:
    """Plays in the main thread, to which the recording belongs; services are answered in another."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinning = threading.Thread(target=_spin, args=(executor, end), name="spin", daemon=True)
    spinning.start()
    try:
        with Keys(node.toggle if keys else None):
            node.play(end)
    except SacAeError as error:
        node.get_logger().error(str(error))
        end.give(1)
    finally:
        node.close()
        executor.shutdown(timeout_sec=1.0)
        spinning.join(timeout=1.0)
    return end.code


def main(args: Sequence[str] | None = None, overrides: Mapping[str, object] | None = None, keys: bool = False) -> int:
    """Plays until the end or a signal; returns the process's exit code.

    `overrides`: parameters that win over others. `keys`: the space bar of a terminal pauses and goes on.
    """
    progress = ReplayProgress.bar() if sys.stderr.isatty() else None  # asked before process.run puts a pipe there
    return process.run(
        lambda arguments: ReplayNode(overrides, progress, arguments),
        lambda node, end: _use(node, end, keys),
        args,
    )


if __name__ == "__main__":
    raise SystemExit(main())
