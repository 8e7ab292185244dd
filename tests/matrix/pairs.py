# SPDX-License-Identifier: Apache-2.0
"""Pairs of a client and a server: the same script directly and through the proxy, and what differed in what the client saw.

Left out of the comparison, because they are the identity of who answered: `serverInfo`; the capabilities `tasks`, `extensions` and
`experimental`, which do not cross; `completions` of a server that has nothing with arguments; and `listChanged`, since the proxy
announces changes of policy at a server that announces nothing. Where the proxy
carries a call from one era to the other, members that only one era has are left out too, and what cannot be carried is told
apart by `_carried`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from tests import laptop
from tests.conformance import proxied
from tests.matrix import places, script, travellers
from tests.matrix.places import Place
from tests.matrix.travellers import Traveller

MODERN = "2026-07-28"
_IDENTITY = "io.modelcontextprotocol/serverInfo"
_OF_ONE_ERA = frozenset({"resultType", "ttlMs", "cacheScope", "execution"})
_NOT_CROSSING = frozenset({"tasks", "extensions", "experimental"})
_AT_ONCE = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """One cell: what the client saw directly and through the proxy, step by step."""

    traveller: Traveller
    place: Place
    steps: tuple[Mapping[str, Any], ...]
    direct: Mapping[str, Any]
    through: Mapping[str, Any]

    @property
    def crossing(self) -> bool:
        """Whether the proxy stands between two eras here: the server does not speak the client's."""
        return not (self.place.modern if self.traveller.modern else self.place.legacy)

    def differences(self) -> list[str]:
        for which, seen in (("directly", self.direct), ("through the proxy", self.through)):
            if "failed" in seen:
                return [f"{which} it fails: {seen['failed']}"]
        return [*self._greetings(), *self._steps()]

    def _greetings(self) -> Iterator[str]:
        members = ("instructions",) if self.crossing else ("version", "instructions")
        for member in members:
            yield from _unequal(member, self.direct.get(member), self.through.get(member))
        ours, theirs = (_capabilities(each.get("capabilities")) for each in (self.through, self.direct))
        yield from _unequal("capabilities", theirs, ours)
        if self.crossing and self.traveller.modern and self.through["version"] is not None:
            yield from _unequal("version", MODERN, self.through["version"])

    def _steps(self) -> Iterator[str]:
        for step, direct, through in zip(self.steps, self.direct["told"], self.through["told"], strict=True):
            name = " ".join(str(each) for each in (step["do"], step.get("name", step.get("uri", ""))))
            if "error" in direct and not self._fails(step):
                yield f"{name}: fails already directly: {direct['error']}"
            if self.crossing and (expected := self._carried(step)) is not None:
                if not expected(through):
                    yield f"{name}: not carried as promised: {json.dumps(through)[:600]}"
                continue
            yield from _unequal(name, *(self._comparable(step, each) for each in (direct, through)))

    def _fails(self, step: Mapping[str, Any]) -> bool:
        """Steps that are errors, so that nobody takes two equal failures for the same success."""
        unknown = step.get("uri", "").endswith("/none")
        speechless = {step.get("name"), step.get("uri")} & self.traveller.cannot
        return unknown or bool(speechless) or ("rounds" in step and not self.traveller.modern)

    def _comparable(self, step: Mapping[str, Any], told: Mapping[str, Any]) -> Any:
        """A server of the stateless era logs for those who ask for it: nothing for clients that cannot say a level."""
        logs = "logs" in step and not (self.crossing and "level" not in self.traveller.does)
        kept = _plain({key: each for key, each in told.items() if key != "logged" or logs}, self.crossing)
        return kept if self.traveller.answers else _without(kept, self.place.by_client)

    def _carried(self, step: Mapping[str, Any]) -> Any:
        """What must hold of a step that two eras do differently; None when it must be as directly."""
        if self.traveller.modern and "asks" in step:
            return lambda told: (
                "result" in told and "said" not in _text(told) and "sampled" not in _text(told)
            )
        if not self.traveller.modern and "rounds" in step and self.traveller.answers:
            return lambda told: _text(told) == step["rounds"]
        return None


def _text(told: Mapping[str, Any]) -> str:
    blocks = (told.get("result") or {}).get("content", ())
    return " ".join(block.get("text", "") for block in blocks)


def _capabilities(declared: Mapping[str, Any] | None) -> Any:
    """Without what does not cross and without who announces changes."""
    if declared is None:
        return None
    kept = {name: value for name, value in declared.items() if name not in _NOT_CROSSING}
    if not kept.keys() & {"prompts", "resources"}:
        kept.pop("completions", None)
    return {
        name: {key: each for key, each in value.items() if key != "listChanged" and each is not False}
        for name, value in kept.items()
    }


def _plain(value: Any, crossing: bool) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _plain(each, crossing)
            for key, each in value.items()
            if key != _IDENTITY
            and not (crossing and key in _OF_ONE_ERA)
            and not (key == "_meta" and _bare(each))
        }
    return [_plain(each, crossing) for each in value] if isinstance(value, list) else value


def _without(value: Any, names: frozenset[str]) -> Any:
    """Without the tools of these names, in whichever form a client tells them."""
    if isinstance(value, dict):
        return {key: _without(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_without(each, names) for each in value if not _is_named(each, names)]
    return value


def _is_named(value: Any, names: frozenset[str]) -> bool:
    """Whether it is `{"name": name, ...}` or `[name, ...]`."""
    if isinstance(value, dict):
        return value.get("name") in names
    return isinstance(value, list) and bool(value) and isinstance(value[0], str) and value[0] in names


def _bare(meta: Any) -> bool:
    return isinstance(meta, Mapping) and meta.keys() <= {_IDENTITY}


def _unequal(name: str, direct: Any, through: Any) -> Iterator[str]:
    if direct == through:
        return
    if isinstance(direct, dict) and isinstance(through, dict):
        for key in sorted(direct.keys() | through.keys()):
            yield from _unequal(f"{name}.{key}", direct.get(key), through.get(key))
    elif isinstance(direct, list) and isinstance(through, list) and len(direct) == len(through):
        for at, (one, other) in enumerate(zip(direct, through, strict=True)):
            yield from _unequal(f"{name}[{at}]", one, other)
    else:
        yield f"{name}: {json.dumps(direct)[:300]} directly, {json.dumps(through)[:300]} through the proxy"


# Running ----------------------------------------------------------------------------------------------------------------


def missing() -> str:
    """What has to be installed first; "" when nothing is missing."""
    absent = [str(each) for each in [*places.needed(), *travellers.needed()] if not each.exists()]
    if shutil.which("go") is None:
        absent.append("go")
    return (
        f"{', '.join(absent)}: not installed; run `make test`, which installs all but Go 1.26"
        if absent
        else ""
    )


@contextlib.contextmanager
def touring(folder: pathlib.Path) -> Iterator[dict[str, concurrent.futures.Future[list[Pair]]]]:
    """All clients on their way, two at a time: by a client's name, its pairs when it is home."""
    golang = travellers.built(folder)
    with places.running(folder) as urls:
        names = {name: f"matrix/{name.replace(' ', '-')}" for name in urls}
        with proxied.running(folder / "laptop", {names[each]: url for each, url in urls.items()}) as made:
            agent = made.agent
            through = {name: f"http://127.0.0.1:{agent.port}{laptop.path(names[name])}" for name in urls}
            world = _World(folder / "files", urls, through, {"Authorization": f"Bearer {agent.token}"})
            pool = concurrent.futures.ThreadPoolExecutor(_AT_ONCE)
            try:
                yield {each.name: pool.submit(world.visit, each, golang) for each in travellers.TRAVELLERS}
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


@dataclasses.dataclass(frozen=True, slots=True)
class _World:
    files: pathlib.Path
    direct: Mapping[str, str]
    through: Mapping[str, str]
    headers: Mapping[str, str]

    def visit(self, traveller: Traveller, golang: pathlib.Path) -> list[Pair]:
        scripts = {each.name: self._script(traveller, each) for each in places.PLACES}
        visits = []
        for place in places.PLACES:
            direct = place.name if traveller.modern or not place.compared_at else place.compared_at
            told = {"steps": scripts[place.name]}
            visits.append(
                {"key": f"{place.name}, directly", "url": self.direct[direct], "headers": {}, **told}
            )
            visits.append(
                {"key": place.name, "url": self.through[place.name], "headers": self.headers, **told}
            )
        seen = travellers.travel(traveller, visits, golang)
        return [
            Pair(traveller, each, tuple(scripts[each.name]), seen[f"{each.name}, directly"], seen[each.name])
            for each in places.PLACES
        ]

    def _script(self, traveller: Traveller, place: Place) -> list[dict[str, Any]]:
        tag = traveller.name.replace(" ", "-")
        steps = script.steps(script.SCRIPTS[place.name], traveller.does, tag=tag, folder=str(self.files))
        if not traveller.answers:
            steps = [step for step in steps if not step.keys() & {"asks", "rounds"}]
        taken: dict[str, int] = {}
        kept = []
        for step in steps:
            taken[step["do"]] = taken.get(step["do"], 0) + 1
            if taken[step["do"]] <= traveller.most:
                kept.append(step)
        return kept
