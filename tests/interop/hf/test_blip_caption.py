"""BLIP's captioner: the same logits, loss, gradients and captions, there and back; the published size by shape."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from mmjax.errors import UserError  # noqa: E402
from mmjax.inference.model import load  # noqa: E402
from mmjax.interop.export import export  # noqa: E402
from mmjax.interop.hf import layout as hf_layout  # noqa: E402
from tests.interop import captioners  # noqa: E402
from tests.interop import hf_twins as twins  # noqa: E402
from tests.interop import language_models as models  # noqa: E402

SIZE = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}
IDS, MASK, SIDE = models.IDS.astype(np.int32), models.MASK, 8
PROMPTS = [[118, 17, 3], [118], [118, 7, 23, 90, 15]]


def config(vocab=120, smoothing=0.1, **changes):
    text = SIZE | {"vocab_size": vocab, "max_position_embeddings": 32, "label_smoothing": smoothing}
    text |= {"bos_token_id": vocab - 2, "sep_token_id": 102, "pad_token_id": 0}
    vision = SIZE | {"hidden_size": 16, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 4}
    return transformers.BlipConfig(text_config=text, vision_config=vision, **changes)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Theirs, as ours, ours as theirs again, and the folder."""
    folder = tmp_path_factory.mktemp("blip")
    theirs = twins.random_model(transformers.BlipForConditionalGeneration, config())
    return theirs, *twins.there_and_back(theirs, folder), folder


def given(pixels):
    mask = torch.tensor(MASK.astype(np.int64))
    return {"input_ids": torch.tensor(IDS).long(), "attention_mask": mask, "pixel_values": pixels}


def test_logits_loss_and_gradients(read):
    theirs, bundle, again, folder = read
    pictures, pixels = twins.pixels(bundle, SIDE)
    labels = torch.tensor(np.where(MASK, IDS, -100)).long()
    out = theirs(**given(pixels), labels=labels)
    wanted = out.logits.detach().numpy()
    twins.close(np.asarray(captioners.logits(bundle, pictures, IDS, MASK))[MASK], wanted[MASK])
    twins.close(again(**given(pixels)).logits.detach(), out.logits)
    other = theirs(**given(pixels.flip(0))).logits.detach().numpy()
    assert np.abs(wanted - other)[MASK].max() > 0.1  # the picture matters
    loss, gradients = twins.loss_and_gradients(bundle, captioners.batch(pictures, IDS, MASK))
    twins.close(loss, out.loss)
    theirs.zero_grad()
    out.loss.backward()
    twins.same_gradients(bundle, gradients, theirs, folder)


def test_greedy_captions(read):
    """20 words after each of three prompts behind [DEC]; theirs one picture at a time, and drops the prompt's end."""
    theirs, bundle, _, _ = read
    pictures, pixels = twins.pixels(bundle, SIDE)
    found = captioners.greedy(bundle, pictures, PROMPTS, 20)
    for row, prompt in enumerate(PROMPTS):
        ids = torch.tensor([[101, *prompt[1:], 102]])
        theirs.text_decoder.generation_config.eos_token_id = None
        theirs.config.text_config.sep_token_id = 119  # which none of the words is
        made = theirs.generate(pixel_values=pixels[row : row + 1], input_ids=ids, do_sample=False, max_new_tokens=20,
                               attention_mask=torch.ones_like(ids))  # fmt: skip
        np.testing.assert_array_equal(found[row], made[0, len(prompt) :])
    assert len(np.unique(found)) >= 4
    assert 119 not in found


def test_the_published_size():
    """In closed form: a ViT-B/16 at 384 pixels; BERT with a cross-attention in each layer, and a linear map, a norm and
    a bias before and behind the table."""
    width, depth, side, patch, vocab = 768, 12, 384, 16, 30_524
    linear, mlp, norm = width**2 + width, 8 * width**2 + 5 * width, 2 * width
    image = 3 * patch**2 * width + width + width + (1 + (side // patch) ** 2) * width
    image += depth * (4 * linear + mlp + 2 * norm) + norm
    text = (vocab + 512) * width + norm + depth * (8 * linear + mlp + 3 * norm)
    head = linear + norm + vocab
    found = twins.fits_by_shape(transformers.BlipForConditionalGeneration, transformers.BlipConfig())
    assert found == image + text + head


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tie_word_embeddings", False, "tie_word_embeddings=False can't be expressed here, where it is True"),
        ("text_config.is_decoder", False, "text_config: is_decoder=False can't be expressed here, where it is True"),
    ],
)
def test_what_cannot_be_expressed_is_named(key, value, message, read, tmp_path):
    read[0].save_pretrained(tmp_path / "it")
    twins.edited(tmp_path / "it", {key: value})
    with pytest.raises(UserError, match=message):
        hf_layout.read(tmp_path / "it")


def test_captions_begin_by_a_piece_that_the_tokenizer_lacks(tmp_path):
    """BERT's tokenizer frames by [CLS] and [SEP]; the model's captions begin by the next id after its last."""
    folder = tmp_path / "theirs"
    pieces = captioners.bert_tokenizer(folder)
    count, end = len(pieces), pieces("")["input_ids"][-1]
    sized = config(vocab=count + 2)
    sized.text_config.sep_token_id = end
    theirs = twins.random_model(transformers.BlipForConditionalGeneration, sized)
    theirs.save_pretrained(folder)
    bundle = hf_layout.read(folder)
    tokenizer = bundle.tokenizers["text"]
    assert (tokenizer.bos, tokenizer.eos, tokenizer.vocab_size) == (count, end, count + 1)
    _, pixels = twins.pixels(bundle, SIDE, batch=1)
    normalised = pixels.numpy().transpose(0, 2, 3, 1)[0]
    made = theirs.generate(
        pixel_values=pixels, input_ids=pieces("a cat", return_tensors="pt").input_ids, max_new_tokens=9
    )
    loaded = load(folder)
    found = loaded.caption(normalised, "a cat", max_new_tokens=9, details=True)
    wanted = made[0, len(pieces("a cat")["input_ids"]) - 1 :].tolist()
    assert list(found.ids) == wanted[: len(found.ids)]
    assert len(found.ids) >= min(len(wanted), 2)
    export(folder, tmp_path / "out", "hf", say=lambda line: None)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert again("a cat")["input_ids"] == [count, *pieces("a cat")["input_ids"][1:]]
    unframed = dataclasses.replace(bundle)
    unframed.config.data.transforms["text"][-1].bos = False
    with pytest.raises(UserError, match="a BlipForConditionalGeneration begins and ends each text"):
        hf_layout.write(unframed, tmp_path / "unframed")
