"""Templates of conversations as data: the strings around the turns. Nothing of a checkpoint's own template is run."""

import re
from dataclasses import dataclass

from mmjax.errors import UserError, not_among

BEGIN, END = "{bos}", "{eos}"  # the tokenizer's own pieces, whatever they are called
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


@dataclass(frozen=True)
class ChatTemplate:
    """The strings that a conversation is written with, for `TokenizeConversation`.

    `{bos}` and `{eos}` in them are the tokenizer's begin and end, and `marks` are names of other special pieces. All
    else is text, which is cut into pieces together with the words beside it. A space at the end of what stands before
    the assistant's words goes to their first piece.

    Attributes:
        system, user: before and after the words of such a turn.
        assistant: before the words of such a turn, and what ends it; that is predicted too.
        begin: before all.
        between: between two turns.
        default_system: the words of the system in a conversation that has none; "": there is no such turn then.
        media: before and after what stands for a picture or a sound.
        media_first: whether pictures and sounds of a turn come before its words, wherever they stand in it.
        marks: names of special pieces that the tokenizer must have.
    """

    user: tuple[str, str]
    assistant: tuple[str, str]
    system: tuple[str, str]
    begin: str = ""
    between: str = ""
    default_system: str = ""
    media: tuple[str, str] = ("", "\n")
    media_first: bool = False
    marks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.assistant[1].strip():
            raise UserError(
                f"ChatTemplate(assistant={self.assistant!r}): nothing ends the assistant's turn, so that a model would "
                f"never stop: put {END!r} there, or a name of `marks`"
            )

    def parts(self, text: str) -> list[str]:
        """One of the template's strings, cut at its marks, which stand at odd places."""
        return re.split(f"({'|'.join(map(re.escape, (BEGIN, END, *self.marks)))})", text)

    def used(self) -> list[str]:
        """The marks that stand in its strings, each once."""
        strings = (*self.system, *self.user, *self.assistant, self.begin, self.between, *self.media)
        return list(dict.fromkeys(mark for text in strings for mark in self.parts(text)[1::2]))


def _headed(role: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


TEMPLATES: dict[str, ChatTemplate] = {
    # Every turn ends in the end token, and nothing tells the roles (DialoGPT: Zhang et al. 2019, arXiv:1911.00536).
    "plain": ChatTemplate(user=("", END), assistant=("", END), system=("", END), begin=BEGIN),
    # LLaVA-1.5's (Liu et al. 2023, arXiv:2310.03744).
    "vicuna_v1": ChatTemplate(
        user=("USER: ", " "),
        assistant=("ASSISTANT: ", END),
        system=("", " "),
        begin=BEGIN,
        default_system=VICUNA_SYSTEM,
        media_first=True,
    ),
    "chatml": ChatTemplate(
        user=("<|im_start|>user\n", "<|im_end|>"),
        assistant=("<|im_start|>assistant\n", "<|im_end|>"),
        system=("<|im_start|>system\n", "<|im_end|>"),
        between="\n",
        marks=("<|im_start|>", "<|im_end|>"),
    ),
    "llama3": ChatTemplate(
        user=(_headed("user"), "<|eot_id|>"),
        assistant=(_headed("assistant"), "<|eot_id|>"),
        system=(_headed("system"), "<|eot_id|>"),
        begin="<|begin_of_text|>",
        marks=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
}


def template_of(template: ChatTemplate | str) -> ChatTemplate:
    """The template, which may be one of TEMPLATES by its name. Raises UserError for an unknown name."""
    if isinstance(template, ChatTemplate):
        return template
    if template not in TEMPLATES:
        raise UserError(f"{not_among('template', template, TEMPLATES)}; or give a ChatTemplate(...) of your own")
    return TEMPLATES[template]
