"""A checkpoint folder that lacks something is refused in one line that names the remedy."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from secateur.gates.errors import SecateurError, VocabularyError
from secateur.runtime.engines.checkpoint import load_checkpoint, model_digest
from secateur.runtime.engines.protocol import EngineError


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(tiny_checkpoint, tmp_path / "model")


def refusal(folder: Path | str, kind: type[SecateurError] = EngineError, **options: str) -> str:
    with pytest.raises(kind) as caught:
        load_checkpoint(folder, device=options.get("device", "cpu"))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_folder_is_named_with_what_to_give_instead() -> None:
    assert "give the path of a checkpoint folder" in refusal("no/such/model")
    assert "'nosuch'" in refusal("nosuch")


@pytest.mark.parametrize(
    ("file", "kind", "remedy"),
    [
        ("config.json", EngineError, "config.json, weights, tokenizer.json"),
        ("model.safetensors", EngineError, "save_pretrained"),
        ("tokenizer.json", EngineError, "save the model's fast tokenizer"),
        ("vocabulary.json", VocabularyError, "names its tags"),
    ],
)
def test_a_folder_without_one_of_its_files_is_refused(
    folder: Path, file: str, kind: type[SecateurError], remedy: str
) -> None:
    (folder / file).unlink()
    assert remedy in refusal(folder, kind)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_file_is_refused(folder: Path, file: str) -> None:
    (folder / file).write_bytes(b"\x00garbage")
    assert "save" in refusal(folder)


def test_weights_that_lack_a_layer_are_refused_and_not_made_up(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "weights lack 'model.layers.1.mlp.up_proj.weight'" in refusal(folder)


def test_a_tokenizer_larger_than_the_model_is_refused(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    size = max(content["model"]["vocab"].values()) + 1
    content["model"]["vocab"]["unheard"] = size
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert f"has {size + 1} tokens and the model {size}" in refusal(folder)


def test_an_unknown_device_is_refused(folder: Path) -> None:
    assert "use" in refusal(folder, device="abacus")


def test_digests_follow_the_bytes(folder: Path, tiny_checkpoint: Path) -> None:
    assert model_digest(folder) == model_digest(tiny_checkpoint)
    first = load_checkpoint(folder, device="cpu").info
    assert (first.bos, first.eos, first.context_length) == ("<|bos|>", "<|eos|>", 256)
    config = folder / "config.json"
    config.write_text(config.read_text() + " ")
    second = load_checkpoint(folder, device="cpu").info
    assert first.model_digest != second.model_digest
    assert first.tokenizer_digest == second.tokenizer_digest


def test_another_vocabulary_file_may_stand_in(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "mine.json"
    content = json.loads((folder / "vocabulary.json").read_text())
    content["tags"] = content["tags"][:1]
    other.write_text(json.dumps(content))
    loaded = load_checkpoint(folder, device="cpu", vocabulary=other)
    assert [tag.name for tag in loaded.info.vocabulary.vocabulary.tags] == ["deceit"]


def test_without_torch_the_remedy_is_the_extra(folder: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from secateur.runtime.engines.local.engine import LocalEngine\n"
        f"try: LocalEngine.load({str(folder)!r})\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("EngineError the local engine needs torch")
    assert "pip install 'secateur[local]'" in done.stdout


def test_loading_prints_nothing(folder: Path) -> None:
    code = (
        "from secateur.runtime.engines.local.engine import LocalEngine\n"
        f"LocalEngine.load({str(folder)!r}, device='cpu')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
