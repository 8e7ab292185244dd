# SPDX-License-Identifier: Apache-2.0
"""What is looked up inside a pod: found where it is, and clear words when it is not."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest
from tests import journals
from tests.kube import asked, kubelet

from outrider import audit
from outrider.injection import given
from outrider_cli import inpod, kubectl, output

DENIED = "01JD2M6Q6ZC4W2Q0G6X8T9R1AA"
WHO = audit.Principal(workload="agents/bot", teams=("sales",))


@pytest.fixture
def node(tmp_path: pathlib.Path) -> Iterator[kubelet.Node]:
    book = journals.opened(tmp_path / "state" / "journal", journals.Clock())
    book.refusal(
        audit.RefusalRecord(
            event=DENIED, request_id=DENIED, reason="Denied", tool="drop", principal=WHO, server="crm/s"
        )
    )
    book.close()
    with asked.kubectl_on_path(tmp_path / "bin") as made:
        made.does(exec={"agents/bot-0": {given.JOURNAL_PATH: str(tmp_path / "state")}})
        yield made


def test_a_pods_journal_is_searched_where_it_is(node: kubelet.Node) -> None:
    kube = kubectl.Kubectl(kubectl.Site())
    assert inpod.request(kube, "agents/bot-0", DENIED)["reason"] == "Denied"


@pytest.mark.parametrize(
    ("pod", "request_id", "code", "words"),
    [
        ("bot-0", DENIED, output.USAGE, "write it as NAMESPACE/NAME"),
        ("agents/--all", DENIED, output.USAGE, "write it as NAMESPACE/NAME"),
        ("agents/other", DENIED, output.UNREACHABLE, "is it injected and running?"),
        ("agents/bot-0", "01JD2M6Q6ZC4W2Q0G6X8T9R1ZZ", output.NO, "check which pod it was"),
    ],
)
def test_what_cannot_be_found_says_where_to_look(
    node: kubelet.Node, pod: str, request_id: str, code: int, words: str
) -> None:
    with pytest.raises(output.Stop) as caught:
        inpod.request(kubectl.Kubectl(kubectl.Site()), pod, request_id)
    assert caught.value.exit_code == code
    assert words in caught.value.then


def test_explain_in_a_cluster_asks_for_the_pod() -> None:
    ran = asked.outrider("explain", DENIED, "--cluster")
    assert ran.exit_code == 2
    assert "--pod NAMESPACE/NAME" in ran.stderr
    ran = asked.outrider("explain", "call", "crm/s", "query", "--as", "sa:a/b", "--pod", "a/b")
    assert ran.exit_code == 2
    assert "--pod goes with a request id" in ran.stderr
