"""BLIP's answers to questions: the same logits, loss, gradients and answers, there and back; the published size."""

import json
from typing import Any

import fiddle as fdl
import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mmjax.data import Lowercase  # noqa: E402
from mmjax.errors import UserError  # noqa: E402
from mmjax.experiment.graph import build  # noqa: E402
from mmjax.inference.model import load  # noqa: E402
from mmjax.interop.export import export  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from tests.interop import captioners  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402

SIZE = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
SIDE = 8
# Equally long: their decoder attends to a question's padding too (transformers 5.24 drops the mask on its way).
ASKED = np.array([[101, 5, 17, 33, 102], [101, 61, 12, 88, 102], [101, 9, 44, 9, 102]], np.int32)
SAID = np.array([[118, 7, 23, 102], [118, 90, 102, 0], [118, 15, 102, 0]], np.int32)


def config(vocab=120, **changes):
    text = SIZE | {"vocab_size": vocab, "max_position_embeddings": 32, "encoder_hidden_size": 24, "pad_token_id": 0}
    text |= {"bos_token_id": vocab - 2, "sep_token_id": 102, "label_smoothing": 0.1} | changes
    vision = SIZE | {"num_attention_heads": 2, "image_size": SIDE, "patch_size": 4}
    return transformers.BlipConfig(text_config=text, vision_config=vision)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Theirs, as ours, ours as theirs again, and the folder."""
    folder = tmp_path_factory.mktemp("blip")
    theirs = twins.random_model(transformers.BlipForQuestionAnswering, config())
    return theirs, *twins.there_and_back(theirs, folder), folder


def asked(pixels):
    mask = torch.tensor((ASKED != 0).astype(np.int64))
    return {"input_ids": torch.tensor(ASKED).long(), "attention_mask": mask, "pixel_values": pixels}


def answered(pixels) -> dict[str, Any]:
    labels = torch.tensor(np.where(SAID != 0, SAID, -100)).long()
    mask = torch.tensor((SAID != 0).astype(np.int64))
    words = torch.tensor(SAID).long()
    return asked(pixels) | {"decoder_input_ids": words, "decoder_attention_mask": mask, "labels": labels}


def batch(pictures):
    there = {f"{name}_valid": np.ones(3, bool) for name in ("text", "image", "answer")}
    texts = {"text": ASKED, "text_mask": ASKED != 0, "answer": SAID, "answer_mask": SAID != 0}
    return {"image": pictures, "index": np.arange(3), **texts, **there}


def test_logits_loss_and_gradients(read):
    theirs, bundle, again, folder = read
    pictures, pixels = twins.pixels(bundle, SIDE)
    out = theirs(**answered(pixels))
    twins.close(again(**answered(pixels)).loss.detach(), out.loss)
    other = theirs(**answered(pixels.flip(0))).loss
    assert abs(other - out.loss) > 0.01  # the picture matters
    module = build(bundle.config).pretrainer()
    decoder = build(bundle.config.objectives["answer"]).decoder
    own = {"params": bundle.variables["params"]["objectives_answer"]["decoder"]}
    with jax.default_matmul_precision("highest"):
        views = module.apply(bundle.variables, batch(pictures), "answer", method="views_to_write")
        states = decoder.apply(own, SAID, SAID != 0, views)
        logits = np.asarray(decoder.apply(own, states, method="logits"))
    image = theirs.vision_model(pixel_values=pixels).last_hidden_state
    question = theirs.text_encoder(
        input_ids=torch.tensor(ASKED).long(), attention_mask=asked(pixels)["attention_mask"],
        encoder_hidden_states=image,
    ).last_hidden_state  # fmt: skip
    wanted = theirs.text_decoder(
        input_ids=torch.tensor(SAID).long(), attention_mask=torch.tensor((SAID != 0).astype(np.int64)),
        encoder_hidden_states=question, encoder_attention_mask=asked(pixels)["attention_mask"],
    ).logits.detach().numpy()  # fmt: skip
    twins.close(logits[SAID != 0], wanted[SAID != 0])
    loss, gradients = twins.loss_and_gradients(bundle, batch(pictures))
    twins.close(loss, out.loss)
    theirs.zero_grad()
    out.loss.backward()
    twins.same_gradients(bundle, gradients, theirs, folder)


def test_the_published_size():
    """In closed form: the captioner's, and BERT once more with a cross-attention in each layer."""
    width, depth, side, patch, vocab = 768, 12, 384, 16, 30_524
    linear, mlp, norm = width**2 + width, 8 * width**2 + 5 * width, 2 * width
    image = 3 * patch**2 * width + width + width + (1 + (side // patch) ** 2) * width
    image += depth * (4 * linear + mlp + 2 * norm) + norm
    text = (vocab + 512) * width + norm + depth * (8 * linear + mlp + 3 * norm)
    head = linear + norm + vocab
    found = twins.fits_by_shape(transformers.BlipForQuestionAnswering, transformers.BlipConfig())
    assert found == image + 2 * text + head


def test_a_decoder_of_another_size_is_refused(read, tmp_path):
    _, bundle, *_ = read
    parts = hf_layout.built(hf_layout.Parts(bundle.config.towers, bundle.config.objectives, bundle.config.fusions))
    family = twins.family(read[3] / "theirs")
    objective = parts.objectives["answer"]
    short = objective.clone(decoder=objective.decoder.clone(length=9))
    with pytest.raises(UserError, match=r"text has vocab, length=\(120, 32\), and the decoder \(120, 9\)"):
        family.describe(parts._replace(objectives={"answer": short}))


def test_questions_are_answered_as_theirs(tmp_path, monkeypatch, capsys):
    """BERT's tokenizer frames by [CLS] and [SEP]; answers begin by the next id after its last."""
    folder = tmp_path / "theirs"
    pieces = captioners.bert_tokenizer(folder)
    count, end = len(pieces), pieces("")["input_ids"][-1]
    theirs = twins.random_model(transformers.BlipForQuestionAnswering, config(count + 2, sep_token_id=end))
    theirs.save_pretrained(folder)
    bundle = hf_layout.read(folder)
    questions, answers = (bundle.tokenizers[name] for name in ("text", "answer"))
    assert (questions.bos, questions.eos) == (pieces("")["input_ids"][0], end)
    assert (answers.bos, answers.eos, answers.vocab_size) == (count, end, count + 1)
    _, pixels = twins.pixels(bundle, SIDE, batch=1)
    picture = pixels.numpy().transpose(0, 2, 3, 1)[0]
    loaded = load(folder)
    for text in ("a cat", "the dog"):
        made = theirs.generate(
            pixel_values=pixels,
            input_ids=pieces(text, return_tensors="pt").input_ids,
            max_new_tokens=9,
            do_sample=False,
        )
        found = loaded.generate(image=picture, text=text, max_new_tokens=9, details=True)
        wanted = made[0, 1:].tolist()
        assert list(found.ids) == wanted[: len(found.ids)]
        assert len(found.ids) >= min(len(wanted), 2)
        assert loaded.answer(image=picture, text=text, max_new_tokens=9) == found.text.strip()
    both = loaded.answer(image=picture, text=["a cat", "the dog"])
    assert both == [loaded.answer(image=picture, text=text) for text in ("a cat", "the dog")]
    scores = loaded.log_likelihood(["a cat", "the dog"], image=picture, text="a cat")
    assert scores.shape == (2,)
    export(folder, tmp_path / "out", "hf", say=lambda line: None)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "model.generate(**inputs, max_new_tokens=20)" in card
    code = card.split("```python\n")[-1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "card", "exec"), {})
    assert capsys.readouterr().out.strip()
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again("a cat")["input_ids"] == pieces("a cat")["input_ids"]
    told = json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]
    assert (told["bos_token_id"], told["sep_token_id"]) == (count, end)
    assert hf_layout.read(tmp_path / "out").tokenizers["answer"].bos == count
    chains = bundle.config.data.transforms
    for name in ("text", "answer"):  # both are cleaned there by their one tokenizer
        chains[name] = (chains[name][0], fdl.Config(Lowercase), *chains[name][1:])
    hf_layout.write(bundle, tmp_path / "small")
    small = transformers.AutoTokenizer.from_pretrained(tmp_path / "small")
    assert small("A CAT")["input_ids"] == pieces("a cat")["input_ids"]
    chains["answer"] = (chains["answer"][0], *chains["answer"][2:])
    with pytest.raises(UserError, match="cuts questions and answers by one tokenizer"):
        hf_layout.write(bundle, tmp_path / "other")
    chains["answer"][-1].bos = False
    with pytest.raises(UserError, match="a BlipForQuestionAnswering begins and ends each answer"):
        hf_layout.write(bundle, tmp_path / "unframed")
