"""Transformers text classifiers as taggers: a tiny one that the test makes and trains itself."""

import json
import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from secateur.pretraining.corpus.document import Span
from secateur.pretraining.taggers.classifier import ClassifierTagger
from secateur.pretraining.taggers.file import TaggersFile
from secateur.pretraining.taggers.scale import Scale
from secateur.pretraining.taggers.tagger import TaggerError, Untagged

torch.set_num_threads(1)
GOOD = ("thank you for the report", "the web is up again", "have a nice day")
BAD = ("you lazy fool", "what a stupid fool you are", "shut up you fool")
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def sentence(rng: random.Random) -> tuple[str, int]:
    bad = rng.random() < 0.5
    words = rng.choice(BAD if bad else GOOD).split()
    rng.shuffle(words)
    return " ".join(words), int(bad)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint with two labels, a window of 16 tokens and a word-level tokenizer."""
    folder = tmp_path_factory.mktemp("classifier")
    words = sorted({word for line in (*GOOD, *BAD) for word in line.split()} | {"."})
    vocabulary = {word: place for place, word in enumerate([*SPECIALS, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=16,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=16, id2label={0: "FINE", 1: "TOXIC"},
        label2id={"FINE": 0, "TOXIC": 1}, pad_token_id=0,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after a few steps on labelled sentences."""
    folder = tmp_path_factory.mktemp("trained")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(untrained)
    tokenizer.save_pretrained(folder)
    network = BertForSequenceClassification.from_pretrained(untrained)
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    rng = random.Random(0)
    for _ in range(60):
        texts, labels = zip(*(sentence(rng) for _ in range(16)), strict=True)
        rows = tokenizer(list(texts), padding=True, return_tensors="pt")
        network(**rows, labels=torch.tensor(labels)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    network.save_pretrained(folder)
    return folder


def tagger(folder: Path, **settings: object) -> ClassifierTagger:
    return ClassifierTagger.model_validate(
        {"model": str(folder), "labels": {"TOXIC": {"tag": "toxicity"}}, **settings}
    )


def test_a_trained_classifier_separates_what_an_untrained_one_does_not(
    trained: Path, untrained: Path
) -> None:
    rng = random.Random(9)
    texts, labels = zip(*(sentence(rng) for _ in range(60)), strict=True)

    def right(folder: Path) -> int:
        found = tagger(folder, batch=7).tag(texts)
        return sum(bool(spans) == bool(bad) for spans, bad in zip(found, labels, strict=True))

    assert right(trained) >= 58
    assert right(untrained) < 45


def test_spans_are_the_sentences_in_their_text(trained: Path) -> None:
    text = "have a nice day. YOU lazy fool.  thank you.\n the web is up"
    [[span]] = tagger(trained).tag([text])
    assert text[span.start : span.end] == "YOU lazy fool."
    assert (span.tag, span.band) == ("toxicity", None)
    [[line]] = tagger(trained, unit="line").tag(["have a nice day\nyou lazy fool\n"])
    assert line == Span(16, 29, "toxicity")


def test_probabilities_earn_bands(trained: Path) -> None:
    scale = {"tag": "toxicity", "bands": {1: 0.0001, 2: 0.5}}
    [spans] = tagger(trained, labels={"TOXIC": scale}).tag(["have a nice day. you lazy fool."])
    assert [span.band for span in spans] in ([1, 2], [2])
    labels = {"TOXIC": scale, "FINE": {"tag": "fine", "at": 0.9}}
    [both] = tagger(trained, labels=labels).tag(["have a nice day."])
    assert "fine" in {span.tag for span in both}


def test_nothing_hides_behind_the_window(trained: Path) -> None:
    long = " ".join(["have a nice day"] * 12 + ["you lazy fool"])
    assert tagger(trained).tag([long]) == [(Span(0, len(long), "toxicity"),)]


def test_outside_text_spells_no_special_token(trained: Path) -> None:
    loaded, _ = tagger(trained)._loaded
    rows = loaded(["you [SEP] fool [PAD]"], split_special_tokens=True)["input_ids"][0]
    assert rows.count(3) == 1
    assert tagger(trained).tag(["[PAD] [SEP] you lazy fool [SEP]"])[0]


def test_a_mention_is_not_judged(trained: Path) -> None:
    text = 'have a nice day "you lazy stupid fool shut up you fool"'
    assert tagger(trained).tag([text])[0]
    assert tagger(trained, mention={"quotes": True}).tag([text]) == [()]


def test_a_score_that_is_no_number_leaves_the_text_unknown(trained: Path, tmp_path: Path) -> None:
    network = BertForSequenceClassification.from_pretrained(trained)
    with torch.no_grad():
        network.classifier.weight.fill_(float("nan"))
    network.save_pretrained(tmp_path)
    PreTrainedTokenizerFast.from_pretrained(trained).save_pretrained(tmp_path)
    [outcome, blank] = tagger(tmp_path).attempt(["you lazy fool", ""])
    assert outcome == Untagged("the score for 'toxicity' is not a number")
    assert blank == ()


def test_a_file_names_the_folder_beside_it(trained: Path) -> None:
    path = trained.parent / "taggers.yaml"
    path.write_text(
        json.dumps({"taggers": {"c": {"kind": "classifier", "model": trained.name,
                                      "labels": {"TOXIC": {"tag": "toxicity"}}}}})
    )  # fmt: skip
    assert TaggersFile.load(path).build().tag(["you lazy fool"])[0]


def test_what_is_no_classifier_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(TaggerError, match=r"no label 'RUDE'.*'FINE', 'TOXIC'"):
        tagger(trained, labels={"RUDE": {"tag": "rude"}}).tag(["a"])
    with pytest.raises(TaggerError, match="cannot be loaded"):
        tagger(tmp_path).tag(["a"])
    with pytest.raises(ValueError, match="no probability"):
        tagger(trained, labels={"TOXIC": Scale(tag="toxicity", at=7)})
    headless = tmp_path / "headless"
    PreTrainedTokenizerFast.from_pretrained(trained).save_pretrained(headless)
    BertForSequenceClassification.from_pretrained(trained).bert.save_pretrained(headless)
    with pytest.raises(TaggerError, match="weights lack 'classifier"):
        tagger(headless).tag(["a"])
