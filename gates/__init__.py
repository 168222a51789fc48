"""What tags mean and when to cut: evidence to readings, readings and policy to a verdict.

Pure: no I/O beyond reading a policy or vocabulary file, no clock, no model. Needs pydantic and
numpy, so that it runs inside a model server.
"""

import warnings
from typing import Any

from .calibration import Calibration
from .control import ALLOW, BAN, Control, forced_ids, logit_bias
from .errors import PolicyError, SecateurError, UnreadableError, VocabularyError
from .evidence import Evidence, SentenceScore
from .gate import StreamGate, judge
from .policy import Policy
from .posterior import NEGLIGIBLE, negligible
from .reading import Reading
from .readings import Score, read
from .retry import BackUp, back_up
from .rule import ContextOverride, Rule, Scope, TagSetting
from .verdict import Action, Broken, Crossing, Judgement, Verdict
from .vocabulary import Band, BoundVocabulary, Scheme, Tag, Vocabulary

__all__ = [
    "ALLOW",
    "BAN",
    "NEGLIGIBLE",
    "Action",
    "BackUp",
    "Band",
    "BoundVocabulary",
    "Broken",
    "Calibration",
    "ContextOverride",
    "Control",
    "Crossing",
    "Evidence",
    "Judgement",
    "Policy",
    "PolicyError",
    "Reading",
    "Rule",
    "Scheme",
    "Scope",
    "Score",
    "SecateurError",
    "SentenceScore",
    "StreamGate",
    "Tag",
    "TagSetting",
    "UnreadableError",
    "Verdict",
    "Vocabulary",
    "VocabularyError",
    "back_up",
    "forced_ids",
    "judge",
    "logit_bias",
    "negligible",
    "read",
]


def __getattr__(name: str) -> Any:
    if name == "decide":  # until 0.2
        warnings.warn(
            "secateur.gates.decide is secateur.gates.judge since 0.2: import that",
            DeprecationWarning,
            stacklevel=2,
        )
        return judge
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
