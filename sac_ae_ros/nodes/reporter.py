"""Reporter: what policy_node says of itself: the log, `~/state` (latched JSON) and /diagnostics at 1 Hz.

It runs in a thread that inference cannot hang, so that a hung inference is told as well.
"""

from __future__ import annotations

import json
import re
import socket
import time
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import String

from sac_ae_ros.core.command import GateState, Stop
from sac_ae_ros.core.errors import printable
from sac_ae_ros.core.frames import GAP_PERIODS
from sac_ae_ros.core.novelty import Level
from sac_ae_ros.nodes.drive import NOT_ACTIVE, Drive, broken_stack, slow_frames
from sac_ae_ros.nodes.graph_watch import Seen
from sac_ae_ros.nodes.input_watch import InputFacts
from sac_ae_ros.nodes.inputs import Inputs, missing_images
from sac_ae_ros.nodes.loaded_policy import LoadedPolicy
from sac_ae_ros.nodes.reloader import Reloader
from sac_ae_ros.nodes.switches import Switches

DIAGNOSTICS_EVERY_S = 1.0
LOG_EVERY_S = 2.0
BARRED_AFTER_S = 5.0  # so long nothing is logged of what bars arming: cameras and switches start as well
SLOW_SHARE = 0.9  # of the policy's rate; frames that come at less are warned of
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)


@dataclass(frozen=True)
class Parts:
    """What there is to report of, at one moment; the lifecycle makes and forgets them."""

    lifecycle: str
    loaded: LoadedPolicy | None
    commands: Seen | None  # who is on the topic of commands
    drive: Drive | None
    inputs: Inputs | None
    reloader: Reloader | None
    switches: Switches
    rivals: str  # who else commands the robot, by the graph
    clocks: str  # who publishes a second /clock
    obstacle: str  # what in the graph bars arming, rivals included
    held: frozenset[Stop]  # what only ~/arm clears, while there is no drive


@dataclass(frozen=True)
class Bars:
    """Why the robot is not armed, or stands although it is, in words; all empty while it moves."""

    lasting: str = ""  # what is behind the causes that last
    arming: str = ""  # what `~/arm` would be refused for

    def settled(self, before: Bars) -> Bars:
        """These words, or those before where they differ in nothing but numbers."""
        return before if _without_numbers(self) == _without_numbers(before) else self


class Reporter:
    """Tells changes at once, and how things are once a second."""

    def __init__(self, node: Node, hardware_id: str) -> None:
        """`hardware_id` stands in /diagnostics; empty means this machine's name."""
        self._node = node
        self._hardware_id = hardware_id or socket.gethostname()
        self._state_publisher = node.create_publisher(String, "~/state", LATCHED)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._told = GateState(False, None)
        self._lifecycle = ""
        self._detail = ""
        self._said = ""
        self._diagnosed_s = 0.0
        self._level = Level.NORMAL
        self._bars = Bars()
        self._unheard = ""  # what keeps commands from every subscriber
        self._unarmed_s: float | None = None  # since when; logged of at this time or later
        self._barred = Bars()  # as logged last

    def tell(self, parts: Parts) -> None:
        """Called often."""
        gate = parts.drive.state if parts.drive else GateState(False, None, held=parts.held)
        now_s = time.monotonic()
        is_due = now_s - self._diagnosed_s >= DIAGNOSTICS_EVERY_S
        if is_due or gate != self._told or parts.lifecycle != self._lifecycle:
            self._lifecycle = parts.lifecycle
            images = parts.inputs.image_watch.look() if parts.inputs is not None else None
            bars = self._look(parts, gate, images)
            self._bars = bars.settled(self._bars)
            loaded, commands = parts.loaded, parts.commands
            self._unheard = loaded.unheard(commands) if loaded and commands and parts.drive else ""
        self._log(parts, gate)
        self._log_bars(parts, gate, now_s)
        state = json.dumps(self._state(parts, gate), sort_keys=True)
        if state != self._said:
            self._said = state
            self._state_publisher.publish(String(data=state))
        if is_due:
            self._diagnosed_s = now_s
            self._diagnostics.publish(self._diagnose(parts, gate, bars, images))

    def _log(self, parts: Parts, gate: GateState) -> None:
        log, told, drive = self._node.get_logger(), self._told, parts.drive
        self._told = gate
        if drive is None:
            self._detail, self._level = "", Level.NORMAL
        elif gate.stop is not None and gate.stop is not told.stop:
            self._detail = printable(drive.why_stopped(gate.stop))
            way = "" if gate.held else " or release and press enable"
            reason = f"{gate.stop.value}: {self._detail}" if self._detail else gate.stop.value
            log.error(f"stopped: {reason}; call ~/arm{way} once the cause has ended")
        elif gate.stop is None:
            self._detail = ""
        if drive is not None and drive.trouble_at_start:
            log.error(f"not armed by itself: {printable(drive.trouble_at_start)}; call ~/arm")
            drive.trouble_at_start = ""
        for cause in sorted(gate.latched - told.latched - {gate.stop}):
            why = printable(drive.why_stopped(cause)) if drive else ""
            log.error(f"stopped also by {cause.value}: {why}".removesuffix(": "))
        if gate.armed != told.armed:
            log.info("armed" if gate.armed else "disarmed")
            if gate.armed and self._unheard:
                log.warning(self._unheard)
        if drive is None:
            return
        if drive.trouble:
            log.error(f"a stop could not be sent: {printable(drive.trouble)}", throttle_duration_sec=LOG_EVERY_S)
        reading, level = drive.novelty
        if level > self._level and reading is not None:
            log.warning(f"novelty: {reading.cause} (score {reading.score:.2f})")
        self._level = level

    def _log_bars(self, parts: Parts, gate: GateState, now_s: float) -> None:
        """Says what bars arming, a while after the start or a disarming, and again when that changes."""
        if parts.drive is None or gate.armed:
            self._unarmed_s, self._barred = None, Bars()
            return
        if self._unarmed_s is None:
            self._unarmed_s = now_s
        bars = Bars(arming=self._bars.arming)
        if not bars.arming:
            self._barred = bars
        if now_s - self._unarmed_s < BARRED_AFTER_S or bars.settled(self._barred) is self._barred:
            return
        self._unarmed_s, self._barred = now_s, bars
        self._node.get_logger().warning(f"not armed, and cannot be: {bars.arming}")

    def _look(self, parts: Parts, gate: GateState, images: Seen | None) -> Bars:
        drive = parts.drive
        if drive is None:
            return Bars(arming=NOT_ACTIVE)
        if gate.armed and gate.stop is None:
            return Bars()
        refusal = drive.arm_refusal(parts.obstacle)
        if refusal and images is not None:
            refusal = "; ".join([refusal, *missing_images(gate.causes, images)])
        return Bars(printable(drive.explain(gate.causes)), printable(refusal))

    def _state(self, parts: Parts, gate: GateState) -> dict[str, Any]:
        policy = parts.loaded.policy if parts.loaded else None
        swap = parts.reloader.swap if parts.reloader else None
        outcome = swap.outcome if swap else None
        return {
            "lifecycle": parts.lifecycle,
            "output": parts.loaded.params.output if parts.loaded else None,
            "armed": gate.armed,
            "disarms": parts.drive.disarms if parts.drive else 0,
            "stop": gate.stop.value if gate.stop else None,
            "detail": self._detail,
            "latched": _names(gate.latched),
            "causes": _names(gate.causes),
            "lasting": self._bars.lasting,
            "barred": self._bars.arming,
            "unheard": self._unheard,
            "needs_arm": _names(gate.held),
            "novelty": self._level.name.lower(),
            "policy": policy and {"name": policy.spec.name, "version": policy.spec.version, "sha256": policy.sha256},
            "stored_version": swap.running_version if swap else None,
            "newer": parts.reloader.newer if parts.reloader else None,
            "reload": outcome and {"ok": outcome.ok, "version": outcome.version, "text": outcome.text},
        }

    def _diagnose(self, parts: Parts, gate: GateState, bars: Bars, images: Seen | None) -> DiagnosticArray:
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        array.status = [self._safety(parts, gate, bars)]
        if parts.loaded is not None:
            array.status.append(self._policy(parts, parts.loaded))
        if parts.loaded is not None and parts.commands is not None:
            array.status.append(self._command(parts.loaded, parts.commands, parts.rivals))
        if parts.drive is not None and parts.inputs is not None and images is not None:
            array.status.append(self._images(parts.drive, parts.inputs, images))
        return array

    def _safety(self, parts: Parts, gate: GateState, bars: Bars) -> DiagnosticStatus:
        drive, params = parts.drive, parts.loaded.params if parts.loaded else None
        complaints: tuple[str, ...] = ()
        if drive and params:
            required = {"enable_required": params.enable_required, "e_stop_required": params.e_stop_required}
            complaints = (*filter(None, (parts.clocks,)), *parts.switches.complaints(**required))
        if drive is None:
            level, text = OK, parts.lifecycle
        elif gate.stop is not None:
            level, text = ERROR, f"stopped: {gate.stop.value}: {self._detail}".removesuffix(": ")
        elif bars.arming:
            level, text = WARN, f"not armed, and cannot be: {bars.arming}"
        elif drive.trouble:
            level, text = ERROR, f"a stop could not be sent: {printable(drive.trouble)}"
        elif complaints:
            level, text = WARN, complaints[0]
        else:
            level, text = OK, "armed" if gate.armed else "not armed"
        values = {
            "lifecycle": parts.lifecycle,
            "armed": gate.armed,
            "stop": gate.stop.value if gate.stop else "",
            "stopped by": ", ".join(_names(gate.latched)),
            "causes that last": ", ".join(_names(gate.causes)),
            "why they last": bars.lasting,
            "why it cannot be armed": bars.arming,
            "needs ~/arm": ", ".join(_names(gate.held)),
            "complaints": "; ".join(complaints),
        }
        return self._status("safety", level, text, values)

    def _images(self, drive: Drive, inputs: Inputs, seen: Seen) -> DiagnosticStatus:
        now_s = time.monotonic()
        facts = drive.input.facts(now_s)
        why = drive.paused or drive.input.why_unused(now_s, drive.timeout_s)
        why = why or _silence(facts, drive.period_s)
        slowness = _slowness(facts, drive.period_s)
        haste = filter(None, (drive.haste,))
        complaints = (*haste, *seen.complaints, *inputs.camera_complaints, *inputs.image_complaints, *slowness)
        level, text = OK, f"{facts.rate_hz:.1f} Hz"
        if complaints:
            level, text = WARN, complaints[0]
        if why:
            level = STALE if facts.silent_s > drive.timeout_s else ERROR
            level = level if facts.unused_s > drive.timeout_s else WARN
            text = f"{why}; {complaints[0]}" if complaints else why
        values = {
            "rate (Hz)": f"{facts.rate_hz:.2f}",
            "age of the frame used last (s)": "" if facts.age_s is None else f"{facts.age_s:.3f}",
            "images received": facts.received,
            "frames used": facts.used,
            "frames refused": facts.refused,
            "publishers": "; ".join(map(str, seen.publishers)),
            "complaints": "; ".join(complaints),
        }
        return self._status("images", level, text, values)

    def _policy(self, parts: Parts, loaded: LoadedPolicy) -> DiagnosticStatus:
        policy, reloader = loaded.policy, parts.reloader
        outcome = reloader.swap.outcome if reloader else None
        reading, novelty = parts.drive.novelty if parts.drive else (None, Level.NORMAL)
        level, text = OK, f"{policy.spec.name} {policy.spec.version} ({policy.sha256[:12]})"
        if reloader and reloader.newer is not None:
            level, text = WARN, f"policy_dir holds version {reloader.newer}: call ~/reload"
        if outcome and not outcome.ok:
            level, text = WARN, f"reload failed: {outcome.text}"
        if novelty is not Level.NORMAL and reading:
            level, text = (ERROR if novelty is Level.STOP else WARN), f"novelty: {reading.cause}"
        values = {
            "name": policy.spec.name,
            "version": policy.spec.version,
            "sha256": policy.sha256,
            "provider": policy.provider,
            "novelty score": f"{reading.score:.3f}" if reading else "",
            "novelty": novelty.name.lower(),
            "newer version": "" if not reloader or reloader.newer is None else reloader.newer,
            "reload": outcome.text if outcome else "",
        }
        return self._status("policy", level, text, values)

    def _command(self, loaded: LoadedPolicy, seen: Seen, rivals: str) -> DiagnosticStatus:
        shadow = loaded.params.output == "shadow"  # need not be listened to
        complaints = () if shadow and not seen.subscribers else seen.complaints
        level, text = (WARN, complaints[0]) if complaints else (OK, loaded.command_topic)
        if rivals:
            level, text, complaints = ERROR, rivals, (rivals, *complaints)
        values = {
            "topic": loaded.command_topic,
            "type": loaded.command_type,
            "output": loaded.params.output,
            "subscribers": "; ".join(map(str, seen.subscribers)),
            "complaints": "; ".join(complaints),
        }
        return self._status("command", level, text, values)

    def _status(self, name: str, level: bytes, message: str, values: dict[str, Any]) -> DiagnosticStatus:
        title = f"{self._node.get_fully_qualified_name().lstrip('/')}: {name}"
        pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        return DiagnosticStatus(name=title, level=level, message=message, hardware_id=self._hardware_id, values=pairs)


def _without_numbers(bars: Bars) -> tuple[str, str]:
    return re.sub(r"\d+(\.\d+)?", "", bars.lasting), re.sub(r"\d+(\.\d+)?", "", bars.arming)


def _silence(facts: InputFacts, period_s: float) -> str:
    """That no image has come for long, though not for the watchdog's timeout; else empty."""
    silent = facts.quiet_s > GAP_PERIODS * period_s or (facts.received > 1 and not facts.rate_hz)
    return f"no image for {facts.quiet_s:.2f} s" if silent else ""


def _slowness(facts: InputFacts, period_s: float) -> tuple[str, ...]:
    """What is wrong with how often frames come, if anything is."""
    if not facts.received:
        return ()
    if facts.share is None:
        return (broken_stack(facts.gap_s, period_s),) if facts.used else ()
    return (slow_frames(facts.share, period_s),) if facts.share < SLOW_SHARE else ()


def _names(stops: frozenset[Stop]) -> list[str]:
    return sorted(stop.value for stop in stops)
