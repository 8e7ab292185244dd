# SPDX-License-Identifier: Apache-2.0
"""What admission answers: a pod with the proxy in it or a refusal, and whether one of our objects makes sense in itself.

Called by handlers for every admission request, on kopf's loop; what it asks of the rest runs on the main one. It creates
nothing, so that a dry run is one and whoever else reaches the port changes nothing. When something it must know cannot be found out in time it refuses: an agent without its
proxy would go round every policy.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, Unpack

from outrider import injection, manifests
from outrider.injection import shapes
from outrider_operator import apiobjects

ASKING_SECONDS_MAX = 2.0
"""For each question to the API server; the webhook itself is given ten."""

PROBLEMS_TOLD_MAX = 10
_SERVICE_ACCOUNTS = "system:serviceaccounts"


class May(Protocol):
    """`cluster.Cluster.may`."""

    def __call__(
        self, username: str, groups: Sequence[str], **about: Unpack[apiobjects.Attributes]
    ) -> Coroutine[Any, Any, bool]: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """What is asked of others.

    `options` gives None while the settings have not been read; `ca` the certificates to trust, "" before there are any; `told`
    hears webhook, answer (allowed, injected, refused, failed) and seconds.
    """

    options: Callable[[], injection.Options | None]
    ca: Callable[[], str]
    may: May
    told: Callable[[str, str, float], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Review:
    """One request: the object as it is to be written."""

    body: Mapping[str, Any]
    namespace: str


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """`refusal` is "" for yes; `body` the object to write instead, None when it stays as it is."""

    refusal: str = ""
    body: Mapping[str, Any] | None = None


class Desk:
    """Answers. `main` is the loop on which `parts` live."""

    def __init__(self, parts: Parts, main: asyncio.AbstractEventLoop) -> None:
        self._parts = parts
        self._main = main

    async def inject(self, review: Review) -> Answer:
        """For a new pod of who opted in."""
        began = time.monotonic()
        answer, word = await self._injected(review)
        self._tell("inject", word, time.monotonic() - began)
        return answer

    async def validate(self, review: Review) -> Answer:
        """For one of our objects; what concerns several objects is a condition in its status instead."""
        began = time.monotonic()
        found = () if _leaving(review.body) else manifests.kubernetes_object(dict(review.body))
        problems = found if isinstance(found, tuple) else ()
        said = [f"{each.field}: {each.message}" if each.field else each.message for each in problems]
        if len(said) > PROBLEMS_TOLD_MAX:
            said = [*said[:PROBLEMS_TOLD_MAX], f"and {len(said) - PROBLEMS_TOLD_MAX} more"]
        self._tell("validate", "refused" if said else "allowed", time.monotonic() - began)
        return Answer("; ".join(said))

    async def _injected(self, review: Review) -> tuple[Answer, str]:
        options, ca = self._parts.options(), self._parts.ca()
        if options is None or not ca:
            what = "its settings have not been read" if options is None else "it has no certificate yet"
            return Answer(f"Outrider cannot inject yet: {what}; try again in a moment"), "failed"
        try:
            facts = injection.Facts(ca, may_mint=await self._may_mint(review))
        except Exception as error:  # noqa: BLE001 - whatever keeps it from being known, an agent must not come in unseen
            why = str(error) or "the API server did not answer in time"
            return Answer(
                f"Outrider cannot find out what ServiceAccount {shapes.account(review.body)} may do ({why[:300]}); try again"
            ), "failed"
        made = injection.inject(review.body, facts, options)
        if isinstance(made, injection.Refused):
            return Answer(f"Outrider: {made.message}"), "refused"
        if isinstance(made, injection.LeftAlone):
            return Answer(), "allowed"
        return Answer(body=made.pod), "injected"

    async def _may_mint(self, review: Review) -> bool:
        """Whether the pod's ServiceAccount may create tokens: of any in its namespace, or of itself."""
        namespace, account = review.namespace, shapes.account(review.body)
        groups = (_SERVICE_ACCOUNTS, f"{_SERVICE_ACCOUNTS}:{namespace}", "system:authenticated")
        anybody: apiobjects.Attributes = {
            "verb": "create", "group": "", "resource": "serviceaccounts", "subresource": "token", "namespace": namespace,
        }  # fmt: skip
        itself: apiobjects.Attributes = {**anybody, "name": account}
        who = f"system:serviceaccount:{namespace}:{account}"
        asked = (self._asked(self._parts.may(who, groups, **about)) for about in (anybody, itself))
        return any(await asyncio.gather(*asked))

    async def _asked(self, question: Coroutine[Any, Any, bool]) -> bool:
        """Of the main loop. Raises TimeoutError, or whatever the question raises."""
        future = asyncio.run_coroutine_threadsafe(question, self._main)
        async with asyncio.timeout(ASKING_SECONDS_MAX):
            return await asyncio.wrap_future(future)

    def _tell(self, webhook: str, answer: str, seconds: float) -> None:
        self._main.call_soon_threadsafe(self._parts.told, webhook, answer, seconds)


def _leaving(body: Mapping[str, Any]) -> bool:
    """Whether it is being deleted: whoever takes a finalizer off must not be asked for sense."""
    return "deletionTimestamp" in shapes.mapping(body, "metadata")
