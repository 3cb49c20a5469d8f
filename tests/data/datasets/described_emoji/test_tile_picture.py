import io

import numpy as np
from PIL import Image

from mmjax.data.datasets.asked_emoji.colours import colour_of, palette_tone
from mmjax.data.datasets.asked_emoji.drawings import drawing
from mmjax.data.datasets.described_emoji.tile_picture import PICTURE_SIDE, draw_tiles
from mmjax.data.datasets.described_emoji.tiles import FACTS


def test_a_picture_shows_its_tiles_in_their_colours_and_nothing_beside_them(planned):
    for scene in planned["test"][:40]:
        picture = np.asarray(Image.open(io.BytesIO(draw_tiles(scene))))
        assert picture.shape == (PICTURE_SIDE, PICTURE_SIDE, 3)
        left = np.ones((PICTURE_SIDE, PICTURE_SIDE), bool)  # of which nothing was looked at
        for tile in scene.tiles:
            for copy in tile.copies:
                spot = slice(copy.y, copy.y + copy.side), slice(copy.x, copy.x + copy.side)
                expected = Image.new("RGBA", (copy.side, copy.side), palette_tone(tile.colour))
                expected.alpha_composite(drawing(tile.emoji, copy.side))
                gap = np.abs(picture[spot].astype(int) - np.asarray(expected.convert("RGB")))
                assert gap.max() <= 1  # of rounding
                assert (picture[spot] != palette_tone(tile.colour)).any()
                left[spot] = False
            x, y, right, bottom = tile.box
            ground = left[y:bottom, x:right]
            assert (picture[y:bottom, x:right][ground] == palette_tone(tile.colour)).all()
            left[y:bottom, x:right] = False
        assert (picture[left] == 255).all()


def test_each_colour_is_named_as_it_looks():
    tones = {colour: palette_tone(colour) for colour in FACTS["colour"]}
    for colour, tone in tones.items():
        assert colour_of(np.full((4, 4, 4), (*tone, 255), np.uint8)) == colour
    assert len(set(tones.values())) == len(tones)
