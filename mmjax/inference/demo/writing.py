"""The page's tabs of a model that writes: one captions a picture, one talks. Words are shown as they are written."""

import base64
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from mmjax.data.transforms.input import Input
from mmjax.errors import UserError
from mmjax.evaluate.report.markup import Markup, join, tag
from mmjax.inference.demo.uploads import received
from mmjax.inference.model import Model
from mmjax.inference.writing.chat import Chat
from mmjax.runtime.counts import noun

DESCRIBE = "Describe the picture."
WORDS = 200  # of a text at most
WAITING = "…"  # until the first word: a program may be compiled first
SHOWN = 160  # pixels of a picture in a conversation
KEPT = 3_600.0  # seconds that a conversation is kept which nobody goes on with


class Speaker(NamedTuple):
    """An objective of a model that writes.

    kinds: of what it reads beside its text. chats: whether it was trained on conversations.
    """

    model: Model
    name: str
    kinds: dict[str, type[Input]]
    chats: bool

    @property
    def asked(self) -> bool:
        """True if it reads a question beside the picture, and writes the answer."""
        return "text" in self.kinds

    @property
    def pictures(self) -> str | None:
        """The input of pictures that it captions, if it reads any."""
        return next((name for name, kind in self.kinds.items() if kind.draws and not kind.moves), None)


def speakers(model: Model) -> list[Speaker]:
    """The objectives of a model that write; without those whose tokenizer isn't there."""
    found = []
    for name in model.writes:
        try:
            generation = model.generation(name)
        except UserError:
            continue
        kinds = {one: model.kinds[one] for one in generation.views.objective.reads}
        found.append(Speaker(model, name, kinds, generation.prompts.chats))
    return found


def add_tabs(gr: Any, model: Model, uploads: Path) -> list[Any]:
    """Makes the tabs of a model that writes, none of another's."""
    able = speakers(model)
    captions = next((one for one in able if one.pictures), None)
    talks = next((one for one in able if one.chats), None)
    made = []
    if captions is not None:
        with gr.Tab("Caption", id="write") as tab:
            caption_tab(gr, captions, uploads)
        made.append(tab)
    if talks is not None:
        with gr.Tab("Talk", id="talk") as tab:
            talk_tab(gr, talks, uploads)
        made.append(tab)
    return made


def caption_tab(gr: Any, speaker: Speaker, uploads: Path) -> None:
    """Fills the tab in which a picture is captioned."""
    name = speaker.pictures
    assert name is not None
    picture = gr.Image(
        type="filepath",
        label="Drop a picture here, or paste one: what the model writes of it stands below.",
        sources=["upload", "webcam", "clipboard"],
        height=240,
        buttons=[],
        elem_id="captioned",
    )
    with gr.Row(equal_height=True):
        begin = gr.Textbox(
            value=DESCRIBE if speaker.chats else "",
            show_label=False,
            container=False,
            placeholder="What is asked"
            if speaker.chats or speaker.asked
            else "What the caption begins with, or nothing",
            max_lines=1,
            scale=8,
            elem_id="begin",
        )
        button = gr.Button("Caption", variant="primary", scale=1, min_width=90, elem_id="write")
    text = gr.HTML("", elem_id="caption", js_on_load=None)
    gr.on(
        [picture.change, begin.submit, button.click],
        partial(captioned, speaker, uploads),
        inputs=[picture, begin],
        outputs=text,
        show_progress="minimal",
        api_name="caption",
        preprocess=False,  # the file as it was given, not as gradio would write it anew
    )


def captioned(speaker: Speaker, uploads: Path, picture: Any, begin: Any) -> Iterator[str]:
    """The caption of an uploaded picture, again and again with more of its words."""
    name = speaker.pictures
    if name is None or not picture:
        yield ""
        return
    told = begin if isinstance(begin, str) else ""
    if speaker.asked and not told.strip():
        yield _text("Ask a question on it, above.")
        return
    try:
        given: dict[str, Any] = {name: received(uploads, picture)}
        yield _text(WAITING)
        if speaker.chats:
            pieces = speaker.model.chat(objective=speaker.name).stream(told or DESCRIBE, max_new_tokens=WORDS, **given)
        else:
            begun = "" if speaker.asked else told
            given |= {"text": told} if speaker.asked else {}
            pieces = speaker.model.stream(begun, objective=speaker.name, max_new_tokens=WORDS, **given)
        whole = "" if speaker.chats or speaker.asked else told
        for piece in pieces:
            whole += piece
            yield _text(whole + WAITING)
        yield _text(whole.strip() or "(nothing: the model ends at once)")
    except UserError as error:
        yield _wrong(error)


def talk_tab(gr: Any, speaker: Speaker, uploads: Path) -> None:
    """Fills the tab in which one talks with the model."""
    talk = gr.HTML("", elem_id="talk", js_on_load=None)
    state = gr.State(None, time_to_live=KEPT)
    with gr.Row(equal_height=True):
        box = gr.Textbox(
            show_label=False,
            container=False,
            placeholder="Say something, and press Enter.",
            max_lines=4,
            scale=8,
            elem_id="said",
        )
        button = gr.Button("Say", variant="primary", scale=1, min_width=90, elem_id="say")
        again = gr.Button("New", scale=1, min_width=90, elem_id="new")
    files = {}
    with gr.Row():
        for name, kind in speaker.kinds.items():
            if name not in ("image", "audio", "video"):  # of several of a kind the first: a turn shows one
                continue
            own: dict[str, Any] = {"label": f"with a {noun(name)}", "elem_id": f"with-{name}"}
            if kind.draws and not kind.moves:
                own |= {"type": "filepath", "height": 140, "buttons": [], "sources": ["upload", "webcam", "clipboard"]}
                files[name] = gr.Image(**own)
            elif kind.plays and not kind.draws:
                files[name] = gr.Audio(**own, type="filepath", buttons=[], sources=["microphone", "upload"])
            else:
                files[name] = gr.File(**own, type="filepath", height=140)
    said = gr.on(
        [box.submit, button.click],
        partial(talked, speaker, uploads, list(files)),
        inputs=[state, box, *files.values()],
        outputs=[state, talk, box, *files.values()],
        show_progress="minimal",
        api_visibility="private",
        preprocess=False,
    )
    cleared = [None, "", "", *[None] * len(files)]
    again.click(
        lambda: cleared,
        outputs=[state, talk, box, *files.values()],
        cancels=[said],
        show_progress="hidden",
        api_visibility="private",
    )


def talked(
    speaker: Speaker, uploads: Path, names: list[str], chat: Chat | None, said: Any, *files: Any
) -> Iterator[list[Any]]:
    """The conversation with a turn more, again and again with more words of its answer; and the emptied inputs. What
    can't be used stays in them, below what is wrong with it."""
    kept = [said, *files]
    chat = speaker.model.chat(objective=speaker.name) if chat is None else chat
    try:
        given: dict[str, Any] = {name: received(uploads, file) for name, file in zip(names, files, strict=True) if file}
        words = said if isinstance(said, str) else ""
        pieces = chat.stream(words, max_new_tokens=WORDS, **given)
        emptied: list[Any] = ["", *[None] * len(files)]
        before, whole = turns_shown(chat.messages), ""
        turn = turns_shown([{"role": "user", "content": [*({"type": n, n: v} for n, v in given.items()), words]}])
        yield [chat, _list(before, turn, _turn("assistant", [WAITING])), *emptied]
        for piece in pieces:
            whole += piece
            yield [chat, _list(before, turn, _turn("assistant", [whole + WAITING])), *emptied]
        answer = whole or "(nothing: the model ends at once)"
        yield [chat, _list(before, turn, _turn("assistant", [answer])), *emptied]
    except UserError as error:
        yield [chat, _list(turns_shown(chat.messages)) + _wrong(error), *kept]


def turns_shown(messages: list[dict[str, Any]]) -> Markup:
    """The turns of a conversation."""
    found = []
    for message in messages:
        content = message["content"]
        found.append(_turn(message["role"], [content] if isinstance(content, str) else content))
    return join(*found)


def _turn(role: str, parts: list[Any]) -> Markup:
    made = []
    for part in parts:
        if isinstance(part, str):
            made.append(tag("span", part))
        elif part["type"] == "text":
            made.append(tag("span", part["text"]))
        elif (small := _small(part[part["type"]])) is not None:
            made.append(tag("img", src=small, alt="a picture"))
        else:
            made.append(tag("span", f"({part['type']})", class_="soft"))
    return tag("li", made, class_=role)


def _small(value: Any) -> str | None:
    """A picture as it is shown; None of what is none."""
    try:
        picture = Image.open(io.BytesIO(value)).convert("RGB")
    except (OSError, ValueError, TypeError):
        return None
    picture.thumbnail((SHOWN, SHOWN))
    picture.save(file := io.BytesIO(), "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _list(*turns: Markup) -> str:
    return _safe(tag("ol", list(turns), class_="talk"))


def _text(text: str) -> str:
    return _safe(tag("p", text, role="status"))


def _wrong(error: UserError) -> str:
    return _safe(tag("p", str(error), class_="wrong", role="status"))


def _safe(markup: Markup) -> str:
    """Escapes what gradio's templates would fill in: `${...}` and `{{...}}` are characters like any other."""
    return str(markup).replace("$", "&#36;").replace("{", "&#123;")
