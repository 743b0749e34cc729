"""The configuration: JSON round trip, and what it refuses."""

import json
from typing import Any

import pytest

from sdatc_models.config import ModelConfig, ScheduleConfig, base, from_json, lite, tiny, to_json


@pytest.mark.parametrize("config", [lite(), base(), tiny()])
def test_round_trip(config: ModelConfig) -> None:
    again = from_json(to_json(config))
    assert again == config
    assert isinstance(again.vae.channels, tuple)


def changed(path: str, value: Any) -> str:
    """The tiny config's JSON with one field set."""
    content = json.loads(to_json(tiny()))
    *parents, last = path.split(".")
    where = content
    for parent in parents:
        where = where[parent]
    where[last] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    "path, value, says",
    [
        ("surprise", 1, "config has unknown fields: surprise"),
        ("vae.code", "os.system", "config.vae has unknown fields: code"),
        ("dcm", 5, "config.dcm must be an object"),
        ("dcm.dim", "64", "config.dcm.dim"),
        ("dcm.dim", 6.5, "config.dcm.dim"),
        ("dcm.enabled", 1, "config.dcm.enabled"),
        ("dcm.window", True, "config.dcm.window"),
        ("vae.channels", 8, "config.vae.channels"),
        ("vae.channels", [8, "8"], "config.vae.channels"),
        ("unet.context", "none", "config.unet.context"),
        ("unet.prediction", "noise", "config.unet.prediction must be one of epsilon, v, residual"),
        ("pcam.kind", "best", "config.pcam.kind must be one of none, prompt, softmax, pcam"),
        ("guidance", float("nan"), "config.guidance"),
        ("guidance", None, "config.guidance"),
    ],
)
def test_a_wrong_field_is_named(path: str, value: Any, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        from_json(changed(path, value))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named() -> None:
    content = json.loads(to_json(tiny()))
    del content["dcm"]["dim"]
    with pytest.raises(ValueError, match=r"config\.dcm.*dim"):
        from_json(json.dumps(content))


@pytest.mark.parametrize("text", ["", "[]", "7", "{", "null"])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        from_json(text)


def test_whole_numbers_stand_for_decimals_and_optional_fields_keep_their_defaults() -> None:
    content = json.loads(changed("guidance", 2))
    del content["pcam"]
    config = from_json(json.dumps(content))
    assert config.guidance == 2.0 and isinstance(config.guidance, float)
    assert config.pcam.length == 5


def test_factors_follow_from_the_scales() -> None:
    assert (base().vae.factor, base().multiple) == (8, 64)
    assert (lite().vae.factor, tiny().vae.factor) == (8, 8)


def test_few_steps_are_ten_for_the_whole_way_from_noise_and_less_for_a_part() -> None:
    assert base().schedule.few == 10 and lite().schedule.few == 2
    assert ScheduleConfig(start=20).few == 1
