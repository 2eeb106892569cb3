"""What ``greenroom run`` says of a shadow: each thing once, counts now and then."""

from typing import Any

from greenroom.local.shadow_news import ShadowNews
from greenroom_operator.api.shadow import ShadowState, ShadowStatus
from greenroom_runtime.contract.flags import FlagStore, Shadow


def flags(percent: int = 100, *, epoch: str = "e1", pinned: bool = True) -> FlagStore:
    """Return a flag store by which v2 shadows v1."""
    shadow = Shadow(version="v2", hundredths=100 * percent, salt="ml/churn", epoch=epoch, latency_ratio=1.5)
    digests = {"v1": f"sha256:{'0' * 64}"} if pinned else {}
    return FlagStore(production="v1", resident=("v1",), digests=digests, shadow=shadow)


def status(state: str = "Comparing", **told: Any) -> ShadowStatus:
    """Return what the operator would write of v2."""
    return ShadowStatus(**{"version": "v2", "state": ShadowState(state), "epoch": "e1", **told})


def find(
    news: ShadowNews,
    told: ShadowStatus | None,
    store: FlagStore | None = None,
    *,
    obeyed: bool = True,
    now: float = 0.0,
) -> list[str]:
    """Return the texts of what is new."""
    return [text for _, text in news.find(told, store or flags(), obeyed=obeyed, now=now)]


def test_readiness_is_told_once_both_processes_obey() -> None:
    """Not while the version is proven, one of them is behind, or what is compared is about to change."""
    news = ShadowNews()
    assert find(news, status("Preparing")) == ["proving the shadow v2 …"]
    assert find(news, status("Waiting"), obeyed=False) == []
    assert find(news, status("Waiting"), flags(pinned=False)) == []
    ready = "the shadow v2 is ready: 100 % of requests are compared with v1"
    assert find(news, status("Waiting")) == [ready]
    assert news.greets
    assert find(news, status("Comparing")) == []
    assert not news.greets
    assert find(news, status(epoch="e2"), flags(epoch="e2")) == [ready]
    assert not news.greets


def test_an_edited_share_is_told() -> None:
    """As soon as both processes obey it."""
    news = ShadowNews()
    find(news, status())
    assert find(news, status(), flags(20), obeyed=False) == []
    told = ["the shadow v2: 20 % of requests are compared with v1"]
    assert find(news, status(), flags(20)) == told


def test_counts_are_told_now_and_then() -> None:
    """At most every three seconds, and only where they have changed."""
    news = ShadowNews()
    find(news, status())
    some = status(requests=10, disagreements=1, summary="10%", latency_ratio="1.1")
    told = ["the shadow v2: 10 requests, 1 answered otherwise (10%), 1.1 times as long"]
    assert find(news, some, now=1.0) == told
    more = status(requests=20, disagreements=1, summary="5%", errors=2, dropped=3, not_comparable=4)
    assert find(news, more, now=2.0) == []
    assert find(news, more, now=4.0) == [
        "the shadow v2: 20 requests, 1 answered otherwise (5%), 2 not answered, 4 not comparable, 3 dropped"
    ]
    assert find(news, more, now=40.0) == []


def test_a_verdict_is_told_once_for_what_is_compared() -> None:
    """And again where something else is compared."""
    news = ShadowNews()
    passed = status(verdict="Pass", message="all is proven")
    told = "the shadow v2 has passed: all is proven"
    assert told in find(news, passed)
    assert find(news, passed) == []
    other = status(verdict="Fail", message="all is lost", epoch="e2")
    assert "the shadow v2 has failed: all is lost" in find(news, other, flags(epoch="e2"))


def test_trouble_is_told_at_once_and_its_changes_now_and_then() -> None:
    """A process in a crash loop does not fill the screen, and what works again is told."""
    news = ShadowNews()
    find(news, status(), now=0.0)
    broken = "the shadow v2 is broken: {}; answers are not affected"
    assert find(news, status("Broken", error="one"), now=0.1) == [broken.format("one")]
    assert find(news, status("Broken", error="two"), now=0.2) == []
    assert find(news, status("Broken", error="two"), now=9.0) == [broken.format("two")]
    works = "the shadow v2 works again: 100 % of requests are compared with v1"
    assert find(news, status(), now=9.1) == [works]


def test_the_end_is_told() -> None:
    """Where it becomes production, and where nobody asks for it any more; not both."""
    over = status("Over", message="v2 is production", epoch=None)
    news = ShadowNews()
    find(news, status())
    assert find(news, over) == ["the shadow is over: v2 is production"]
    assert find(news, over) == []
    assert find(news, None) == []
    find(news, status())
    assert find(news, None) == ["v2 is no longer shadowed"]
    assert find(news, None) == []
