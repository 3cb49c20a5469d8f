"""Conversations as token ids: what is predicted is the assistant's turns, whatever the template, the length and the
tokenizer; LLaVA's own way to write them; pictures' places.
"""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import sentencepiece

from mmjax.data.bad_example import BadExample
from mmjax.data.pipeline import Mixture, batches, prepare
from mmjax.data.sources.folder import FolderRecords, Source
from mmjax.data.tokenizers.contract import Tokenizer
from mmjax.data.tokenizers.sentence_piece import PieceTokenizer, SentencePiece
from mmjax.data.tokenizers.subwords import SubwordTokenizer
from mmjax.data.transforms.chat_templates import TEMPLATES, VICUNA_SYSTEM, ChatTemplate
from mmjax.data.transforms.conversation import TokenizeConversation
from mmjax.data.transforms.dialogue import dialogue_of
from mmjax.data.transforms.image import Decode, Resize
from mmjax.data.transforms.read_conversation import ReadConversation
from mmjax.data.transforms.values import Cut
from mmjax.errors import UserError
from tests.data.vocabularies import llama_model

pytest.importorskip("tokenizers")
WORDS = ["a", "red", "cat", "what", "is", "it", "yes", "no", "où", "Ünder", "7", "done."]
MARKS = ["<|im_start|>", "<|im_end|>", *TEMPLATES["llama3"].marks]


def byte_level() -> SubwordTokenizer:
    """Byte-level BPE without merges, with the marks of the templates as special pieces."""
    import tokenizers as library

    letters = sorted(library.pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<|endoftext|>": 0, **{letter: i + 1 for i, letter in enumerate(letters)}}
    backend = library.Tokenizer(library.models.BPE(vocab, []))
    backend.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = library.decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>", *MARKS])
    ends = [("<|endoftext|>", 0)]
    backend.post_processor = library.processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", pair=None, special_tokens=ends
    )
    backend.enable_padding(pad_id=0, pad_token="<|endoftext|>")
    return SubwordTokenizer(backend.to_str().encode())


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    lines = [" ".join(WORDS), "USER: what is it ASSISTANT: a cat", VICUNA_SYSTEM] * 3
    return {
        "trained": PieceTokenizer(SentencePiece(150).train(lines)),
        "llama": PieceTokenizer(llama_model(lines)),
        "bytes": byte_level(),
    }


def drawn(random: np.random.Generator, most: int = 5) -> list[dict[str, Any]]:
    """A conversation of random words, perhaps with a system's turn and with pictures."""
    messages: list[dict[str, Any]] = []
    if random.random() < 0.5:
        messages.append({"role": "system", "content": said(random)})
    for _ in range(int(random.integers(1, most + 1))):
        content: list[Any] = [{"type": "text", "text": said(random)}]
        if random.random() < 0.3 and str(messages).count("'image'") < 2:
            content.insert(int(random.integers(2)), {"type": "image"})
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": said(random)})
    return messages


def said(random: np.random.Generator) -> str:
    return " ".join(random.choice(WORDS, int(random.integers(1, 5))))


def answers(messages: list[dict[str, Any]]) -> list[str]:
    return [message["content"] for message in messages if message["role"] == "assistant"]


def predicted(tokenizer: Tokenizer, ids: np.ndarray, loss: np.ndarray, end: int) -> list[str]:
    """The texts of the runs that are to be predicted, each of which must end in the end mark."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loss.astype(int), [0]])))
    runs = [ids[first:last].tolist() for first, last in zip(edges[::2], edges[1::2], strict=True)]
    assert all(run[-1] == end for run in runs)
    return [tokenizer.decode(run[:-1]).strip() for run in runs]


CASES = [("trained", "plain"), ("trained", "vicuna_v1"), ("llama", "plain"), ("llama", "vicuna_v1")]
CASES += [("bytes", name) for name in TEMPLATES]


@pytest.mark.parametrize(("name", "template"), CASES)
def test_what_is_predicted_is_the_assistants_turns_in_order(
    tokenizers: dict[str, Tokenizer], name: str, template: str
) -> None:
    random, tokenizer = np.random.default_rng(1), tokenizers[name]
    base = TokenizeConversation(
        tokenizer, 2000, template=template, pad=0, slots={"image": 3, "image_2": 2}, placeholder=5
    )
    mark = TEMPLATES[template].assistant[1]
    end = tokenizer.eos if mark == "{eos}" else tokenizer.id_of(mark)
    assert end is not None
    for _ in range(25):
        messages = drawn(random)
        (ids, mask), labels = base(messages, None)
        assert predicted(tokenizer, ids, labels["loss"], end) == answers(messages)
        assert not labels["loss"][~mask].any()
        needed = int(mask.sum())
        pictures = str(messages).count("'image'")
        places = [0, 1, 2][: 3 * pictures] + [3, 4][: 2 * (pictures - 1)]
        assert labels["slots"][labels["slots"] >= 0].tolist() == places
        assert (ids[labels["slots"] >= 0] == 5).all()
        # Shorter rows keep the last turns whole, the system's and every picture; or the example is bad.
        for length in random.integers(needed // 3, needed + 2, 4):
            short = dataclasses.replace(base, length=int(length))
            one = dataclasses.replace(base, history=0)(messages, None).value
            if one.mask.sum() > length:  # type: ignore[union-attr]
                with pytest.raises(BadExample, match="last exchange takes"):
                    short(messages, None)
                continue
            value, labels = short(messages, None)
            assert isinstance(value, Cut) == (needed > length)
            found = predicted(tokenizer, value.values, labels["loss"], end)  # type: ignore[union-attr]
            assert found == answers(messages)[-len(found) :]
            assert sorted(labels["slots"][labels["slots"] >= 0].tolist()) == sorted(places)
            if needed > length and len(found) < len(answers(messages)):  # one exchange more would be too long
                more = dataclasses.replace(base, history=len(found))(messages, None).value
                assert more.mask.sum() > length  # type: ignore[union-attr]
            if messages[0]["role"] == "system":
                assert messages[0]["content"] in tokenizer.decode(value.values.tolist())  # type: ignore[union-attr]


def test_a_conversation_is_written_as_llava_writes_it(tokenizers: dict[str, Tokenizer]) -> None:
    """Against SentencePiece itself on the texts between `<image>` and `</s>`, each cut alone, as LLaVA-1.5's legacy
    tokenizer cuts them.
    """
    tokenizer = tokenizers["llama"]
    library = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)  # type: ignore[call-arg]
    messages = [
        {"from": "human", "value": "what is it?\n<image>"},
        {"from": "gpt", "value": "a red cat"},
        {"from": "human", "value": "is it où"},
        {"from": "gpt", "value": "no"},
    ]
    (ids, mask), labels = TokenizeConversation(tokenizer, 500, template="vicuna_v1", slots={"image": 2}, pad=0)(
        messages, None
    )
    chunks = [
        *library.encode(f"{VICUNA_SYSTEM} USER: "),
        *(0, 0),
        *library.encode("\nwhat is it? ASSISTANT: a red cat"),
        2,
        *library.encode("USER: is it où ASSISTANT: no"),
    ]
    assert ids[mask].tolist() == [1, *chunks, 2]
    assert [library.id_to_piece(int(i)) for i in ids[labels["loss"]]][:4] == ["▁a", "▁red", "▁cat", "</s>"]


EXPECTED = {
    "chatml": "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
    "<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\ns<|eot_id|><|start_header_id|>user"
    "<|end_header_id|>\n\nq<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\na<|eot_id|><|start_header_id|>"
    "user<|end_header_id|>\n\nr<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "vicuna_v1": "<|endoftext|>s USER: q ASSISTANT: a<|endoftext|>USER: r ASSISTANT:",
    "plain": "<|endoftext|>s<|endoftext|>q<|endoftext|>a<|endoftext|>r<|endoftext|>",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_prompt_ends_where_the_assistant_begins(tokenizers: dict[str, Tokenizer], template: str) -> None:
    tokenizer = tokenizers["bytes"]
    messages = [("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "r")]
    chat = [{"role": role, "content": content} for role, content in messages]
    by_hand = TokenizeConversation(tokenizer, 500, template=template).by_hand(True)
    (ids, mask), _ = by_hand(chat, None)
    assert ids[mask].tolist() == tokenizer.encode(EXPECTED[template])
    (alone, real), labels = by_hand("r", None)
    assert not labels["loss"].any()
    assert alone[real].tolist() == by_hand([chat[-1]], None).value.values[real].tolist()  # type: ignore[union-attr]
    # In training the same conversation ends in its last answer.
    (trained, real), _ = TokenizeConversation(tokenizer, 500, template=template)(chat, None)
    (until, same), _ = TokenizeConversation(tokenizer, 500, template=template)(chat[:3], None)
    assert trained[real].tolist() == until[same].tolist()


def test_history_hides_earlier_turns_and_keeps_pictures(tokenizers: dict[str, Tokenizer]) -> None:
    roles = ["user", "assistant"] * 3
    messages: list[dict[str, Any]] = [{"role": role, "content": f"{role[0]}{n}"} for n, role in enumerate(roles)]
    messages[0]["content"] = [{"type": "image"}, "u0"]
    base = TokenizeConversation(tokenizers["bytes"], 300, slots={"image": 2})

    def text(**fields: Any) -> tuple[str, str]:
        (ids, mask), labels = dataclasses.replace(base, **fields)(messages, None)
        assert labels["slots"].max() == 1
        decode = tokenizers["bytes"].decode
        return decode(ids[mask].tolist()).strip(), decode(ids[labels["loss"]].tolist())

    assert text() == ("u0a1u2a3u4a5", "a1a3a5")
    assert text(history=1) == ("u2a3u4a5", "a3a5")
    assert text(history=0) == ("u4a5", "a5")
    assert text(answers="last") == ("u0a1u2a3u4a5", "a5")
    assert text(history=9) == text()


def test_without_slots_a_picture_takes_no_place(tokenizers: dict[str, Tokenizer]) -> None:
    cut = TokenizeConversation(tokenizers["bytes"], 60)
    shown = [{"from": "human", "value": "see\n<image>\nit"}, {"from": "gpt", "value": "a"}]
    plain = [{"from": "human", "value": "see it"}, {"from": "gpt", "value": "a"}]
    (ids, _), labels = cut(shown, None)
    assert ids.tolist() == cut(plain, None).value.values.tolist()  # type: ignore[union-attr]
    assert set(labels) == {"loss"}
    assert cut.spec(None).labels == (("loss", (60,), "bool"),)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("hello", "'hello' is no conversation"),
        ([{"role": "user", "content": "a"}], "no turn of the assistant's"),
        (
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}],
            "a turn of the assistant's is empty",
        ),
        (
            [{"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "a"}],
            "spells the mark <|im_end",
        ),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "\ud800"}], "is no text"),
        (
            [{"from": "human", "value": "<image><image>"}, {"from": "gpt", "value": "a"}],
            r"has image 2, and slots=.* has 1",
        ),
        (
            [{"role": "user", "content": "a" * 99}, {"role": "assistant", "content": "a"}],
            "takes 1.. tokens.*room for 99",
        ),
    ],
)
def test_what_can_not_be_learnt_from_is_bad(tokenizers: dict[str, Tokenizer], value: Any, message: str) -> None:
    cut = TokenizeConversation(tokenizers["bytes"], 99, template="chatml", slots={"image": 2, "audio": 1})
    with pytest.raises(BadExample, match=message.replace("|", r"\|")):
        cut(value, None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"template": "chatlm"}, "did you mean chatml"),
        ({"template": ChatTemplate(("", ""), ("", "<e>"), ("", ""), marks=("<e>",))}, "has no piece <e>"),
        ({"eos": True}, "the template has what begins it"),
        ({"answers": "first"}, "answers='first' is not one of every, last"),
        ({"history": -1}, "history=-1"),
        ({"slots": {"picture": 3}}, "the entry 'picture'"),
        ({"slots": {"image": 0}}, "an entry has 1 token or more"),
    ],
)
def test_fields_that_can_not_be_are_refused(tokenizers: dict[str, Tokenizer], fields: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TokenizeConversation(tokenizers["bytes"], 99, **fields)


class Chats(Source):
    """Two conversations, one of which is bad."""

    def open(self, split: str, data_dir: str | None = None) -> FolderRecords:
        del split, data_dir
        picture = np.zeros((4, 4, 3), np.uint8)
        good = [{"from": "human", "value": "<image>\nwhat is it"}, {"from": "gpt", "value": "a red cat"}]
        table = {"id": ["0", "1"], "messages": [json.dumps(good), json.dumps(good[:1])], "image": [picture, picture]}
        return FolderRecords(table)


def test_batches_hold_conversations_with_their_pictures() -> None:
    chains = {
        "text": (TokenizeConversation(SentencePiece(60), 24, slots={"image": 4}),),
        "image": (Decode(), Resize(8)),
    }
    mixture = Mixture({"own": 1.0}, chains, {"own": Chats()}, record_transforms=(ReadConversation(),))
    made = prepare(mixture)
    stream = batches(made, batch_size=2, seed=0)
    batch = next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert sorted(batch["text_valid"].tolist()) == [False, True]
    assert batch["image_valid"].all()
    row = int(np.argmax(batch["text_valid"]))
    ids, loss = batch["text"][row], batch["text_loss"][row]
    assert made.chains.tokenizers["text"].decode(ids[loss].tolist()) == "a red cat"
    assert batch["text_slots"].shape == (2, 24)
    assert batch["text_slots"][row].max() == 3
    assert not batch["text_loss"][1 - row].any()


def test_cleaning_before_it_reaches_every_turn(tokenizers: dict[str, Tokenizer]) -> None:
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    cut = TokenizeConversation(tokenizers["bytes"], 30)
    assert cut(dialogue_of(chat), None).labels["loss"].tolist() == cut(chat, None).labels["loss"].tolist()
