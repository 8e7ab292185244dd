# SPDX-License-Identifier: Apache-2.0
"""The shared token of a laptop is the only one that opens; in a cluster the API server says whose a token is."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import os

import pytest

from outrider_operator import apiobjects, pods, reviewer


def test_an_absent_file_is_made_private_with_thirty_two_random_bytes(tmp_path) -> None:
    one, two = tmp_path / "deep" / "one", tmp_path / "two"
    reviewer.ensure(one)
    reviewer.ensure(two)
    assert one.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(one.read_text().strip())) == 32
    assert one.read_text() != two.read_text()


def test_an_existing_token_is_kept(tmp_path) -> None:
    file = tmp_path / "token"
    reviewer.ensure(file)
    before = file.read_text()
    reviewer.ensure(file)
    assert file.read_text() == before


@pytest.mark.parametrize(("content", "mode", "words"), [
    ("x" * 40, 0o644, "chmod 600"), ("short", 0o600, "holds no token"), ("", 0o600, "holds no token"),
    ("a" * 20 + " " + "b" * 20, 0o600, "holds no token"),
])  # fmt: skip
def test_a_file_that_protects_nothing_is_refused_with_what_to_do(tmp_path, content, mode, words) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(reviewer.TokenFileError, match=words):
        reviewer.ensure(file)


def test_a_pipe_is_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(reviewer.TokenFileError, match="not a regular file"):
        reviewer.read(tmp_path / "pipe")


def test_only_the_token_opens_and_a_replaced_one_counts_at_once(tmp_path) -> None:
    file = tmp_path / "token"
    reviewer.ensure(file)
    who = reviewer.FileReviewer(file)
    token = file.read_text().strip()

    def review(text):
        return asyncio.run(who.review(text))

    assert review(token) == reviewer.LAPTOP
    for other in ("", token[:-1], token + "0", token.upper() + "é", "\udcff" + token[1:]):
        assert isinstance(review(other), reviewer.Refused)
    file.write_text("n" * 64)
    assert isinstance(review(token), reviewer.Refused)
    assert review("n" * 64) == reviewer.LAPTOP
    file.unlink()
    assert isinstance(review("n" * 64), reviewer.Refused)


POD = pods.Pod("uid-1", "agents", "bot-1", "bot")
GOOD = apiobjects.Review("system:serviceaccount:agents:bot", ("system:authenticated",), "u", "bot-1", "uid-1")
PRINCIPAL = reviewer.Principal("agents", "bot", "bot-1", "uid-1")


class ApiServer:
    """Answers as it is told, and counts."""

    def __init__(self, answer=GOOD):
        self.answer, self.asked, self.pods, self.now = answer, [], {"uid-1": POD}, 0.0
        self.released = asyncio.Event()
        self.released.set()
        self.at_once = self.most_at_once = 0

    async def ask(self, token, audience):
        self.asked.append((token, audience))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.released.wait()
        self.at_once -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def reviewer(self, **more):
        return reviewer.TokenReviewer(
            self.ask, pod=self.pods.get, clock=lambda: self.now, wall=lambda: 1e9, **more
        )


def token(**claims):
    return "h." + base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=") + ".s"


def test_a_pods_token_stands_for_its_pod_and_is_asked_about_once_a_minute() -> None:
    async def run():
        server = ApiServer()
        who = server.reviewer()
        found = [await who.review("t"), await who.review("t")]
        server.now = 61.0
        return [*found, await who.review("t")], server.asked

    found, asked = asyncio.run(run())
    assert found == [PRINCIPAL] * 3
    assert asked == [("t", "config.outrider.dev")] * 2


def test_asking_again_does_not_believe_what_is_remembered() -> None:
    async def run():
        server = ApiServer()
        who = server.reviewer()
        await who.review("t")
        server.answer = None
        return await who.review("t"), await who.again("t")

    before, after = asyncio.run(run())
    assert before == PRINCIPAL
    assert after.status == 401


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (dataclasses.replace(GOOD, pod="", pod_uid=""), "bound to no pod"), (dataclasses.replace(GOOD, pod_uid=""), "bound to no pod"),
        (dataclasses.replace(GOOD, pod_uid="uid-9"), "not known here as injected"),
        (dataclasses.replace(GOOD, username="system:serviceaccount:agents:other"), "not known here as injected"),
        (dataclasses.replace(GOOD, username="jane"), "jane is not a ServiceAccount"), (None, "does not accept this token"),
    ],
)  # fmt: skip
def test_whoever_is_no_injected_pod_is_told_why(answer, words) -> None:
    found = asyncio.run(ApiServer(answer).reviewer().review("t"))
    assert (found.status, words in found.text) == (401, True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (token(aud=["https://kubernetes"], exp=2e9), "made for other audiences"),
        (token(aud="config.outrider.dev", exp=1), "has expired"),
        (token(aud=["config.outrider.dev"], exp=2e9), "revoked, its pod is gone"),
        (token(aud=5), "made for other audiences"), ("h.é.s".encode().hex(), "projected token"),
        ("a.b", "projected token"), (token(aud=["config.outrider.dev"], exp="soon"), "revoked"),
        ("h." + base64.urlsafe_b64encode(b"[1]").decode() + ".s", "projected token"),
    ],
)  # fmt: skip
def test_a_token_that_is_not_accepted_is_explained_by_what_it_says_of_itself(given, words) -> None:
    assert words in asyncio.run(ApiServer(None).reviewer().review(given)).text


@pytest.mark.parametrize("given", ["", "x" * 20_000, "é"])
def test_what_can_be_no_token_is_nobodys_question(given) -> None:
    server = ApiServer()
    assert asyncio.run(server.reviewer().review(given)).status == 401
    assert server.asked == []


def test_a_refusal_is_remembered_for_five_seconds() -> None:
    async def run():
        server = ApiServer(None)
        who = server.reviewer()
        await who.review("t")
        server.answer = GOOD
        early = await who.review("t")
        server.now = 5.0
        return early, await who.review("t")

    early, late = asyncio.run(run())
    assert (early.status, late) == (401, PRINCIPAL)


def test_a_pod_that_is_seen_at_last_is_let_in_at_once() -> None:
    async def run():
        server = ApiServer()
        server.pods = {}
        who = server.reviewer()
        early = await who.review("t")
        server.pods["uid-1"] = POD
        return early, await who.review("t"), len(server.asked)

    early, late, asked = asyncio.run(run())
    assert (early.status, late, asked) == (401, PRINCIPAL, 1)


def test_an_api_server_that_does_not_answer_is_an_outage_and_is_not_remembered() -> None:
    async def run():
        server = ApiServer(OSError("connection refused"))
        who = server.reviewer()
        early = await who.review("t")
        server.answer = GOOD
        return early, await who.review("t")

    early, late = asyncio.run(run())
    assert (early.status, "connection refused" in early.text) == (503, True)
    assert late == PRINCIPAL


def test_a_storm_is_asked_about_a_few_at_a_time_and_one_token_once() -> None:
    async def run():
        server = ApiServer()
        server.released.clear()
        who = server.reviewer()
        waiting = [asyncio.create_task(who.review(f"t{number % 100}")) for number in range(300)]
        await asyncio.sleep(0.01)
        server.released.set()
        return set(await asyncio.gather(*waiting)), len(server.asked), server.most_at_once

    assert asyncio.run(run()) == ({PRINCIPAL}, 100, 16)


def test_whoever_gave_up_waiting_takes_the_answer_from_nobody_else() -> None:
    async def run():
        server = ApiServer()
        server.released.clear()
        who = server.reviewer()
        first, second = (asyncio.create_task(who.review("t")) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0)
        server.released.set()
        return await second

    assert asyncio.run(run()) == PRINCIPAL


def test_callers_of_the_api_are_people_and_their_audience_is_another() -> None:
    async def run():
        server = ApiServer(dataclasses.replace(GOOD, username="jane", groups=("dev",), pod="", pod_uid=""))
        return await server.reviewer().caller("t"), server.asked

    found, asked = asyncio.run(run())
    assert found == reviewer.Caller("jane", ("dev",))
    assert asked == [("t", "api.outrider.dev")]


def test_the_prober_is_known_by_its_account_and_still_by_a_pod() -> None:
    def found(answer, prober):
        server = ApiServer(answer)
        server.pods = {}
        return asyncio.run(server.reviewer(prober=prober).review("t"))

    assert found(GOOD, ("agents", "bot")) == PRINCIPAL
    assert found(GOOD, ("agents", "other")).status == 401
    assert found(dataclasses.replace(GOOD, pod="", pod_uid=""), ("agents", "bot")).status == 401
