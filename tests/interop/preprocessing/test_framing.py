"""What a tokenizer.json puts around texts, by the library that reads such files."""

import pytest

tokenizers = pytest.importorskip("tokenizers")

from mmjax.data.tokenizers.tokenizer_json import tokenizer_json  # noqa: E402
from mmjax.interop.preprocessing.framing import framed  # noqa: E402
from tests.data.vocabularies import write_bert  # noqa: E402


@pytest.mark.parametrize(("begin", "end"), [(None, None), ("[CLS]", None), (None, "[SEP]"), ("[SEP]", "[CLS]")])
def test_what_stands_around_texts(begin, end, tmp_path):
    model = tokenizer_json(write_bert(tmp_path))
    before, after = (tokenizers.Tokenizer.from_str(each.decode()) for each in (model, framed(model, begin, end)))
    inner = before.encode("a photo", add_special_tokens=False).tokens
    assert before.encode("a photo").tokens == ["[CLS]", *inner, "[SEP]"]
    around = [*([begin] if begin else []), *inner, *([end] if end else [])]
    assert after.encode("a photo").tokens == around
    assert after.encode("a photo", "a photo").tokens == around * 2
    assert after.encode("a photo").ids == [before.token_to_id(piece) for piece in around]
