# SPDX-License-Identifier: Apache-2.0
"""What editing files does to calls: verdicts flip, mistakes change nothing, and nobody needs the control plane to be up."""

from __future__ import annotations

import json
import threading
import time

import pytest
from tests import laptop
from tests.scenarios import recorder

SERVER = "tools/recorder"
FLIP_SECONDS_MAX = 3.0
"""The promise is one second; a loaded machine gets three. What it took is printed."""


def policy(*rules):
    return laptop.policy("outrider-system/p", SERVER, *rules)


@pytest.fixture
def seen():
    with recorder.running() as found:
        yield found


@pytest.fixture
def home(tmp_path, seen):
    files = {"servers.yaml": laptop.server(SERVER, seen.url), "p.yaml": policy(laptop.allow("echo"))}
    with laptop.running(tmp_path, files) as made:
        yield made


def verdict(home, tool="echo", server=SERVER):
    reply = home.agent.post(*home.agent.request(server, tool))
    if reply.status == 404:
        return "404"
    return laptop.reason(reply.result) or laptop.text(reply.result)


def flips(home, wanted, tool="echo", server=SERVER):
    """Seconds until the verdict is `wanted`."""
    began = time.monotonic()
    laptop.until(lambda: verdict(home, tool, server) == wanted, f"{tool} is {wanted}", 10)
    took = time.monotonic() - began
    print(f"a verdict flipped after {took * 1000:.0f} ms")
    return took


def test_editing_a_policy_flips_a_verdict_within_a_second(home):
    assert verdict(home) == "{}"
    taken = []
    for _ in range(3):
        home.write("p.yaml", policy(laptop.allow("echo"), laptop.deny("echo", message="Not today.")))
        taken.append(flips(home, "Denied"))
        home.write("p.yaml", policy(laptop.allow("echo")))
        taken.append(flips(home, "{}"))
    assert max(taken) < FLIP_SECONDS_MAX


def test_a_broken_file_keeps_the_last_good_and_status_names_file_line_and_field(home):
    broken = policy(laptop.allow("echo", "slow")).replace('"tools"', '"tolls"').replace(", ", ",\n")
    home.write("p.yaml", broken)
    [problem] = laptop.until(lambda: home.status()["problems"], "the mistake is reported")
    assert problem["file"] == "p.yaml"
    assert "tolls" in broken.splitlines()[problem["line"] - 1]
    assert problem["field"].endswith("tolls")
    assert verdict(home) == "{}"
    assert verdict(home, "slow") == "ToolUnknown"

    home.write("p.yaml", policy(laptop.allow("echo", "slow")))
    assert flips(home, "{}", "slow") < FLIP_SECONDS_MAX
    assert laptop.until(lambda: home.status()["problems"] == [], "the report is withdrawn")


def test_deleting_a_policy_revokes_what_it_allowed(home):
    assert verdict(home) == "{}"
    (home.files / "p.yaml").unlink()
    assert flips(home, "404") < FLIP_SECONDS_MAX


def test_adding_a_server_makes_it_callable(home, seen):
    assert verdict(home, server="tools/second") == "404"
    more = laptop.documents(
        laptop.server("tools/second", seen.url),
        laptop.policy("outrider-system/second", "tools/second", laptop.allow("echo")),
    )
    home.write("second.yaml", more)
    assert flips(home, "{}", server="tools/second") < FLIP_SECONDS_MAX
    assert [tool["name"] for tool in home.agent.tools("tools/second")] == ["echo"]


class Callers(threading.Thread):
    """Agents that never stop calling; `answers` is what they were told."""

    def __init__(self, home):
        super().__init__()
        self._agent = home.agent
        self._over = threading.Event()
        self.answers = []

    def run(self):
        while not self._over.is_set():
            try:
                result = self._agent.call(SERVER, "echo")
                self.answers.append(laptop.reason(result) or laptop.text(result))
            except (OSError, AssertionError) as error:
                self.answers.append(repr(error))

    def stop(self):
        self._over.set()
        self.join()
        return self.answers


def test_no_allowed_call_fails_while_the_operator_dies_and_comes_back(home):
    calling = Callers(home)
    calling.start()
    try:
        home.operator.kill()
        down = len(calling.answers)
        laptop.until(lambda: len(calling.answers) > down + 100, "calls go on without the operator")
        home.start_operator()
        laptop.until(
            lambda: any(each["acked"] for each in home.status()["sidecars"]), "the proxy is back on its stream"
        )  # fmt: skip
    finally:
        answers = calling.stop()
    assert len(answers) > 100
    assert set(answers) == {"{}"}
    home.write("p.yaml", policy(laptop.allow("slow")))
    assert flips(home, "ToolUnknown") < 3 * FLIP_SECONDS_MAX


def test_a_proxy_restarted_without_an_operator_serves_the_last_good_configuration(home):
    assert verdict(home) == "{}"
    laptop.until((home.state / "last-good.json").exists, "the configuration is kept")
    home.operator.kill()
    home.proxy.kill()
    began = time.monotonic()
    home.start_proxy()
    print(f"serving {time.monotonic() - began:.2f} s after its start")
    assert verdict(home) == "{}"
    assert verdict(home, "slow") == "ToolUnknown"


@pytest.mark.parametrize("damage", ["content", "version", "half"])
def test_a_damaged_last_good_configuration_is_not_served(home, damage):
    home.operator.kill()
    home.proxy.kill()
    file = home.state / "last-good.json"
    kept = json.loads(file.read_bytes())
    if damage == "content":
        kept["content"]["servers"] = []
    if damage == "version":
        kept["version"] = "0" * 64
    whole = json.dumps(kept)
    file.write_text(whole[: len(whole) // 2] if damage == "half" else whole)
    home.start_proxy(ready=False)
    assert not home.is_ready()
    assert verdict(home) == "NotReady"
    assert "last good configuration" in home.proxy.text()


def test_a_proxy_that_lost_its_operator_many_times_dials_as_eagerly_as_at_first(home):
    for number in range(5):
        home.operator.kill()
        home.start_operator()
        # An answered stream starts the back-off anew: what is edited now is in force soon, the fifth time too.
        wanted = "Denied" if number % 2 else "{}"
        denials = [laptop.deny("echo", message="No.")] if number % 2 else []
        home.write("p.yaml", policy(laptop.allow("echo"), *denials))
        assert flips(home, wanted) < FLIP_SECONDS_MAX
        laptop.until(lambda: any(one["acked"] for one in home.status()["sidecars"]), "the proxy is back")
    assert home.proxy.text().count("config stream lost") >= 5
