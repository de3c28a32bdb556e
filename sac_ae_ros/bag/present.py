"""What of a score people look at: a page, a video and a recording, in a second pass over the bag."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sac_ae_ros.bag import policy_bag, report
from sac_ae_ros.bag.look import look_again, most_disagreeing, most_novel
from sac_ae_ros.bag.score import OVERLAY, PAGE
from sac_ae_ros.video import Film, Moment, draw, poster

if TYPE_CHECKING:
    from sac_ae_ros.bag.evaluate import Evaluation, Options, Tick
    from sac_ae_ros.bag.look import Look
    from sac_ae_ros.bag.reader import Bag
    from sac_ae_ros.bag.score import Outputs

MOST_CLIP_FRAMES = 3000  # of the page's video, so that an hour's drive still makes a page that opens
CLIP_CRF = 30
LEFT_OUT = "The video was left out on request."


def present(
    bag: Bag,
    result: Evaluation,
    options: Options,
    facts: dict[str, Any],
    out: Path,
    outputs: Outputs,
    on_look: Callable[[Tick], None] = lambda tick: None,
) -> None:
    """Writes the page, the recording and the videos of a scored bag into `out`; files of these names are replaced.

    Args:
        bag: the recording.
        result: what `evaluate` gave of it; at least one tick.
        options: what it was given.
        facts: the same as `score.to_dict` tells it.
        out: the folder, which exists.
        outputs: which of them.
        on_look: called with each tick that was looked at again.

    Raises:
        RunError: something that is not ours has the name of what is written.
    """
    novel, disagreeing = most_novel(result), most_disagreeing(result)
    wanted = {*novel, *disagreeing}
    moments: dict[int, report.Moment] = {}
    with ExitStack() as stack:
        names = [action.name for action in result.spec.actions]
        recording = stack.enter_context(policy_bag.writing(out, names))
        films = stack.enter_context(_filming(result, out)) if outputs.video else None
        for look in look_again(bag, result, options):
            recording.add(look)
            if look.index in wanted:
                moments[look.index] = report.moment(result, look)
            if films is not None:
                films.add(look)
            on_look(look.tick)
    policy_bag.write_layout(out, result.image_topic, names)
    headings = {"Most novel moments": novel, "Moments farthest from the recorded commands": disagreeing}
    chosen = {heading: [moments[i] for i in found if i in moments] for heading, found in headings.items()}
    report.write(out / PAGE, result, facts, chosen, LEFT_OUT if films is None else films.clip)


class _Films:
    """The overlay video, and the small one for the page, which is there when they are closed."""

    clip: report.Clip

    def __init__(self, result: Evaluation, overlay: Film, small: Film, every: int) -> None:
        self._result, self._overlay, self._small, self._every = result, overlay, small, every

    def add(self, look: Look) -> None:
        """Takes each tick in turn."""
        tick, at_s = look.tick, look.tick.at_s
        novelty = "" if tick.score is None else f"   novelty {tick.score:.2f}"
        mark = "" if tick.recorded is None else "   yellow: recorded"
        moment = Moment(look.camera, tick.values, f"{at_s:6.1f} s{novelty}{mark}", tick.recorded)
        self._overlay.add(at_s, draw(moment, self._result.spec.actions))
        if look.index % self._every == 0:
            self._small.add(at_s, report.side_by_side(look))


@contextmanager
def _filming(result: Evaluation, out: Path) -> Iterator[_Films]:
    rate_hz = 1 / result.spec.control_period_s
    every = -(-len(result.ticks) // MOST_CLIP_FRAMES)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with (
            Film(out / OVERLAY, rate_hz, preset="veryfast") as overlay,
            Film(path, rate_hz / every, crf=CLIP_CRF, preset="veryfast") as small,
        ):
            films = _Films(result, overlay, small, every)
            yield films
        films.clip = report.Clip(path.read_bytes(), poster(path))
