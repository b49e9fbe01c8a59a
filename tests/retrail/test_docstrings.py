"""The examples in the client's docstrings are true."""

import doctest
import inspect

import pytest

import retrail
from retrail import config, reporting, trajectory, wire


@pytest.mark.parametrize("module", [config, reporting, trajectory, wire])
def test_examples_are_true(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("name", [n for n in retrail.__all__ if not n.endswith("Error")])
def test_every_public_name_has_an_example(name: str) -> None:
    thing = getattr(retrail, name)
    methods = [m for n, m in inspect.getmembers(thing) if not n.startswith("_")]
    public = [thing, *(m for m in methods if callable(m) or isinstance(m, property))]
    assert [member for member in public if ">>>" not in (member.__doc__ or "")] == []


def test_every_error_is_documented_and_a_publish_error() -> None:
    errors = [getattr(retrail, name) for name in retrail.__all__ if name.endswith("Error")]
    assert len(errors) == 7
    for error in errors:
        assert issubclass(error, retrail.PublishError)
        assert error.__doc__
