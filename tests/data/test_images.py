"""Pixel values equal transformers' own processors bit for bit, and files that are no good pictures are refused."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessorPil, LlavaImageProcessorPil, SiglipImageProcessorPil

from neva_model.data import ImageProcessor, read_image
from neva_recipes.config import DataError, VisionConfig

SIZES = [(56, 56), (97, 40), (31, 200), (1, 1), (1, 9), (57, 56), (640, 480)]


def vision(kind="clip", size=56, source=None):
    return VisionConfig(
        vision_model_type=kind,
        num_layers=1,
        hidden_size=8,
        ffn_hidden_size=8,
        num_attention_heads=1,
        image_size=size,
        patch_size=14,
        from_pretrained=source,
    )


def picture(size, mode="RGB", seed=0):
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    return Image.merge(mode, [Image.fromarray(values[..., band]) for band in range(bands)])


@pytest.mark.parametrize("aspect", ["square", "crop"])
@pytest.mark.parametrize("size", SIZES)
def test_square_is_clips_own_processor(size, aspect):
    oracle = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    expected = oracle(images=picture(size), return_tensors="pt")["pixel_values"][0]
    pixels = ImageProcessor(vision(), aspect)(picture(size))
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels, expected)


@pytest.mark.parametrize("size", SIZES)
def test_pad_is_llavas_own_processor(size):
    oracle = LlavaImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, do_pad=True)
    expected = oracle(images=picture(size), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(ImageProcessor(vision(), "pad")(picture(size)), expected)


@pytest.mark.parametrize("size", SIZES)
def test_siglip_squeezes_to_its_size(size):
    oracle = SiglipImageProcessorPil(size={"height": 56, "width": 56})
    expected = oracle(images=picture(size), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(ImageProcessor(vision("siglip"), "square")(picture(size)), expected)


@pytest.mark.parametrize("kind", ["SiglipImageProcessor", "SiglipImageProcessorFast"])
def test_a_published_siglip_2_scales_bilinearly(tmp_path, kind):
    """Its settings name either class of SigLIP 1, with another way of scaling."""
    settings = {
        **{"do_convert_rgb": None, "do_normalize": True, "do_rescale": True, "do_resize": True},
        **{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "rescale_factor": 0.00392156862745098},
        **{"image_processor_type": kind, "processor_class": "SiglipProcessor", "resample": 2},
        **{"size": {"height": 56, "width": 56}},
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    scaled = np.asarray(picture((97, 40)).resize((56, 56), Image.Resampling.BILINEAR), dtype=np.float32)
    pixels = ImageProcessor(vision("siglip", source=str(tmp_path)), "square")(picture((97, 40)))
    assert np.abs(pixels.numpy() - (scaled / 127.5 - 1).transpose(2, 0, 1)).max() < 1e-6


DINOV2 = {
    **{"crop_size": {"height": 42, "width": 42}, "do_center_crop": True, "do_convert_rgb": True},
    **{"do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.485, 0.456, 0.406]},
    **{"image_processor_type": "BitImageProcessor", "image_std": [0.229, 0.224, 0.225], "resample": 3},
    **{"rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 48}},
}
"""Settings like those of a published DINOv2, which scales to 256 pixels and crops to 224."""


@pytest.mark.parametrize("settings", [None, DINOV2])
@pytest.mark.parametrize("size", [42, 56])
def test_dinov2_crops_as_published_or_scales_to_its_size(size, settings, tmp_path):
    if settings is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    edge = 48 if settings is not None and size == 42 else size
    mean, std = np.array(DINOV2["image_mean"]), np.array(DINOV2["image_std"])
    scaled = picture((97, 40)).resize((97 * edge // 40, edge), Image.Resampling.BICUBIC)
    left, top = (scaled.width - size) // 2, (edge - size) // 2
    cropped = np.asarray(scaled.crop((left, top, left + size, top + size)))
    pixels = ImageProcessor(vision("dinov2", size, str(tmp_path)), "square")(picture((97, 40)))
    assert np.abs(pixels.numpy() - ((cropped / 255 - mean) / std).transpose(2, 0, 1)).max() < 1e-5


def test_a_processor_that_crops_nothing_is_told_at_once(tmp_path):
    settings = {"size": {"shortest_edge": 56}, "do_center_crop": False, "image_processor_type": "CLIPImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match=r"gives 56x112 pixels, but model\.vision\.image_size=56"):
        ImageProcessor(vision(source=str(tmp_path)), "square")


def test_padding_has_the_mean_color():
    wide = Image.new("RGB", (112, 56), (255, 0, 0))
    pixels = ImageProcessor(vision(), "pad")(wide)
    # Zero after normalisation, up to the rounding of the colour to 8 bits.
    assert pixels[:, 0].abs().max() < 1 / 255 / 0.26
    assert pixels[:, 28].abs().min() > 1


def test_the_towers_own_settings_are_used(tmp_path):
    own = CLIPImageProcessorPil(
        size={"shortest_edge": 42}, crop_size={"height": 42, "width": 42}, image_mean=[0.1, 0.2, 0.3], resample=2
    )
    own.save_pretrained(tmp_path)
    processor = ImageProcessor(vision(size=42, source=str(tmp_path)), "square")
    expected = own(images=picture((97, 40)), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(processor(picture((97, 40))), expected)
    with pytest.raises(DataError, match=r"gives 42x42 pixels, but model\.vision\.image_size=56"):
        ImageProcessor(vision(size=56, source=str(tmp_path)), "square")
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(DataError, match="cannot be loaded"):
        ImageProcessor(vision(size=42, source=str(tmp_path)), "square")


def test_a_tower_without_settings_gets_the_usual_ones(tmp_path):
    plain = ImageProcessor(vision(), "pad")(picture((97, 40)))
    assert torch.equal(ImageProcessor(vision(source=str(tmp_path)), "pad")(picture((97, 40))), plain)


def save(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("mode", "name"),
    [("RGB", "a.png"), ("L", "a.png"), ("1", "a.png"), ("LA", "a.png"), ("RGBA", "a.png"), ("CMYK", "a.jpg")],
)
def test_color_modes_are_converted_as_pillow_does(tmp_path, mode, name):
    source = picture((20, 30), "L").convert("1") if mode == "1" else picture((20, 30), mode)
    path = save(tmp_path / name, source)
    with Image.open(path) as opened:
        assert opened.mode == mode
        expected = np.asarray(opened.convert("RGB"))
    assert np.array_equal(np.asarray(read_image(path)), expected)


def test_palette_with_transparency(tmp_path):
    source = picture((20, 30)).quantize(16)
    path = save(tmp_path / "a.png", source, transparency=3)
    assert np.array_equal(np.asarray(read_image(path)), np.asarray(source.convert("RGB")))


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_16_bit_grey_keeps_its_shades(tmp_path, name):
    values = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    path = save(tmp_path / name, Image.fromarray(values))
    assert np.array_equal(np.asarray(read_image(path))[..., 0], (values // 256).astype(np.uint8))


def with_chunk(path, kind, data):
    """Put a chunk behind the header of a PNG file."""
    content = path.read_bytes()
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content[:33] + chunk + content[33:])
    return path


def grey(path):
    return np.asarray(read_image(path))[..., 0]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("name", ["a.png", "a.tiff", "mode I.tiff"])
def test_grey_of_any_depth_is_as_bright_as_what_it_was_made_of(tmp_path, name, bits):
    """The same picture from every depth and container: each value is the 8-bit one with further bits behind it."""
    eight = np.arange(600, dtype=np.int64).reshape(20, 30) % 256
    values = (eight << (bits - 8)) + (2 ** (bits - 8) - 1)
    image = Image.fromarray(values.astype(np.int32 if "mode I" in name else np.uint16))
    path = save(tmp_path / name, image)
    with Image.open(path) as opened:
        assert opened.mode == ("I" if "mode I" in name else "I;16")
    assert np.array_equal(grey(path), eight.astype(np.uint8))


DARK = np.arange(200, dtype=np.uint16).reshape(10, 20) * 16

DECLARED = [
    # The depth is declared, whatever the values are; by the standard they are shifted up, by habit they are not.
    ("a.png", DARK, {"sBIT": 16}, DARK >> 8),
    ("a.png", DARK + 5, {"sBIT": 12}, DARK >> 4),
    ("a.png", DARK, {"sBIT": 12}, DARK >> 8),
    ("a.png", DARK * 16, {"sBIT": 12}, DARK >> 4),
    ("a.png", DARK >> 4, {"sBIT": 8}, DARK >> 4),
    ("a.png", DARK >> 6, {"sBIT": 12}, DARK >> 10),
    ("a.tiff", DARK, {341: 4095}, DARK >> 4),
    ("a.tiff", DARK >> 4, {281: 4095}, DARK >> 8),
    ("a.tiff", DARK >> 4, {341: 1000}, (DARK >> 4).astype(int) * 255 // 1000),
    ("a.tiff", DARK, {341: 65535}, DARK >> 8),
    ("a.tiff", DARK, {281: 65535}, DARK >> 8),
    # Larger values than declared: the declaration is wrong.
    ("a.tiff", DARK, {341: 255}, DARK >> 4),
]


@pytest.mark.parametrize(("name", "values", "declared", "expected"), DECLARED)
def test_a_declared_depth_counts(tmp_path, name, values, declared, expected):
    path, image = tmp_path / name, Image.fromarray(values.astype(np.uint16))
    if name.endswith("png"):
        with_chunk(save(path, image), b"sBIT", bytes(declared.values()))
    else:
        save(path, image, tiffinfo=declared)
    assert np.array_equal(grey(path), expected.astype(np.uint8))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_white_may_be_zero_in_tiff(tmp_path, bits):
    """The value 0 is white, and the largest is black: PhotometricInterpretation 0 of TIFF 6.0."""
    shades = np.array([[0, 1, 100, 254, 255]], np.uint16)
    pixels = (shades << (bits - 8)) + (2 ** (bits - 8) - 1)
    path = save(tmp_path / "a.tiff", Image.fromarray(pixels.astype(np.uint8 if bits == 8 else np.uint16)))
    data = bytearray(path.read_bytes())
    entry = data.index(struct.pack("<HHI", 262, 3, 1))
    data[entry + 8 : entry + 10] = struct.pack("<H", 0)
    path.write_bytes(data)
    assert grey(path).tolist() == [[255, 254, 155, 1, 0]]


def test_a_portable_map_of_two_bytes_may_hold_values_of_one(tmp_path):
    """65535 says no more than that a value has two bytes, as the 16 bits of a PNG do; what is less is a depth."""
    path = tmp_path / "a.pgm"
    for kind, values in ((b"P5", struct.pack(">3H", 0, 100, 200)), (b"P2", b"0 100 200")):
        path.write_bytes(kind + b" # a remark\n3 1 65535\n" + values)
        assert grey(path).tolist() == [[0, 100, 200]]
        path.write_bytes(kind + b" 3 1 4095\n" + values)
        assert np.abs(grey(path).astype(int) - [[0, 6, 12]]).max() <= 1
    path.write_bytes(b"P6 1 1 65535\n" + struct.pack(">3H", 255, 100, 0))
    with pytest.raises(DataError, match="its colours have 16 bits and use 14 of them at most"):
        read_image(path)
    path.write_bytes(b"P6 1 1 255\n" + bytes((20, 10, 0)))
    assert np.asarray(read_image(path)).tolist() == [[[20, 10, 0]]]


def test_a_portable_graymap_says_its_largest_value(tmp_path):
    for largest in (1000, 4095, 65535):
        path = tmp_path / f"{largest}.pgm"
        path.write_bytes(b"P5 2 1 %d\n" % largest + struct.pack(">HH", largest, largest // 4))
        assert np.abs(grey(path).astype(int) - [[255, 63]]).max() <= 1


@pytest.mark.parametrize("largest", [255, 4095, 16383])
def test_colours_whose_upper_bytes_hold_nothing_are_refused(tmp_path, largest):
    def colours(value):
        row = b"\0" + struct.pack(">HHH", value, value // 2, 0) * 4
        header = struct.pack(">IIBBBBB", 4, 1, 16, 2, 0, 0, 0)
        path = tmp_path / "a.png"
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
        path.write_bytes(
            b"\x89PNG\r\n\x1a\n"
            + b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
        )
        return path

    with pytest.raises(DataError, match="its colours have 16 bits and use 14 of them at most"):
        read_image(colours(largest))
    assert np.asarray(read_image(with_chunk(colours(largest), b"sBIT", bytes([16] * 3))))[0, 0, 0] == largest >> 8
    assert np.asarray(read_image(colours(65535)))[0, 0].tolist() == [255, 127, 0]


def test_an_exif_rotation_is_not_applied(tmp_path):
    source = Image.new("RGB", (40, 20))
    exif = source.getexif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.jpg", source, exif=exif)
    assert read_image(path).size == (40, 20)


def test_names_with_spaces_quotes_and_other_letters(tmp_path):
    path = save(tmp_path / "a 'b' \"c\" \u00e9\u65e5.png", picture((3, 3)))
    assert read_image(path).size == (3, 3)


def png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [9_460, 12_000, 60_000])
def test_decompression_bombs_are_refused(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    with pytest.raises(DataError, match="pixels"):
        read_image(path)


@pytest.mark.parametrize("aspect", ["square", "pad"])
def test_images_that_scaling_would_blow_up_are_refused(aspect):
    with pytest.raises(DataError, match="too narrow to be scaled"):
        ImageProcessor(vision(size=336), aspect)(Image.new("RGB", (60_000, 1)))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_truncated_files_are_refused(tmp_path, format):
    buffer = io.BytesIO()
    picture((64, 64)).save(buffer, format)
    path = tmp_path / "a.img"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(DataError, match=r"a\.img cannot be decoded"):
        read_image(path)


def test_what_is_no_image_file_is_refused(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "program.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "float.tiff")
    for name, reason in [
        ("text.jpg", "cannot be decoded"),
        ("empty.jpg", "cannot be decoded"),
        ("program.eps", "cannot identify image file"),
        ("float.tiff", "floating-point"),
        ("missing.jpg", "does not exist"),
        (".", "is a folder"),
        ("a\0b", "cannot be looked up|does not exist"),
        ("n" * 300, "cannot be looked up|does not exist"),
    ]:
        with pytest.raises(DataError, match=reason) as raised:
            read_image(tmp_path / name)
        assert "\n" not in str(raised.value)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_files_raise_data_errors_only(tmp_path_factory, data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000"]))
    buffer = io.BytesIO()
    picture((24, 24), seed=1).save(buffer, kind)
    damaged = bytearray(buffer.getvalue())
    for position in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=12)):
        damaged[position] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.img"
    path.write_bytes(damaged)
    try:
        assert read_image(path).mode == "RGB"
    except DataError as error:
        assert "damaged.img" in str(error)
