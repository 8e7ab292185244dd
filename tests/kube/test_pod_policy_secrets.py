# SPDX-License-Identifier: Apache-2.0
"""The API server alone keeps what a sidecar lends where it is: Secrets that only it mounts, tokens and folders that are its own.

Like test_pod_policy, of which this is the part about credentials: no webhook is here at all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests import pods
from tests.kube import apiserver, policed

from outrider.podnotes import Annotation

Pod = dict[str, Any]
Bend = Callable[[Pod], object]
NOTES = {Annotation.SECRETS: "crm/salesforce=chosen"}


@pytest.fixture(scope="module")
def place(cluster: apiserver.Cluster) -> Iterator[policed.Place]:
    yield from policed.place(cluster)


def bent(bend: Bend) -> Pod:
    made = copy.deepcopy(pods.injected(pods.pod(notes=NOTES)))
    bend(made)
    return made


def instead(old: str, new: str) -> Bend:
    def bend(made: Pod) -> None:
        ours = pods.ours(made)
        assert old in ours["args"]
        ours["args"] = [new if each == old else each for each in ours["args"]]

    return bend


def mounted(**change: Any) -> Bend:
    """The sidecar's own mount of the Secret, but for what is said."""

    def bend(made: Pod) -> None:
        found = [each for each in pods.ours(made)["volumeMounts"] if each["name"] == "outrider-secret-0"]
        found[0].update(change)

    return bend


def made_of(**source: Any) -> Bend:
    """The volume of the Secret, made of something else."""

    def bend(made: Pod) -> None:
        volume = next(each for each in made["spec"]["volumes"] if each["name"] == "outrider-secret-0")
        volume.pop("secret")
        volume.update(source)

    return bend


MOUNT = {"name": "outrider-secret-0", "mountPath": "/s", "readOnly": True}
ARGUMENTS = "arguments are not as Outrider writes them"
MOUNTS = "mounts something that is not its own"
VOLUME = "so that somebody else could read it"
ELSEWHERE = "mounts a volume that is the sidecar's"

WAYS_ROUND: dict[str, tuple[Bend, str]] = {
    "a login with another token": (
        instead("--vault-token-file=/var/run/outrider/tokens/vault", "--vault-token-file=/var/run/secrets/x/token"), ARGUMENTS
    ),
    "a login with another token besides": (
        lambda made: pods.ours(made)["args"].append("--vault-token-file=/var/run/secrets/x/token"), ARGUMENTS
    ),
    "an actor that is somebody else": (
        instead("--exchange-token-file=/var/run/outrider/tokens/exchange", "--exchange-token-file=/etc/outrider/token"), ARGUMENTS
    ),
    "credentials from the agent's folder": (
        instead("--secrets-dir=/var/run/outrider/secrets", "--secrets-dir=/etc/outrider"), ARGUMENTS
    ),
    "a missing folder": (
        lambda made: pods.ours(made)["args"].remove("--secrets-dir=/var/run/outrider/secrets"), ARGUMENTS
    ),
    "one flag instead of another": (
        instead("--secrets-dir=/var/run/outrider/secrets", "--port=16000"), ARGUMENTS
    ),
    "credentials from a folder that the agent writes": (
        lambda made: (
            made["spec"]["volumes"].append({"name": "theirs", "emptyDir": {}}),
            pods.ours(made)["volumeMounts"].append(
                {"name": "theirs", "mountPath": "/var/run/outrider/secrets/ops.jira", "readOnly": True}
            ),
        ),
        MOUNTS,
    ),
    "a folder under the name of a Secret": (made_of(emptyDir={}), VOLUME),
    "a ConfigMap under the name of a Secret": (made_of(configMap={"name": "x"}), VOLUME),
    "a disk under the name of a Secret": (made_of(persistentVolumeClaim={"claimName": "x"}), VOLUME),
    "a Secret that the sidecar may write": (mounted(readOnly=False), MOUNTS),
    "a Secret over one of our tokens": (mounted(mountPath="/var/run/outrider/tokens/vault"), MOUNTS),
    "a Secret over our code": (mounted(mountPath="/opt/outrider"), MOUNTS),
    "a Secret by a path that goes back": (mounted(mountPath="/var/run/outrider/secrets/../ca"), MOUNTS),
    "a Secret over all servers": (mounted(mountPath="/var/run/outrider/secrets"), MOUNTS),
    "a Secret below a server's folder": (mounted(mountPath="/var/run/outrider/secrets/crm.salesforce/token"), MOUNTS),
    "one file of a Secret": (mounted(subPath="token"), MOUNTS),
    "a container that mounts the sidecar's Secret": (
        lambda made: made["spec"]["containers"][0]["volumeMounts"].append(MOUNT), ELSEWHERE
    ),
    "an init container that mounts the sidecar's Secret": (
        lambda made: made["spec"]["initContainers"].append(pods.container("i", volumeMounts=[MOUNT])), ELSEWHERE
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS_ROUND)
def test_a_way_to_the_sidecars_credentials_is_refused(place: policed.Place, way: str) -> None:
    bend, words = WAYS_ROUND[way]
    said = place.create(bent(bend))
    assert "ValidatingAdmissionPolicy" in said, said
    assert words in said


def test_as_many_secrets_as_a_pod_may_choose_are_taken(place: policed.Place) -> None:
    chosen = ",".join(f"crm/server-{number}=secret.{number}" for number in range(16))
    given = pods.pod(pods.container(), pods.container("other"), notes={Annotation.SECRETS: chosen})
    assert place.create(pods.injected(given)) == ""


def test_a_pod_as_an_operator_that_is_being_replaced_writes_it_is_taken(place: policed.Place) -> None:
    """The policy is new at once in an upgrade; the operator that injects is the old one for a while."""
    new = ("--vault-token-file=", "--exchange-token-file=", "--secrets-dir=")
    made = copy.deepcopy(pods.injected(pods.pod()))
    ours = pods.ours(made)
    ours["args"] = [word for word in ours["args"] if not word.startswith(new)]
    assert len(ours["args"]) == 12
    assert place.create(made) == ""


def test_a_volume_whose_name_is_only_like_ours_is_its_authors(place: policed.Place) -> None:
    mount = {"name": "outrider-secret-config", "mountPath": "/data"}
    volumes = [{"name": "outrider-secret-config", "configMap": {"name": "x"}}]
    assert place.create(pods.injected(pods.pod(pods.container(volumeMounts=[mount]), volumes=volumes))) == ""
