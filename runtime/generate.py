"""The way of one token, top to bottom: propose → stage → forward → accept → commit → observe.

One loop for every drafter, shape, acceptance rule and exit policy; plain decoding is the drafter that
proposes nothing. Steps yield the forwards they need (`request.py`), so that many answers can share them. The
cache holds the committed rows. The token drawn last is not among them: it is the root
of the next tree.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

from forerun.errors import ContextFullError
from forerun.runtime.output import Output
from forerun.runtime.protocol import (
    Acceptance,
    Accepted,
    Draft,
    DraftContext,
    Drafter,
    ExitPolicy,
    Observation,
    Result,
    RowLogits,
    SessionLike,
    draw,
)
from forerun.runtime.request import Asking, Events, Request, drive
from forerun.runtime.settings import Sampling
from forerun.runtime.stats import Stats
from forerun.runtime.verify import Verified, outputs_of, stage_draft, verify

# Rows of one verify call at most, the root included.
MAX_TREE_ROWS = 64


@dataclass
class Company:
    """How many other answers take their steps with one, as the batch says that they are in."""

    others: int = 0


@dataclass
class Run:
    """Everything that one answer in the making needs.

    `token_ids` start as the prompt and grow by every token kept. The first rows of the prompt may be in the
    cache already; `generate` runs the rest. `on_prefill(done, total)` is called after each piece of the
    prompt.
    """

    session: SessionLike
    sequence: int
    token_ids: list[int]
    drafter: Drafter
    acceptance: Acceptance
    exits: ExitPolicy
    sampling: Sampling
    cancelled: Callable[[], bool] = lambda: False
    on_prefill: Callable[[int, int], None] | None = None
    stats: Stats = field(default_factory=Stats)
    company: Company = field(default_factory=Company)


@dataclass(frozen=True)
class Started:
    """An answer that is about to start: its steps, and what brings the run's statistics up to date in between."""

    events: Events
    update_stats: Callable[[], None] = lambda: None


# A loop: what starts an answer into an output. This module's, or the native core's.
Begin = Callable[[Run, Output], Started]


def generate(run: Run, output: Output) -> Iterator[str]:
    """Generate into `output` until it has a finish reason; the iterator yields text as it becomes certain.

    Raises what `start` raises, before it returns.
    """
    return drive(run.session, start(run, output))


def begin(run: Run, output: Output) -> Started:
    """This loop as a `Begin`; raises what `start` raises."""
    return Started(start(run, output))


def start(run: Run, output: Output) -> Events:
    """An answer whose requests the caller runs.

    Raises, before it returns, `ContextFullError` if the prompt alone does not fit the cache and `OptionError`
    for options of a drafter or exit policy that this model cannot have.
    """
    if run.exits.points(run.session.config.layers):
        run.session.abilities.require_layer_subsets(f"the exit policy {run.exits.name!r}")
    run.drafter.begin(run.session, run.sequence, run.token_ids)
    check_prompt_fits(len(run.token_ids), run.session.capacity)
    return decode(run, output)


def check_prompt_fits(prompt_tokens: int, capacity: int, what: str = "the prompt") -> None:
    """Raise `ContextFullError` for a prompt longer than a sequence."""
    if prompt_tokens > capacity:
        raise ContextFullError(
            f"{what} has {prompt_tokens} tokens, the context holds {capacity};"
            " shorten the prompt or load the model with a larger context"
        )


def decode(run: Run, output: Output) -> Events:
    """The loop: the prompt, then one verify call after the other."""
    if output.remaining == 0:
        output.finish("length")
        return
    first_token = yield from prefill(run)
    if first_token is None:
        output.finish("cancelled")
        return
    run.token_ids.append(first_token)
    run.stats.generated_tokens = 1
    yield output.take((first_token,)).text
    while output.finish_reason is None:
        if run.cancelled():
            yield output.finish("cancelled")
        elif run.session.length(run.sequence) >= run.session.capacity:
            yield output.finish("context_full")
        else:
            yield (yield from decode_step(run, output))


def prefill(run: Run) -> Generator[Request | str, Result, int | None]:
    """Run the prompt's rows that are not in the cache, `max_rows` at a time, and draw the first token.

    Returns None when cancelled between two pieces; the pieces run so far stay in the cache. Each piece is a
    step: an empty text follows it.
    """
    session, sequence = run.session, run.sequence
    total = len(run.token_ids)
    start = session.length(sequence)
    run.stats.prompt_tokens, run.stats.cached_tokens = total, start
    assert start < total, "the last row of a prompt is always run: its logits draw the first token"
    first_token: int | None = None
    while start < total:
        if run.cancelled():
            return None
        with run.stats.timed("prefill"):
            stop = min(start + session.config.max_rows, total)
            first_token = yield from prefill_piece(run, start, stop)
            start = stop
        if run.on_prefill is not None:
            run.on_prefill(start, total)
        if start < total:
            yield ""
    return first_token


def prefill_piece(run: Run, start: int, stop: int) -> Asking[int | None]:
    """Run and commit the prompt's rows `start` … `stop`-1; draws the next token if they end the prompt."""
    session, sequence, taps = run.session, run.sequence, run.drafter.taps
    token_ids = tuple(run.token_ids[start:stop])
    staged = session.stage(sequence, token_ids)
    is_last = stop == len(run.token_ids)
    wanted = (len(token_ids) - 1,) if is_last else ()
    rows = [(sequence, row) for row in staged]
    sampling = [run.sampling] * len(wanted)
    result = yield Request(rows, None, wanted, taps, run.sampling.looks_at_few, sampling)
    token = draw(session, outputs_of(result)[0], run.sampling, stop) if is_last else None
    kept_taps = {layer: result.taps[layer].copy() for layer in taps}
    session.commit(sequence, staged)
    run.drafter.observe(Observation(token_ids, start, taps=kept_taps))
    return token


def decode_step(run: Run, output: Output) -> Asking[str]:
    """One verify call: from the last drawn token to the tokens that follow it; returns their text."""
    with run.stats.timed("draft"):
        draft = propose(run, output.remaining)
    with run.stats.timed("verify"):
        stage_draft(run.session, run.sequence, draft)
        start = run.session.length(run.sequence)
        draws = run.sampling if run.sampling.looks_at_few and not run.acceptance.reads_logits else None
        verified = yield from verify(
            run.session, run.sequence, draft, run.exits, run.drafter.taps, start, draws
        )
    with run.stats.timed("commit"):
        accepted = accept(run, draft, verified)
        taken = output.take(accepted.token_ids)
        commit(run, draft, verified, accepted, taken.count)
    return taken.text


def propose(run: Run, remaining: int) -> Draft:
    """Ask the drafter for a tree that fits the cache and the tokens that may still come."""
    room = run.session.capacity - run.session.length(run.sequence)
    points = run.exits.points(run.session.config.layers)
    context = DraftContext(
        session=run.session,
        sequence=run.sequence,
        token_ids=run.token_ids,
        row_limit=min(MAX_TREE_ROWS, run.session.config.max_rows, room),
        # Every call draws one token beyond the drafted ones it keeps. A branch counts the root, too.
        depth_limit=min(remaining, run.session.config.max_gather) - 1,
        reusable_sublayers=2 * (points[0] + 1) if points else 2 * run.session.config.layers,
        sampling=run.sampling,
        beside=run.company.others,
    )
    draft = run.drafter.propose(context)
    assert draft.tree.token_ids[0] == context.root, "the root of a draft is the last drawn token"
    tree = draft.tree.limited(context.row_limit, context.depth_limit)
    assert tree is draft.tree or not draft.done, "a drafter that leaves rows staged keeps to the limits"
    return draft if tree is draft.tree else Draft(tree)


def accept(run: Run, draft: Draft, verified: Verified) -> Accepted:
    """Walk the tree with the acceptance rule; the token after a row at depth k stands at position len + k."""
    position = len(run.token_ids)

    def draw_at(logits: RowLogits, depth: int) -> int:
        return draw(run.session, logits, run.sampling, position + depth)

    return run.acceptance.accept(draft, verified.logits, draw_at)


def commit(run: Run, draft: Draft, verified: Verified, accepted: Accepted, count: int) -> None:
    """Keep the rows that drew the first `count` tokens; the last of these tokens is the next root."""
    path = accepted.path[:count]
    start = run.session.length(run.sequence)
    run.session.commit(run.sequence, path)
    run.token_ids += accepted.token_ids[:count]
    run.stats.generated_tokens += count
    run.stats.record_call(draft.tree, path, verified.exit_layers, draft.origin)
    taps = {layer: states[list(path)] for layer, states in verified.taps.items()}
    committed = tuple(draft.tree.token_ids[row] for row in path)
    run.drafter.observe(Observation(committed, start, draft, path, taps))
