"""Shows each kind of input on the page: its tab, the component for a query, its words, and an item."""

from typing import Any

from mmjax.data.transforms.input import Input
from mmjax.evaluate.report.markup import Markup, short, tag
from mmjax.runtime.counts import noun

PICTURES, OTHERS = 12, 8  # shown of each; of one modality alone twice as many


def tab(modality: str, kind: type[Input]) -> str:
    """Returns the label of its tab."""
    if kind.moves:
        return "Video"
    return "Type" if kind.words else "Picture" if kind.draws else "Voice" if kind.plays else modality.capitalize()


def what_to_do(modality: str, kind: type[Input]) -> str:
    """Says what to do in its tab."""
    if kind.words:
        return "Type what you look for, “a red car” say, and press Enter."
    if kind.moves:
        return "Drop a video here: what is like it is found."
    if kind.draws:
        return "Drop a picture here, or paste one: what looks like it is found."
    if kind.plays:
        return "Say what you look for, or give a sound file."
    return f"Drop a file of {modality} here: what is like it is found."


def asked(modality: str, kind: type[Input], query: Any) -> str:
    """A query in a sentence."""
    return f"“{short(str(query))}”" if kind.words else f"this {noun(modality)}"


def shown_class(kind: type[Input]) -> str:
    """The style of a list of them (`page.css`)."""
    return "image" if kind.draws else "audio"


def most_shown(kind: type[Input]) -> int:
    """Returns how many items of a kind an answer shows at most."""
    return PICTURES if kind.draws else OTHERS


def item(modality: str, kind: type[Input], name: str, uri: str) -> Markup:
    """An item as one sees or hears it; of what can't be shown, that it can't."""
    if kind.moves:
        return tag("video", src=uri, poster=f"{uri}?small", controls=True, preload="none", aria_label=short(name, 120))
    if kind.draws:
        picture = tag("img", src=f"{uri}?small", alt=short(name, 120), loading="lazy")
        return tag("a", picture, href=uri, target="_blank", rel="noopener", title="open it large")
    if kind.plays:
        return tag("audio", src=uri, controls=True, preload="none", aria_label=short(name, 120))
    return tag("span", f"({noun(modality)}, which can't be shown)", class_="soft")


def taker(gr: Any, modality: str, kind: type[Input], first: bool) -> tuple[Any, list[Any]]:
    """Makes gradio's component for a query, and the events that ask it. first: whether no other takes its kind."""
    told = what_to_do(modality, kind)
    end = "" if first else f"-{modality}"
    if kind.words:
        with gr.Row(equal_height=True, elem_id=f"typing{end}"):
            box = gr.Textbox(
                show_label=False, container=False, placeholder=told, max_lines=1, scale=8, elem_id=f"query{end}"
            )
            button = gr.Button("Search", variant="primary", scale=1, min_width=90, elem_id=f"search{end}")
        return box, [box.submit, button.click]
    if kind.moves:
        video = gr.Video(label=told, sources=["upload", "webcam"], height=240, buttons=[], elem_id=f"video{end}")
        return video, [video.change]
    if kind.draws:
        picture = gr.Image(
            type="filepath",
            label=told,
            sources=["upload", "webcam", "clipboard"],
            height=240,
            buttons=[],
            elem_id=f"picture{end}",
        )
        return picture, [picture.change]
    if kind.plays:
        sources = ["microphone", "upload"]
        sound = gr.Audio(type="filepath", label=told, sources=sources, buttons=[], elem_id=f"sound{end}")
        return sound, [sound.change]
    file = gr.File(type="filepath", label=told, height=240, elem_id=f"file-{modality}")
    return file, [file.change]
