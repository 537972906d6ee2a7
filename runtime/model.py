"""A loaded model: text or messages in, streamed text out."""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from forerun.errors import OptionError, RuntimeFailure
from forerun.runtime.acceptance import ACCEPTANCE
from forerun.runtime.batch import Batch, OnText, check_drafters, check_prompts
from forerun.runtime.bundle import read_bundle
from forerun.runtime.chat import Message
from forerun.runtime.exits import EXITS
from forerun.runtime.generate import Run, check_prompt_fits
from forerun.runtime.generation import Generation
from forerun.runtime.language import Language, read_language
from forerun.runtime.native_loop import LoopName, choose_loop
from forerun.runtime.opening import open_program
from forerun.runtime.output import Output
from forerun.runtime.protocol import Config, Drafter, ExitPolicy, SessionLike
from forerun.runtime.settings import Sampling, Settings
from forerun.runtime.slots import Slot, Slots
from forerun.runtime.specs import make_drafter

# A text, token ids, or chat messages.
Prompt = str | Sequence[int] | Sequence[Message]


class Model:
    """A model ready to generate, in as many sequences at once as it was loaded for; see `load`.

    It may be shared between threads: steps of different answers take turns.
    """

    def __init__(
        self,
        name: str,
        language: Language,
        open_session: Callable[[int | None], SessionLike],
        *,
        sequences: int = 1,
        threads: int | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        """`open_session(threads)` opens a session with room for `sequences` sequences."""
        self.name = name
        self.language = language
        self._open_session = open_session
        self._on_close = on_close
        self._sequences = sequences
        # Held by whoever is inside the session; a step that ends an answer gives its sequence back, too.
        self._lock = threading.RLock()
        self._session: SessionLike | None = None
        self._is_closed = False
        self._open(threads)

    @property
    def session(self) -> SessionLike:
        """The session that generations share; raises `RuntimeFailure` after `close`."""
        if self._session is None:
            raise RuntimeFailure(f"model {self.name!r} is closed; load it again")
        return self._session

    @property
    def config(self) -> Config:
        """The model's sizes."""
        return self.session.config

    @property
    def threads(self) -> int:
        """Threads of the session."""
        return self.session.threads

    @property
    def sequences(self) -> int:
        """Answers that can be under way at once."""
        return self._sequences

    @property
    def context_length(self) -> int:
        """Positions one sequence holds."""
        return self.session.capacity

    def encode_prompt(self, prompt: Prompt, raw: bool = False) -> list[int]:
        """Token ids of a prompt: messages, or a text that becomes one user message unless `raw`.

        Without a chat template a text is always taken raw. Token ids are taken as they are. Raises
        `OptionError` for an empty prompt, ids outside the vocabulary, or messages without a template.
        """
        if isinstance(prompt, str):
            token_ids = self._encode_text(prompt, raw)
        elif all(isinstance(part, int) for part in prompt):
            token_ids = [int(part) for part in prompt]  # type: ignore[arg-type]
            check_token_ids(token_ids, self.config.vocabulary_size)
        else:
            token_ids = self._encode_messages(prompt)  # type: ignore[arg-type]
        if not token_ids:
            raise OptionError("the prompt is empty; give a text of at least one token")
        return token_ids

    def _encode_text(self, text: str, raw: bool) -> list[int]:
        if not raw and self.language.chat_template is not None:
            if not text.strip():
                return []  # the template would make a prompt of nothing, which nobody means
            return self._encode_messages([{"role": "user", "content": text}])
        token_ids = self.language.tokenizer.encode(text)
        if token_ids and self.language.bos_token_id is not None:
            token_ids.insert(0, self.language.bos_token_id)
        return token_ids

    def _encode_messages(self, messages: Sequence[Message]) -> list[int]:
        if self.language.chat_template is None:
            raise OptionError(f"model {self.name!r} has no chat template; give the prompt as one text")
        return self.language.tokenizer.encode(self.language.chat_template.render(messages))

    def generate(
        self,
        prompt: Prompt,
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        drafter: str | Drafter = "none",
        shape: str | None = None,
        exit: str | ExitPolicy = "never",
        acceptance: str = "exact",
        stop: Sequence[str] = (),
        threads: int | None = None,
        raw: bool = False,
        ignore_end: bool = False,
        reuse_cache: bool = True,
        on_prefill: Callable[[int, int], None] | None = None,
        loop: LoopName = "auto",
    ) -> Generation:
        """Start an answer; iterate over the result to run it.

        `drafter`, `shape`, `exit` and `acceptance` are specs such as `lookup:tokens=4` (`forerun list` shows
        all); a drafter or exit policy may also be given as an object. `stop` are texts that end the answer.
        `ignore_end` goes on after end tokens. `reuse_cache` keeps the rows of an earlier answer that begin
        this prompt. `on_prefill(done, total)` is called as the prompt is read. `loop` is the core's "native" one, the
        "python" one, which defines it and takes objects, or "auto": native where that can be; ids are the same.
        Raises `OptionError` for a value outside its range, `ContextFullError` for a prompt that does not fit.
        """
        settings = Settings(
            max_tokens=max_tokens,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            end_token_ids=frozenset() if ignore_end else self.language.end_token_ids,
            sampling=Sampling(temperature, top_k, top_p, seed),
        )
        chosen_drafter = make_drafter(drafter, shape)
        chosen_exits = EXITS.create(exit) if isinstance(exit, str) else exit
        chosen_acceptance = ACCEPTANCE.create(acceptance)
        token_ids = self.encode_prompt(prompt, raw)
        self._use_threads(threads)
        session, slot = self._lease(token_ids, reuse_cache)
        run = Run(
            session=session,
            sequence=slot.sequence,
            token_ids=token_ids,
            drafter=chosen_drafter,
            acceptance=chosen_acceptance,
            exits=chosen_exits,
            sampling=settings.sampling,
            on_prefill=on_prefill,
        )
        output = Output(settings, self.language.tokenizer)
        try:
            begin_answer = choose_loop(loop, session, drafter, shape, exit, acceptance)
            release = partial(self._give_back, slot, run)
            return Generation(run, output, self._lock, release, begin_answer)
        except BaseException:
            self._give_back(slot, run, sound=True)
            raise

    def generate_batch(
        self,
        prompts: Sequence[Prompt],
        *,
        on_text: OnText | None = None,
        drafter: str | Sequence[Drafter] = "none",
        raw: bool = False,
        each: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> list[Generation]:
        """Answer all prompts together and return the answers in the order of the prompts.

        As many run at a time as the model has sequences free, the others follow as those end. Ids are those
        of `generate` for each prompt alone, and `options` are its options, `each[i]` those of prompt i alone
        (such as a seed); drafters given as objects come as a list, one for each prompt.
        `on_text(index, piece)` is called as text becomes certain and may return False to cancel that answer.
        Raises like `generate`, before anything runs; `BatchError`, at the end, if answers failed.
        """
        check_prompts(prompts)
        token_ids = [self.encode_prompt(prompt, raw) for prompt in prompts]
        for index, ids in enumerate(token_ids):
            check_prompt_fits(len(ids), self.context_length, f"prompt {index}")
        drafters = [drafter] * len(prompts) if isinstance(drafter, str) else drafter
        check_drafters(drafters, len(prompts))
        own = [{}] * len(prompts) if each is None else each
        if len(own) != len(prompts):
            raise OptionError(f"each holds options of {len(own)} prompts; there are {len(prompts)}")

        def start(index: int) -> Generation:
            # Answers that share forwards take their steps here, not in the core.
            asked = {"loop": "python", **options, **own[index]}
            return self.generate(token_ids[index], drafter=drafters[index], **asked)

        return Batch(len(prompts), start, self._lock).complete(on_text)

    def save(self, answer: Generation, path: str | Path) -> None:
        """Write what the cache holds of an ended answer and its prompt to a file; see `restore`.

        The file is written aside and renamed: it is never half there. Drafts and the planner are no part of it.
        Raises `OptionError` if the cache no longer holds the answer, `OutputError` if the file cannot be written.
        """
        with self._lock:
            self._slots.save(answer.run, Path(path))

    def restore(self, path: str | Path) -> list[int]:
        """Bring a saved answer back into a free sequence, in this process or another; returns the ids of its rows.

        The next prompt that begins with them finds them in the cache, bit for bit: its answer has the ids that it
        would have had. The answer's last token is not among them, as it was drawn but never read. Raises
        `SavedSequenceError` for a file that is damaged, or of another bundle or target, `ContextFullError` if it does
        not fit; the free sequence that held the least is then empty.
        """
        with self._lock:
            return self._slots.restore(Path(path))

    def close(self) -> None:
        """Free the session and the program, once no thread is inside a step. Answers under way cannot go on."""
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None
        if self._on_close is not None and not self._is_closed:
            self._on_close()
        self._is_closed = True

    def __enter__(self) -> "Model":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, threads: int | None) -> None:
        self._session = self._open_session(threads)
        self._slots = Slots(self._session, self._sequences)

    def _use_threads(self, threads: int | None) -> None:
        """Change the number of threads: that takes a new session, so nothing may be under way in this one."""
        if threads is None or threads == self.threads:
            return
        check_count("threads", threads)
        if self._slots.is_busy:
            raise OptionError(
                f"threads cannot change from {self.threads} to {threads} while an answer is under way"
            )
        self.session.close()
        self._session = None
        self._open(threads)

    def _lease(self, token_ids: Sequence[int], reuse_cache: bool) -> tuple[SessionLike, Slot]:
        session = self.session  # not after `close`
        with self._lock:
            return session, self._slots.lease(token_ids, reuse_cache)

    def _give_back(self, slot: Slot, run: Run, sound: bool) -> None:
        with self._lock:
            if self._session is run.session:
                self._slots.give_back(slot, run, sound)


def load(
    bundle: str | Path,
    *,
    target: str | None = None,
    threads: int | None = None,
    sequences: int = 1,
    context: int | None = None,
) -> Model:
    """Open a bundle folder for generation.

    `target` picks one of the bundle's targets (default: the best this machine runs), `threads` defaults to
    the physical cores, `sequences` is how many answers may be under way at once, `context` the positions each
    holds (default: the model's context length). Raises `BundleError`, `TargetError` or `OptionError`.
    """
    check_count("sequences", sequences)
    for name, value in (("threads", threads), ("context", context)):
        if value is not None:
            check_count(name, value)
    opened = read_bundle(Path(bundle))
    language = read_language(opened)
    program, open_session = open_program(opened, target)
    longest = program.config.context_length
    if context is not None and context > longest:
        program.close()
        raise OptionError(f"context is {context}; model {opened.name!r} reads {longest} positions at most")
    try:
        return Model(
            opened.name,
            language,
            lambda count: open_session(sequences, context, count),
            sequences=sequences,
            threads=threads,
            on_close=program.close,
        )
    except BaseException:
        program.close()
        raise


def check_count(name: str, value: int) -> None:
    """Raise `OptionError` unless `value` is 1 or more."""
    if value < 1:
        raise OptionError(f"{name} is {value}; it must be 1 or more")


def check_token_ids(token_ids: Sequence[int], vocabulary_size: int) -> None:
    """Raise `OptionError` unless every id is in the vocabulary."""
    outside = [token_id for token_id in token_ids if not 0 <= token_id < vocabulary_size]
    if outside:
        raise OptionError(f"token id {outside[0]} is not in the vocabulary (0 … {vocabulary_size - 1})")
