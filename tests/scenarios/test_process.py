# SPDX-License-Identifier: Apache-2.0
"""What the proxy's process is made of: which modules it loads, what it weighs, how it starts and how it ends."""

from __future__ import annotations

import json
import pathlib
import signal
import sys

import pytest
from tests import laptop
from tests.scenarios import recorder

SERVER = "tools/recorder"
UNWANTED = ("kopf", "kubernetes", "grpc", "pydantic", "yaml", "outrider.resources", "outrider.compile")
_MODULES = """\
import atexit, json, os, sys
from outrider_sidecar import main
atexit.register(lambda: open(os.environ["MODULES"], "w").write(json.dumps(sorted(sys.modules))))
main.main()
"""


@pytest.fixture
def home(tmp_path):
    with recorder.running() as seen:
        files = {
            "all.yaml": laptop.documents(
                laptop.server(SERVER, seen.url), laptop.policy("outrider-system/p", SERVER, laptop.allow())
            )
        }
        with laptop.running(tmp_path, files) as made:
            yield made


def rss(process):
    """Kilobytes resident."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
    [line] = [each for each in status if each.startswith("VmRSS:")]
    return int(line.split()[1])


def test_a_proxy_that_has_served_calls_has_loaded_none_of_the_control_planes_libraries(
    home, tmp_path, monkeypatch
):
    told = tmp_path / "modules.json"
    monkeypatch.setenv("MODULES", str(told))
    home.proxy.stop()
    home.start_proxy(interpreter=[sys.executable, "-c", _MODULES])
    assert laptop.reason(home.agent.call(SERVER, "echo")) == ""
    home.agent.tools("")
    home.admin("/metrics")
    assert home.proxy.stop() == 0
    modules = json.loads(told.read_bytes())
    assert "outrider_sidecar.pipeline" in modules
    assert "aiohttp" in modules
    loaded = [
        each for each in modules if any(each == name or each.startswith(name + ".") for name in UNWANTED)
    ]
    assert loaded == []


def test_without_a_configuration_it_listens_is_not_ready_and_denies_everything(home):
    home.operator.kill()
    home.proxy.stop()
    (home.state / "last-good.json").unlink()
    home.start_proxy(ready=False)
    print(f"resident before the first snapshot: {rss(home.proxy) / 1024:.1f} MiB")
    assert home.admin("/healthz").status == 200
    assert home.admin("/readyz").status == 503
    assert laptop.reason(home.agent.call(SERVER, "echo")) == "NotReady"
    home.start_operator()
    laptop.until(home.is_ready, "the proxy has found the operator")
    assert laptop.reason(home.agent.call(SERVER, "echo")) == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order_with_exit_code_0_and_a_whole_journal(home, number):
    assert laptop.reason(home.agent.call(SERVER, "echo")) == ""
    home.proxy.signal(number)
    assert home.proxy.stop() == 0
    assert home.verify().returncode == 0


def test_two_proxies_never_share_a_journal(home):
    first = home.proxy
    with pytest.raises(AssertionError, match="ended with 1"):
        home.start_proxy()
    last = json.loads(home.proxy.text().splitlines()[-1])
    assert (last["level"], last["message"][:12]) == ("critical", "cannot start")
    assert first.ended is None
