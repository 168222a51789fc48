"""Chat checkpoints: prompts through the model's own template, with our tags in its turn.

A prompt is a row of pieces. What stands in it as outside text is the user's; what the model wrote
(``Ids``) and our own tags are the assistant's. The template is rendered here and sent as token
ids: what it writes itself may be special tokens, and no text that it frames can become one.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....agents.prompt import Ids, Piece, Special, Text
from ..protocol import EngineError
from ..tokenizer import TagTokenizer

__all__ = ["ChatTemplate"]


@dataclass(frozen=True, slots=True)
class _Turn:
    role: str
    pieces: tuple[Piece, ...]


class ChatTemplate:
    """A checkpoint's ``chat_template``, and the special tokens that it may name."""

    def __init__(self, template: str, tokenizer: TagTokenizer, named: dict[str, str]) -> None:
        """``named`` are the template's variables, such as ``bos_token``.

        Raises :class:`EngineError` for a template that is none.
        """
        try:
            from jinja2 import TemplateError
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ModuleNotFoundError:
            raise EngineError("chat templates need jinja2: pip install jinja2") from None
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        environment.globals["raise_exception"] = _refuse
        self._errors = (TemplateError, _Refused, TypeError, ValueError, KeyError)
        try:
            self._template: Any = environment.from_string(template)
        except self._errors as error:
            raise EngineError(f"the chat template is no template ({error}); correct it") from None
        self._tokenizer = tokenizer
        self._named = named

    @classmethod
    def find(cls, folder: Path, tokenizer: TagTokenizer) -> "ChatTemplate | None":
        """The template of a checkpoint folder, or None where it is no chat checkpoint.

        Read from ``chat_template.jinja`` or ``tokenizer_config.json``.
        """
        path = folder / "tokenizer_config.json"
        try:
            config = json.loads(path.read_bytes()) if path.is_file() else {}
        except ValueError as error:
            raise EngineError(f"{path}: not JSON ({error}); save the tokenizer again") from None
        file = folder / "chat_template.jinja"
        template = file.read_text("utf-8") if file.is_file() else config.get("chat_template")
        if not isinstance(template, str):
            return None
        named: dict[str, str] = {}
        for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
            token = config.get(key)
            literal = token.get("content") if isinstance(token, dict) else token
            named[key] = literal if isinstance(literal, str) else ""
        return cls(template, tokenizer, named)

    def encode(self, pieces: Sequence[Piece]) -> list[int]:
        """Token ids of the conversation up to where the assistant writes on.

        Raises :class:`EngineError` where the template refuses the turns.
        """
        turns = _turns(pieces, self._named["bos_token"])
        # Each turn stands as a mark while the template is rendered, and is put in as token ids.
        marks = [f"\x02turn {place}\x03" for place in range(len(turns))]
        messages = [
            {"role": turn.role, "content": mark} for turn, mark in zip(turns, marks, strict=True)
        ]
        goes_on = bool(turns) and turns[-1].role == "assistant"
        try:
            written: str = self._template.render(
                messages=messages, add_generation_prompt=not goes_on, tools=None, **self._named
            )
        except self._errors as error:
            raise EngineError(f"the model's chat template refuses the prompt ({error})") from None
        ids: list[int] = []
        for place, (mark, turn) in enumerate(zip(marks, turns, strict=True)):
            before, found, written = written.partition(mark)
            if not found or mark in written:
                raise EngineError(
                    f"the model's chat template does not write message {place} exactly once; "
                    "connect with chat=False and write the prompt's own frame"
                )
            ids += self._frame(before) + self._tokenizer.encode(turn.pieces)
        # After the assistant's own words the template would end its turn: it is not over.
        return ids if goes_on else ids + self._frame(written)

    def _frame(self, text: str) -> list[int]:
        """What the template itself wrote; its special tokens are meant as such."""
        pieces: list[Piece] = []
        while text:
            found = [(text.find(token), token) for token in self._tokenizer.specials]
            at, token = min(
                ((place, token) for place, token in found if place >= 0),
                key=lambda hit: (hit[0], -len(hit[1])),
                default=(len(text), ""),
            )
            pieces.append(Text(text[:at]))
            if token:
                pieces.append(Special(token))
            text = text[at + len(token) :]
        return self._tokenizer.encode(pieces)


class _Refused(Exception):  # noqa: N818 - a template's own word
    pass


def _refuse(reason: str) -> None:
    raise _Refused(reason)


def _turns(pieces: Sequence[Piece], bos: str) -> list[_Turn]:
    """The pieces by who speaks; the bos token is the template's to write."""
    turns: list[_Turn] = []
    for piece in pieces:
        match piece:
            case Special(token) if token == bos:
                continue
            case Text(text):
                if not text:
                    continue
                # White space between the model's own lines is no word of the user's.
                follows = bool(turns) and turns[-1].role == "assistant"
                role = "assistant" if follows and text.isspace() else "user"
            case Special() | Ids():
                role = "assistant"
        if turns and turns[-1].role == role:
            turns[-1] = _Turn(role, (*turns[-1].pieces, piece))
        else:
            turns.append(_Turn(role, (piece,)))
    return turns
