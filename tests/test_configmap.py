# SPDX-License-Identifier: Apache-2.0
"""Settings in a ConfigMap: read as a file would be, and never guessed."""

from __future__ import annotations

import pytest

from outrider import resources
from outrider_operator.sources import configmap

TEXT = "apiVersion: outrider.dev/v1alpha1\nkind: Settings\n"


def found(data, **more):
    raw = {
        "metadata": {"namespace": "ns", "name": "outrider-settings", "resourceVersion": "3", **more},
        "data": data,
    }
    return {("ns", "outrider-settings"): configmap.trim(raw)}


def test_a_document_of_settings_is_read() -> None:
    made = configmap.read(found({"settings.yaml": TEXT + "currency: EUR\n"}), "ns", "outrider-settings")
    assert isinstance(made, resources.Settings)
    assert made.currency == "EUR"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "ConfigMap ns/outrider-settings: does not exist; the Helm chart makes it"),
        (found({"other": TEXT}), "settings.yaml: is missing"),
        (found(None), "settings.yaml: is missing"),
        (found({"settings.yaml": TEXT + "currency: euro\n"}), "settings.yaml:3: currency"),
        (found({"settings.yaml": TEXT + "curency: EUR\n"}), "unknown field"),
        (found({"settings.yaml": ""}), "must hold one document"),
    ],
)
def test_whatever_else_there_is_is_a_problem_with_its_place(given, words) -> None:
    made = configmap.read(given, "ns", "outrider-settings")
    assert isinstance(made, tuple)
    assert words in str(made[0])


def test_nothing_else_of_the_configmap_is_kept() -> None:
    [kept] = found({"settings.yaml": TEXT, "other": "x"}, labels={"a": "b"}, uid="u").values()
    assert kept == {
        "metadata": {"namespace": "ns", "name": "outrider-settings", "resourceVersion": "3"},
        "data": {"settings.yaml": TEXT},
    }
