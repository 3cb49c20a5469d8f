"""Models: towers and decoders, inputs to tokens and embeddings, by the names that an experiment imports.

    from mmjax.models import LogMel, TextTransformer, ViT

The names are imported when they are first asked for. What of them is a class of fields may stand in an experiment's
record: constructing it with any arguments whatever reads, writes and runs nothing.
"""

from etils import epy

with epy.lazy_api_imports(globals()):
    from mmjax.models.decoders.patches import Decoder
    from mmjax.models.decoders.patches_and_words import JointDecoder
    from mmjax.models.decoders.projectors import LinearProjector, MlpProjector, Resampler, WithoutFirst
    from mmjax.models.decoders.recurrent import RecurrentDecoder
    from mmjax.models.decoders.text import TextDecoder
    from mmjax.models.decoders.upper import UpperDecoder
    from mmjax.models.fusion.coattention import CoAttention
    from mmjax.models.fusion.concatenated import Concatenated
    from mmjax.models.fusion.contract import Fusion
    from mmjax.models.fusion.cross import Cross
    from mmjax.models.fusion.exchange import Exchange
    from mmjax.models.fusion.gated import Gated
    from mmjax.models.fusion.late import Late
    from mmjax.models.fusion.low_rank import LowRank
    from mmjax.models.fusion.merged import Merged
    from mmjax.models.fusion.multiway import Multiway
    from mmjax.models.fusion.tensor import TensorFusion
    from mmjax.models.fusion.through_trunk import ThroughTrunk
    from mmjax.models.layers.blocks import Blocks
    from mmjax.models.layers.decoder_blocks import DecoderBlocks
    from mmjax.models.layers.masks import prefix_causal
    from mmjax.models.towers.audio import AudioTransformer
    from mmjax.models.towers.bare import BareTower, Incoming
    from mmjax.models.towers.contract import PatchTower, Tower
    from mmjax.models.towers.convolutional import Convolutional, ConvolutionalAudio, ConvolutionalTower
    from mmjax.models.towers.divided import DividedViT
    from mmjax.models.towers.factorised import FactorisedViT
    from mmjax.models.towers.frames import Frames
    from mmjax.models.towers.kaldi_fbank import KaldiFbank
    from mmjax.models.towers.log_mel import LogMel
    from mmjax.models.towers.multiway_trunk import MultiwayTrunk
    from mmjax.models.towers.pooled import PooledViT
    from mmjax.models.towers.precomputed import Given
    from mmjax.models.towers.recurrent import Recurrent, RecurrentTower
    from mmjax.models.towers.recurrent_audio import RecurrentAudio
    from mmjax.models.towers.regions import Regions
    from mmjax.models.towers.reserve.audio import ReserveAudio
    from mmjax.models.towers.reserve.vision import ReserveVision
    from mmjax.models.towers.resnet import ResNet
    from mmjax.models.towers.shared_trunk import Trunk
    from mmjax.models.towers.text import TextTransformer
    from mmjax.models.towers.tubelets import TubeletViT
    from mmjax.models.towers.vit import ViT
