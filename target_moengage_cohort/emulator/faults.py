"""Fault injection: the faults that affect the next requests."""

from __future__ import annotations

import random
import typing as t

import msgspec

from .model import CohortSync, Fault, Refusal

SERVER_ERRORS = (500, 502, 503, 504)


class ShareOfErrors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A share of requests, drawn at random with a seed, that fail with one of the statuses."""

    share: t.Annotated[float, msgspec.Meta(ge=0, le=1)]
    seed: int = 0
    statuses: t.Annotated[tuple[int, ...], msgspec.Meta(min_length=1)] = SERVER_ERRORS
    applied: bool = False


class Latency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds between a request and its answer, for the next `count` requests or for all."""

    seconds: t.Annotated[float, msgspec.Meta(ge=0)]
    count: t.Annotated[int, msgspec.Meta(ge=1)] | None = None


class Poison(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Members that a request must not list; `{id}` in the message is replaced by the one listed."""

    ids: frozenset[str]
    message: str = "A member is not valid"
    error_type: str = "MissingAttributeError"
    attribute: str | None = "members"


class Scripted(msgspec.Struct):
    """A fault, and the number of requests that it will still affect."""

    fault: Fault
    left: int


class FaultsView(msgspec.Struct, frozen=True):
    """The current faults; poison members are only counted, so that no identifier is shown."""

    scripted: list[Scripted]
    share: ShareOfErrors | None
    latency: Latency | None
    poisoned: int
    held: bool


class Faults:
    """The current faults."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Remove all faults, and release the answers that are held back."""
        self.held = False
        self._script: list[Scripted] = []
        self._share: ShareOfErrors | None = None
        self._random = random.Random(0)  # noqa: S311 - faults must repeat, not be secret
        self._latency: Latency | None = None
        self._slow_left = 0
        self._poison: Poison | None = None

    def schedule(self, fault: Fault, count: int) -> None:
        """Inject a fault into the next `count` requests, after the faults scheduled before."""
        self._script.append(Scripted(fault, count))

    def fail_share(self, share: ShareOfErrors) -> None:
        """Make a share of the requests fail from now on."""
        self._share = share
        self._random = random.Random(share.seed)  # noqa: S311 - faults must repeat

    def slow_down(self, latency: Latency) -> None:
        """Delay answers from now on."""
        self._latency = latency
        self._slow_left = latency.count or 0

    def poison(self, poison: Poison) -> None:
        """Refuse requests that list certain members from now on."""
        self._poison = poison

    def hold(self, *, held: bool) -> None:
        """Hold back all answers from now on, or release them."""
        self.held = held

    def next(self, cohort_id: str | None) -> Fault | None:
        """Take the next fault for a request of this cohort, if there is one."""
        for scripted in self._script:
            if scripted.fault.cohort_id in {None, cohort_id}:
                scripted.left -= 1
                if scripted.left <= 0:
                    self._script.remove(scripted)
                return scripted.fault
        if self._share is None or self._random.random() >= self._share.share:
            return None
        status = self._random.choice(self._share.statuses)
        return Fault("share", status, applied=self._share.applied)

    def delay(self) -> float:
        """Take the delay of the next answer, in seconds."""
        if self._latency is None:
            return 0.0
        seconds = self._latency.seconds
        if self._latency.count is not None:
            self._slow_left -= 1
            if self._slow_left <= 0:
                self._latency = None
        return seconds

    def poisoned(self, sync: CohortSync) -> Refusal | None:
        """Return the error of a request that lists a poison member, or None."""
        if self._poison is None:
            return None
        listed = [*(self._poison.ids & sync.by_uid.keys())]
        listed += self._poison.ids & sync.by_anonymous_id.keys()
        listed += self._poison.ids & set(sync.by_uid.values())
        if not listed:
            return None
        message = self._poison.message.replace("{id}", min(listed))
        return Refusal(400, self._poison.error_type, message, self._poison.attribute)

    def view(self) -> FaultsView:
        """Return the current faults."""
        return FaultsView(
            scripted=[msgspec.structs.replace(scripted) for scripted in self._script],
            share=self._share,
            latency=self._latency,
            poisoned=len(self._poison.ids) if self._poison else 0,
            held=self.held,
        )
