"""Data: sources, transforms, tokenizers and the pipeline, by the names that an experiment imports.

    from mmjax.data import Decode, Folder, Mixture, Resize, SentencePiece, Tokenize

Nothing in this folder imports jax or touches a device. The names are imported when they are first asked for. Those that
are classes of fields may be in an experiment's record: constructing one with any arguments whatever reads, writes and
runs nothing.
"""

from etils import epy

with epy.lazy_api_imports(globals()):
    from mmjax.data.bad_example import BadExample
    from mmjax.data.datasets.asked_emoji.answers import ANSWERS
    from mmjax.data.datasets.tagged_emoji.kinds import EMOJI_TAGS
    from mmjax.data.every_sentence import EverySentence
    from mmjax.data.packed import Packed
    from mmjax.data.pipeline import Mixture
    from mmjax.data.sources.asked_scenes import AskedScenes
    from mmjax.data.sources.contract import Records, Source
    from mmjax.data.sources.documents import Documents
    from mmjax.data.sources.emoji_charts import EmojiCharts
    from mmjax.data.sources.every_caption import EveryCaption
    from mmjax.data.sources.folder import Folder
    from mmjax.data.sources.hugging_face import HuggingFace
    from mmjax.data.sources.lines import Lines
    from mmjax.data.sources.precomputed import Features, Vector
    from mmjax.data.sources.python_topics import PythonTopics
    from mmjax.data.sources.renamed import Renamed
    from mmjax.data.sources.segments import Segments
    from mmjax.data.sources.tars import Tars
    from mmjax.data.sources.text_files import TextFiles
    from mmjax.data.sources.tfds import Tfds
    from mmjax.data.sources.video_folder import VideoFolder
    from mmjax.data.token_rows import TokenRows
    from mmjax.data.tokenizers.given_ids import GivenIds
    from mmjax.data.tokenizers.sentence_piece import EOS, SentencePiece
    from mmjax.data.tokenizers.subwords import Subwords
    from mmjax.data.tokenizers.word_tree import WordTree
    from mmjax.data.transforms.answers import AnswerInText, TokenizeAnswer
    from mmjax.data.transforms.audio import (
        AddNoise,
        CropOrPad,
        DecodeAudio,
        PickUtterance,
        RandomGain,
        RandomShift,
        RandomSpeed,
    )
    from mmjax.data.transforms.audio_input import SoundInput
    from mmjax.data.transforms.chat_templates import ChatTemplate
    from mmjax.data.transforms.codes import Codes, ColourCodes
    from mmjax.data.transforms.contract import RecordTransform, Spec, Transform
    from mmjax.data.transforms.conversation import TokenizeConversation
    from mmjax.data.transforms.conversation_input import ConversationInput
    from mmjax.data.transforms.dropped_words import DropWords
    from mmjax.data.transforms.exchanges import DrawExchange, PredictAnswers
    from mmjax.data.transforms.frame import DecodeFrame
    from mmjax.data.transforms.frame_cells import CutCells
    from mmjax.data.transforms.frame_crop import CropFrame
    from mmjax.data.transforms.image import (
        CenterCrop,
        ColorJitter,
        Decode,
        RandomAffine,
        RandomFlip,
        RandomResizedCrop,
        Resize,
        ResizeLonger,
        ResizeShorter,
    )
    from mmjax.data.transforms.image_input import PictureInput
    from mmjax.data.transforms.input import Input
    from mmjax.data.transforms.labels import Label, Labels, SoftAnswers
    from mmjax.data.transforms.numbers import Numbers
    from mmjax.data.transforms.overlapping import CutOverlapping
    from mmjax.data.transforms.packed_row import ReadPacked
    from mmjax.data.transforms.pooled_pixels import PooledPixels
    from mmjax.data.transforms.prefixed import PrefixText, TokenizePrefixed
    from mmjax.data.transforms.read_conversation import ReadConversation
    from mmjax.data.transforms.record import CopyInput, PickTogether
    from mmjax.data.transforms.references import CaptionList, KeepCaptions, TokenizeReferences
    from mmjax.data.transforms.regions import GatherRegions, GridRegions, ReadRegions
    from mmjax.data.transforms.reserve.clips import EachClip
    from mmjax.data.transforms.reserve.ids import ReserveIds
    from mmjax.data.transforms.reserve.streams import ReserveStreams
    from mmjax.data.transforms.reserve.subsegments import CutSubsegments
    from mmjax.data.transforms.reserve.web_text import MaskSpans
    from mmjax.data.transforms.segment_window import SegmentWindow
    from mmjax.data.transforms.sentence_pairs import SentencePair
    from mmjax.data.transforms.tagged import TagWords, TokenizeTagged
    from mmjax.data.transforms.text import (
        Canonicalize,
        CleanText,
        Lowercase,
        PickCaption,
        Prompt,
        RandomTokenize,
        Tokenize,
    )
    from mmjax.data.transforms.text_input import TextInput
    from mmjax.data.transforms.token_row import ReadRow
    from mmjax.data.transforms.unended import TokenizeUnended
    from mmjax.data.transforms.video import DecodeVideo, EachFrame
    from mmjax.data.transforms.video_input import VideoInput
    from mmjax.data.transforms.visual_sentence import RandomPace, VisualSentence
    from mmjax.data.transforms.visual_words import VisualWords
    from mmjax.data.transforms.window import CutWindow
