"""Compare the structure of the shop's responses with recorded ones."""

from typing import Any


def assert_known(response: Any, recorded: Any, path: str = "") -> None:
    """Assert that all fields are in the recorded response, with values of the same types."""
    if isinstance(response, dict):
        assert isinstance(recorded, dict), path
        for name, value in response.items():
            assert name in recorded, f"{path}.{name} is nowhere in the recorded page"
            assert_known(value, recorded[name], f"{path}.{name}")
    elif isinstance(response, list):
        assert isinstance(recorded, list), path
        # Merge the recorded elements, since fields may be missing in some of them.
        merged = _merged(recorded)
        for value in response:
            if merged is not None:
                assert_known(value, merged, f"{path}[]")
    elif response is not None and recorded is not None:
        assert _kind(response) == _kind(recorded), f"{path}: {response!r} is not like {recorded!r}"


def _kind(value: object) -> type:
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)


def _merged(values: list[Any]) -> Any:
    """Return one value with all fields of the values."""
    values = [value for value in values if value is not None]
    if values and all(isinstance(value, dict) for value in values):
        names = dict.fromkeys(name for value in values for name in value)
        return {name: _merged([v[name] for v in values if name in v]) for name in names}
    if values and all(isinstance(value, list) for value in values):
        return [item for value in values for item in value]
    return values[0] if values else None
