"""Field paths, on messages that no library made."""

from types import SimpleNamespace as Message

import numpy as np
import pytest

from sac_ae_ros.core.errors import ConfigError
from sac_ae_ros.core.field_path import get, parse, path


def test_a_path_becomes_steps_and_text_again():
    steps = parse("points[0].positions[12]")
    assert steps == ("points", 0, "positions", 12)
    assert path(steps) == "points[0].positions[12]"


@pytest.mark.parametrize("text", ["", ".", "linear.", "Linear", "data[]", "data[-1]", "data[0][1]", "data[0]x", "a b"])
def test_what_is_no_path_is_refused(text):
    with pytest.raises(ConfigError, match=r"command\.fields: expected a field path"):
        parse(text, "command.fields")


def test_numbers_are_read_out_of_lists_and_arrays():
    message = Message(points=[Message(positions=np.array([1.0, 2.5], np.float32))], on=True)
    assert get(message, parse("points[0].positions[1]")) == 2.5
    assert get(message, parse("on")) == 1.0


@pytest.mark.parametrize("text", ["speed", "points[1]", "points[0].positions", "points", "name"])
def test_where_there_is_no_number_the_error_names_the_field(text):
    message = Message(points=[Message(positions=np.zeros(2))], name="left")
    with pytest.raises(ConfigError, match="field '") as caught:
        get(message, parse(text))
    assert text in str(caught.value)
