"""What tests ask of a package: a prompt's answers with every drafter, greedy and sampled, and one to a message."""

from __future__ import annotations

from typing import Any

PROMPT, TOKENS = [5, 17, 250, 3, 99, 17, 250], 40
DRAFTERS = ("none", "lookup:min_ngram=1", "self:layers=1,tokens=3", "feature", "auto")
SAMPLED = {"temperature": 0.9, "topK": 50, "seed": 2**63 + 11}
MESSAGES = [{"role": "user", "content": "Flüsse 🌊?"}]


def answer(**options: Any) -> dict[str, Any]:
    return {"prompt": PROMPT, "options": {"maxTokens": TOKENS, "ignoreEnd": True, "seed": 0, **options}}


def job(url: str, *answers: dict[str, Any], **load: Any) -> dict[str, Any]:
    return {"url": url, "answers": list(answers), "load": load}


def all_answers() -> list[dict[str, Any]]:
    greedy = [answer(drafter=drafter) for drafter in DRAFTERS]
    sampled = [
        answer(**{**SAMPLED, "seed": str(SAMPLED["seed"])}, drafter=drafter) for drafter in ("none", "auto")
    ]
    chat = {"messages": MESSAGES, "options": {"maxTokens": 12, "ignoreEnd": True}}
    return [*greedy, *sampled, chat]
