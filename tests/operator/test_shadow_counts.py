"""Sums over shadows that come, go and begin anew, while operators are asked and die in any order."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom_operator.controller.shadow_counts import (
    MAX_SHADOWS,
    Counted,
    ShadowView,
    dump_counted,
    parse_counted,
)
from greenroom_runtime.contract.report import INT64_MAX
from greenroom_runtime.contract.shadow import (
    DIFFERENCE_BOUNDS,
    SECONDS_BOUNDS,
    ProcessReport,
    SegmentCounts,
    ShadowCounts,
    ShadowReport,
)

EPOCH = "v4@1#a"


def report(
    *, compared: int = 0, instance: str = "1", ends: int = 0, epoch: str = EPOCH, **counted: Any
) -> ShadowReport:
    """Return what a shadow tells."""
    counts = ShadowCounts(received=compared, compared=compared, **counted)
    process = ProcessReport(epoch=epoch, counts=counts)
    return ShadowReport(pod="churn-a", instance=instance, ends=ends, process=process)


def view(uid: str, told: ShadowReport | None, **more: Any) -> ShadowView:
    """Return one shadow as it was heard."""
    return ShadowView(pod=f"churn-{uid}", uid=uid, report=told, **more)


def hear(counted: Counted, *views: ShadowView, mirrors: Mapping[str, int | None] | None = None) -> Counted:
    """Return the counts after these are all the shadows that there are."""
    return counted.observe(views, epoch=EPOCH, mirrors=mirrors or {})


def test_the_same_report_counts_once() -> None:
    """However often a shadow is asked, and however late an older report comes."""
    counted = hear(Counted(), view("a", report(compared=5)))
    for told in (5, 7, 7, 6):
        counted = hear(counted, view("a", report(compared=told)))
    assert counted.total.compared == 7


def test_what_is_of_another_epoch_is_not_counted() -> None:
    """A shadow that lags behind, or has told nothing yet."""
    empty = ShadowReport(pod="churn-a", instance="1")
    counted = hear(
        Counted(), view("a", report(compared=5, epoch="v3@1#a")), view("b", empty), view("c", None)
    )
    assert counted.total == Counted().total
    assert (
        counted.observe([view("a", report(compared=5, epoch=""))], epoch="", mirrors={}).total.compared == 0
    )


def test_a_shadow_without_a_report_keeps_what_it_told() -> None:
    """It is there and silent: it is neither counted again later, nor lost."""
    counted = hear(Counted(), view("a", report(compared=5)))
    counted = hear(counted, view("a", None, silent=True))
    counted = hear(counted, view("a", report(compared=8)))
    assert counted.total.compared == 8


def test_another_life_is_added() -> None:
    """A supervisor that was killed counts from 0 on; what the life before told last is heard, once."""
    former = report(compared=9)
    counted = hear(Counted(), view("a", report(compared=5)))
    for _ in range(2):
        counted = hear(counted, view("a", report(compared=2, instance="2"), former=former))
    assert counted.total.compared == 11
    assert counted.crashes == 1


def test_a_life_that_began_and_ended_between_two_passes_is_added() -> None:
    """Nobody had told of it before, and it is heard once."""
    counted = Counted()
    for _ in range(2):
        counted = hear(counted, view("a", report(compared=2, instance="2"), former=report(compared=9)))
    assert (counted.total.compared, counted.crashes) == (11, 1)


def test_a_pod_that_is_gone_gives_its_last_words() -> None:
    """With them or without, its numbers stay; and no life of it is remembered."""
    counted = hear(Counted(), view("a", report(compared=5)), view("b", report(compared=1)))
    counted = hear(counted, view("a", report(compared=6), gone=True), view("b", None))
    assert (counted.total.compared, set(counted.shadows)) == (7, {"b"})
    assert hear(counted).total.compared == 7


def test_another_epoch_begins_with_nothing_but_what_has_ended_before() -> None:
    """Ends are counted for a supervisor's life, so those of before are subtracted; numbers begin at 0."""
    counted = hear(Counted(), view("a", report(compared=5, ends=2)), mirrors={"p": 7}).begin()
    assert (counted.total.compared, counted.crashes, counted.dropped) == (0, 0, 0)
    counted = hear(counted, view("a", report(compared=1, ends=3)), mirrors={"p": 9})
    assert (counted.total.compared, counted.crashes, counted.dropped) == (1, 1, 2)


def test_dropped_requests_are_counted_over_restarts() -> None:
    """A serving process counts from its start; one that is silent for a while is not counted twice."""
    counted = Counted()
    for told in (3, None, 5, 1, 1):
        counted = hear(counted, mirrors={"p": told})
    assert counted.dropped == 6
    assert hear(counted, mirrors={}).dropped == 6


def test_histograms_and_segments_are_added_class_by_class() -> None:
    """Also where one shadow has told none of them yet, or fewer."""
    full: dict[str, Any] = {"differences": (1, 2), "seconds": (3,), "production_seconds": (0, 4)}
    segments = (SegmentCounts(compared=5, disagreed=1), SegmentCounts(compared=2))
    counted = hear(
        Counted(),
        view("a", report(compared=1, segments=segments, **full)),
        view("b", report(compared=1, segments=segments[:1], differences=(1,))),
        view("c", report(compared=1)),
    )
    total = counted.total
    assert total.differences[:3] == (2, 2, 0)
    assert len(total.differences) == len(DIFFERENCE_BOUNDS) + 1
    assert (total.seconds[0], total.production_seconds[1]) == (3, 4)
    assert len(total.seconds) == len(SECONDS_BOUNDS) + 1
    assert [(one.compared, one.disagreed) for one in total.segments] == [(10, 2), (2, 0)]


def test_numbers_stay_within_what_a_status_holds() -> None:
    """A pod may tell the largest number there is, and another one the same."""
    counted = hear(
        Counted(), *(view(uid, report(compared=INT64_MAX)) for uid in "ab"), mirrors={"p": INT64_MAX, "q": 1}
    )
    assert counted.total.compared == INT64_MAX
    assert counted.dropped == INT64_MAX
    assert parse_counted(dump_counted(counted)) == counted


def test_the_number_of_shadows_is_bounded() -> None:
    """Beyond it further ones are not counted, and status still holds what each of the others told."""
    huge: dict[str, Any] = {
        "differences": tuple(range(10**6, 10**6 + len(DIFFERENCE_BOUNDS) + 1)),
        "segments": (SegmentCounts(compared=10**6, disagreed=10**6),) * 32,
    }
    counted = hear(
        Counted(),
        *(
            view(f"{number:036}", report(compared=number, instance="i" * 64, **huge))
            for number in range(MAX_SHADOWS + 10)
        ),
    )
    assert len(counted.shadows) == MAX_SHADOWS
    text = dump_counted(counted)
    assert len(text) < 512 * 1024
    assert parse_counted(text) == counted


@pytest.mark.parametrize(
    "text",
    ["", "?", "eJw=", "bm90aGluZw==", "eJyrVirOSEzJLy9WsqpWKs1MUbJSSlSq1UHhAgDiaQr6", "x" * 100_000],
)
def test_what_is_no_sum_is_refused(text: str) -> None:
    """Edited by hand, cut short, or of another release: a ValueError, in bounded memory."""
    with pytest.raises(ValueError):  # noqa: PT011 its words are for nobody
        parse_counted(text)


# Any order


@dataclass
class Shadow:
    """A pod with a shadow, and what it has really counted."""

    uid: str
    instance: int = 0
    compared: int = 0
    heard: ShadowReport | None = None
    """What the operator's newest scrape of it gave."""
    former: ShadowReport | None = None

    def report(self) -> ShadowReport:
        """Say how things are now."""
        return report(compared=self.compared, instance=str(self.instance))


@dataclass
class World:
    """Shadows, scrapes of them, and a status that is written now and then."""

    shadows: list[Shadow] = field(default_factory=list)
    gone: list[Shadow] = field(default_factory=list)
    """Pods that are no more, of which a scrape is still known."""
    status: str = field(default_factory=lambda: dump_counted(Counted()))
    counted: Counted = field(default_factory=Counted)
    """What the present operator's newest pass came to."""
    started: int = 0
    truth: dict[tuple[str, int], int] = field(default_factory=dict)
    """For each life, the most that a scrape saw."""
    lost: dict[tuple[str, int], int] = field(default_factory=dict)
    """For each life that an operator's death may have cost, what status had of it."""

    def start(self) -> None:
        """Start a pod."""
        self.started += 1
        self.shadows.append(Shadow(uid=str(self.started)))

    def count(self, index: int) -> None:
        """Let a shadow compare."""
        for shadow in self._pick(index):
            shadow.compared += index + 1

    def restart(self, index: int) -> None:
        """Kill a supervisor; another one begins at 0."""
        for shadow in self._pick(index):
            shadow.instance, shadow.compared = shadow.instance + 1, 0

    def scrape(self, index: int) -> None:
        """Ask a shadow."""
        for shadow in self._pick(index):
            told = shadow.report()
            if shadow.heard is not None and shadow.heard.instance != told.instance:
                shadow.former = shadow.heard
            shadow.heard = told
            self.truth[shadow.uid, shadow.instance] = shadow.compared

    def remove(self, index: int) -> None:
        """Delete a pod."""
        for shadow in self._pick(index):
            self.shadows.remove(shadow)
            self.gone.append(shadow)

    def make_pass(self, *, write: bool) -> None:
        """Make a pass over what is in status; it writes at once where lives have begun or ended."""
        known = parse_counted(self.status)
        left = [shadow for shadow in self.gone if shadow.uid in known.shadows]
        self.counted = known.observe(
            [
                *(self._view(shadow) for shadow in self.shadows),
                *(self._view(shadow, gone=True) for shadow in left),
            ],
            epoch=EPOCH,
            mirrors={},
        )
        if write or known.lives != self.counted.lives:
            self.status = dump_counted(self.counted)
            self.gone.clear()

    def die(self) -> None:
        """Let the operator die: what it had heard and not written has to be heard again, or is lost."""
        for shadow in (*self.shadows, *self.gone):
            shadow.heard = shadow.former = None
        self.gone.clear()
        known = parse_counted(self.status)
        for uid, instance in self.truth:
            alive = any((one.uid, one.instance) == (uid, instance) for one in self.shadows)
            if not alive:
                self.lost[uid, instance] = 1
        self.counted = known

    def bounds(self) -> tuple[int, int]:
        """Return the least and the most that may have been counted."""
        most = sum(self.truth.values())
        least = sum(told for life, told in self.truth.items() if life not in self.lost)
        return least, most

    def _view(self, shadow: Shadow, *, gone: bool = False) -> ShadowView:
        return view(shadow.uid, shadow.heard, former=shadow.former, gone=gone)

    def _pick(self, index: int) -> list[Shadow]:
        return [self.shadows[index % len(self.shadows)]] if self.shadows else []


ACTS: list[tuple[Any, ...]] = [
    (World.start,),
    *[(World.count, index) for index in range(3)] * 3,
    *[(World.scrape, index) for index in range(3)] * 3,
    *[(World.restart, index) for index in range(2)],
    (World.remove, 0),
    (World.remove, 1),
]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    acts=st.lists(st.one_of(st.sampled_from(ACTS), st.sampled_from(["pass", "write", "die"])), max_size=80),
)
def test_whatever_a_scrape_saw_is_counted_once(acts: list[Any]) -> None:
    """Nothing counts twice, and nothing is lost but what an operator had heard, unwritten, when it died."""
    world = World()
    for act in acts:
        if act == "die":
            world.die()
        elif act in ("pass", "write"):
            world.make_pass(write=act == "write")
        else:
            act[0](world, *act[1:])
            if act[0] is World.scrape:
                world.make_pass(write=False)  # that something is new calls for a pass
        assert world.counted.total.compared <= sum(world.truth.values())
    for index in range(len(world.shadows)):
        world.scrape(index)
    world.make_pass(write=True)
    least, most = world.bounds()
    assert least <= world.counted.total.compared <= most


@settings(max_examples=100, deadline=None, derandomize=True)
@given(acts=st.lists(st.sampled_from(ACTS), max_size=60))
def test_one_operator_loses_nothing(acts: list[Any]) -> None:
    """While no operator dies the sum is exactly what scrapes saw, of each life of each shadow."""
    world = World()
    for act in acts:
        act[0](world, *act[1:])
        world.make_pass(write=False)
    world.make_pass(write=True)
    assert world.counted.total.compared == sum(world.truth.values())
    assert replace(world.counted) == parse_counted(world.status)
