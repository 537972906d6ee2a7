"""Registries: names, options typed by signatures, and messages that list what is allowed."""

from dataclasses import dataclass

import pytest

from forerun.errors import OptionError
from forerun.registry import Registry, options_of


class Plain:
    name = "plain"


@dataclass(frozen=True)
class Rich:
    name = "rich"
    layers: int
    threshold: float = 0.5
    skip: tuple[int, ...] = ()
    eager: bool = False
    label: str | None = None


class Placed:
    name = "placed"

    def __init__(self, session: object, depth: int | None = None) -> None:
        self.session, self.depth = session, depth


THINGS: Registry[object] = Registry("thing", (Plain, Rich, Placed))


def test_it_is_a_mapping_in_order() -> None:
    assert list(THINGS) == ["plain", "rich", "placed"]
    assert THINGS["rich"] is Rich
    assert len(THINGS) == 3


def test_options_get_their_types() -> None:
    assert THINGS.create("rich:layers=12,threshold=.25,skip=3+7,eager=yes,label=a:b=c") == Rich(
        12, 0.25, (3, 7), True, "a:b=c"
    )
    assert THINGS.create(" rich : layers = 1 , label = none ") == Rich(1)
    assert isinstance(THINGS.create("plain"), Plain)


def test_context_goes_where_it_fits() -> None:
    session = object()
    placed = THINGS.create("placed:depth=3", session=session, other=1)
    assert isinstance(placed, Placed)
    assert (placed.session, placed.depth) == (session, 3)
    assert isinstance(THINGS.create("plain", session=session), Plain)
    with pytest.raises(OptionError, match="no option 'session'"):
        THINGS.create("placed:session=x", session=session)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", "unknown thing 'nothing'; known: plain, rich, placed"),
        ("", "unknown thing ''"),
        ("plain:x=1", "it has no options"),
        ("rich", "needs layers"),
        ("rich:layers", "is not key=value"),
        ("rich:layers=1,layers=2", "given twice"),
        ("rich:layers=1,depth=2", r"no option 'depth'; options: layers=INT, threshold=FLOAT \(0.5\)"),
        ("rich:layers=x", "layers='x' is not a whole number"),
        ("rich:layers=1,threshold=x", "is not a number"),
        ("rich:layers=1,eager=maybe", "is not true or false"),
        ("rich:layers=1,skip=1+x", "is not a list of whole numbers"),
    ],
)
def test_messages_list_what_is_allowed(spec: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        THINGS.create(spec)


def test_options_can_be_listed() -> None:
    assert [option.describe() for option in options_of(Rich)] == [
        "layers=INT",
        "threshold=FLOAT (0.5)",
        "skip=INTS (empty)",
        "eager=BOOL (false)",
        "label=STR (None)",
    ]
