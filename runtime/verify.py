"""The verify call: the whole model over the rows of a draft, with early exits on the way."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from forerun.runtime.protocol import Draft, Evidence, ExitPolicy, Result, RowLogits, SessionLike
from forerun.runtime.request import Asking, Part, Request
from forerun.runtime.settings import Sampling
from forerun.runtime.tree import Tree


@dataclass
class Verified:
    """Per row of the tree: its final logits ([V] float32 or a stand-in, valid until the next `forward`) and the
    layer it left after (None = it passed all); `taps` maps a layer to [rows, D] float32, NaN where a row left
    before."""

    logits: list[RowLogits]
    exit_layers: list[int | None]
    taps: dict[int, np.ndarray] = field(default_factory=dict)


def stage_draft(session: SessionLike, sequence: int, draft: Draft) -> None:
    """Stage the rows of a draft that its drafter has not staged already."""
    staged = len(draft.done)
    assert session.staged(sequence) == staged, "a drafter leaves staged exactly the rows it says it does"
    if staged < len(draft.tree):
        session.stage(sequence, draft.tree.token_ids[staged:], draft.tree.parents[staged:])


def verify(
    session: SessionLike,
    sequence: int,
    draft: Draft,
    exits: ExitPolicy,
    taps: tuple[int, ...] = (),
    committed: int = 0,
    draws: Sampling | None = None,
) -> Asking[Verified]:
    """Run the staged rows of `draft` to the end, or to where the exit policy lets each of them leave.

    `committed` is the length of the sequence: the position of the root. With `draws`, rows are only drawn from, in this
    way; an exit policy needs their logits all the same.
    """
    rows = len(draft.tree)
    # Rows that have passed fewer sublayers come first, so that those active at a step are always a prefix.
    done = draft.done + (0,) * (rows - len(draft.done))
    order = sorted(range(rows), key=done.__getitem__) if draft.done else list(range(rows))
    layers = session.config.layers
    points = exits.points(layers)
    if not points:
        return (yield from _verify_full(sequence, order, taps, draws))
    nowhere = np.full((rows, session.config.hidden_size), np.nan, np.float32)
    verified = Verified([np.empty(0)] * rows, [None] * rows, dict.fromkeys(taps, nowhere))
    passed = 0
    for layer in points:
        wanted = tuple(tap for tap in taps if passed <= tap <= layer)
        extra = _extra(exits, layer, wanted)
        result = yield from _run(sequence, draft.tree, order, 2 * (layer + 1), wanted + extra)
        _keep_taps(verified, result, order, wanted)
        order = _let_rows_leave(verified, result, order, exits, layer, committed, draft)
        passed = layer + 1
        if not order:
            return verified
    wanted = tuple(tap for tap in taps if tap >= passed)
    result = yield from _run(sequence, draft.tree, order, None, wanted)
    _keep_taps(verified, result, order, wanted)
    for index, row in enumerate(order):
        verified.logits[row] = result.logits[index]
    return verified


def outputs_of(result: Result) -> list[RowLogits]:
    """What tokens are drawn from, for each row asked for."""
    return list(result.drawable) or list(result.logits)


def _verify_full(
    sequence: int, order: list[int], taps: tuple[int, ...], draws: Sampling | None
) -> Asking[Verified]:
    """All rows through all layers in one call: the path of every run without exits, kept short."""
    result = yield Request(
        [(sequence, row) for row in order],
        taps=taps,
        draws=draws is not None,
        sampling=() if draws is None else [draws] * len(order),
    )
    outputs = outputs_of(result)
    verified = Verified(outputs[:], [None] * len(order))
    for index, row in enumerate(order):
        verified.logits[row] = outputs[index]
    _keep_taps(verified, result, order, taps)
    return verified


def _run(
    sequence: int, tree: Tree, order: list[int], sublayers: int | None, taps: tuple[int, ...]
) -> Asking[Part]:
    """Bring the rows of `order` to `sublayers` (None: all of them); their logits and taps there."""
    listed = _close_gaps(tree, order)
    indices = [index for index, row in enumerate(listed) if row in order]
    result = yield Request([(sequence, row) for row in listed], sublayers, indices, taps)
    return Part(result.logits, {layer: result.taps[layer][indices] for layer in taps})


def _close_gaps(tree: Tree, order: list[int]) -> list[int]:
    """`order` followed by the rows that left but lie between two of its rows.

    The lower one reads their keys in the layers to come, and they read the upper one's, so they have to come
    along in the same call. Rows that left above all others are pending ancestors, which the core carries by
    itself.
    """
    staying = set(order)
    between: set[int] = set()
    for row in order:
        gap = []
        parent = tree.parents[row]
        while parent >= 0 and parent not in staying:
            gap.append(parent)
            parent = tree.parents[parent]
        between.update(gap if parent >= 0 else ())
    return order + sorted(between)


def _let_rows_leave(
    verified: Verified,
    result: Part,
    order: list[int],
    exits: ExitPolicy,
    layer: int,
    committed: int,
    draft: Draft,
) -> list[int]:
    """Record the rows that leave after `layer` with their logits; return those that go on."""
    positions = tuple(committed + draft.tree.depths[row] for row in order)
    hidden = result.taps[layer] if exits.wants_hidden else None
    leaving = exits.leaving(Evidence(layer, result.logits, positions, hidden))
    staying = []
    for index, row in enumerate(order):
        if leaving[index]:
            # A copy: the rows that go on overwrite the session's logits.
            verified.logits[row] = result.logits[index].copy()
            verified.exit_layers[row] = layer
        else:
            staying.append(row)
    return staying


def _extra(exits: ExitPolicy, layer: int, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """The tap that the policy itself looks at, unless it is asked for already."""
    return (layer,) if exits.wants_hidden and layer not in wanted else ()


def _keep_taps(verified: Verified, result: Result, order: Sequence[int], taps: Sequence[int]) -> None:
    """Copy taps of the rows that ran, in tree order."""
    for layer in taps:
        states = result.taps[layer]
        kept = np.full((len(verified.logits), states.shape[1]), np.nan, dtype=np.float32)
        kept[list(order)] = states
        verified.taps[layer] = kept
