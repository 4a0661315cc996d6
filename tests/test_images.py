"""Reading as OpenCV reads, preprocessing in the original's order, made-up images that are the same everywhere."""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from occport.errors import FrameError
from occport.frames.images import padded_hw, preprocess, read_image, read_images, synthetic_images

SHARED = Path(__file__).resolve().parents[2] / "shared"
MEAN = (103.530, 116.280, 123.675)
ORIENTATION = 0x0112  # EXIF tag


@pytest.fixture
def picture():
    """(5, 7, 3) uint8 RGB, every value different."""
    return np.arange(105, dtype=np.uint8).reshape(5, 7, 3)


def test_the_real_frame_bit_for_bit():
    folder = SHARED / "data" / "nuscenes_frame"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/nuscenes_frame beside this checkout: the real images are there")
    cameras = json.loads((folder / "frame.json").read_text())["cameras"]
    img = preprocess(read_images([folder / entry["file"] for entry in cameras.values()], list(cameras)), MEAN, (1, 1, 1), False, 32)
    assert img.shape == (1, 6, 3, 928, 1600) and img.dtype == np.float32
    with np.load(SHARED / "reference" / "nuscenes_frame_full.npz") as case:
        assert zlib.crc32(img.tobytes()) == int(case["img_crc32"]) == 939321088


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm"])
def test_channels_come_out_as_blue_green_red(tmp_path, picture, suffix):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(picture).save(path)
    image = read_image(path)
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, picture[:, :, ::-1])


def test_webp(tmp_path):
    Image.new("RGB", (16, 16), (200, 100, 30)).save(tmp_path / "image.webp", lossless=True)
    np.testing.assert_array_equal(read_image(tmp_path / "image.webp"), np.full((16, 16, 3), (30, 100, 200)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_modes_become_colour(tmp_path, picture, mode):
    image = Image.fromarray(picture).convert(mode)
    image.save(tmp_path / "image.png")
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "image.png"), expected[:, :, ::-1])


def test_transparency_is_dropped_not_blended(tmp_path, picture):
    rgba = np.dstack([picture, np.zeros((5, 7), np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "image.png")
    np.testing.assert_array_equal(read_image(tmp_path / "image.png"), picture[:, :, ::-1])


def test_a_transparent_palette_gives_no_warning(tmp_path, recwarn):
    image = Image.new("P", (2, 2))
    image.putpalette([9, 8, 7] + [0] * 765)
    image.save(tmp_path / "image.png", transparency=bytes([0, 255]))
    np.testing.assert_array_equal(read_image(tmp_path / "image.png"), np.full((2, 2, 3), (7, 8, 9)))
    assert not recwarn.list


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda a: a), (2, lambda a: a[:, ::-1]), (3, lambda a: a[::-1, ::-1]),
        (6, lambda a: np.rot90(a, -1)), (8, lambda a: np.rot90(a, 1)),
    ],
)  # fmt: skip
def test_exif_orientation_is_applied(tmp_path, picture, orientation, turn):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(picture).save(tmp_path / "image.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "image.png"), turn(picture)[:, :, ::-1])


def refused(path):
    with pytest.raises(FrameError) as caught:
        read_image(path)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line
    return line


def test_no_such_file(tmp_path):
    assert "No such file" in refused(tmp_path / "missing.jpg")


def test_a_folder(tmp_path):
    assert "directory" in refused(tmp_path)


def test_a_path_that_no_system_has():
    with pytest.raises(FrameError, match="null"):
        read_image(Path("a\0b.jpg"))


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff"])
def test_not_an_image(tmp_path, content):
    (tmp_path / "image.jpg").write_bytes(content)
    assert "expected one of JPEG, PNG, BMP, WEBP, PPM, got a file that is none of them" in refused(tmp_path / "image.jpg")


@pytest.mark.parametrize("format_name", ["TIFF", "GIF", "EPS"])
def test_formats_that_are_left_out(tmp_path, picture, format_name):
    Image.fromarray(picture).save(tmp_path / "image", format_name)
    assert "expected one of JPEG" in refused(tmp_path / "image")


def test_truncated(tmp_path):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(out, "JPEG")
    (tmp_path / "image.jpg").write_bytes(out.getvalue()[:-1000])
    assert "truncated" in refused(tmp_path / "image.jpg")


def test_more_than_8_bits(tmp_path):
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(tmp_path / "image.png")
    assert "expected 8 bits a channel, grey or RGB, got Pillow's mode I;16; convert it to RGB first" in refused(tmp_path / "image.png")


def test_cmyk(tmp_path):
    Image.new("CMYK", (4, 4)).save(tmp_path / "image.jpg")
    assert "got Pillow's mode CMYK" in refused(tmp_path / "image.jpg")


@pytest.mark.parametrize("size", [b"10000 10000", b"100000 100000"])  # what Pillow warns about, what it refuses
def test_decompression_bomb(tmp_path, size):
    (tmp_path / "image.ppm").write_bytes(b"P6 " + size + b" 255\n" + b"\0" * 100)
    assert "expected at most 89478485 pixels, got more" in refused(tmp_path / "image.ppm")


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["JPEG", "PNG", "BMP", "WEBP", "PPM"]), st.integers(0, 10**6), st.binary(min_size=1, max_size=4), st.booleans())
def test_damaged_files_end_in_one_line(tmp_path_factory, format_name, place, junk, cut):
    out = io.BytesIO()
    Image.fromarray(np.arange(768, dtype=np.uint16).astype(np.uint8).reshape(16, 16, 3)).save(out, format_name)
    content = bytearray(out.getvalue())
    place %= len(content)
    content[place : place + len(junk)] = junk
    path = tmp_path_factory.mktemp("damaged") / "image"
    path.write_bytes(content[:place] if cut else content)
    try:
        image = read_image(path)
    except FrameError as error:
        assert "\n" not in str(error) and str(path) in str(error)
    else:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def test_images_of_one_frame_have_one_size(tmp_path):
    paths = []
    for number, size in enumerate([(8, 6), (8, 6), (9, 6)]):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", size, (number, 0, 0)).save(paths[-1])
    with pytest.raises(FrameError, match=r"image of C \(.*2.png\): expected 6 x 8 \(height x width\) like the others, got 6 x 9; resize"):
        read_images(paths, ["A", "B", "C"])
    images = read_images(paths[:2], ["A", "B"])
    assert images.shape == (2, 6, 8, 3) and images[:, 0, 0].tolist() == [[0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("size", "divisor", "expected"),
    [((900, 1600), 32, (928, 1600)), ((126, 224), 32, (128, 224)), ((1, 33), 32, (32, 64)), ((5, 7), 1, (5, 7))],
)
def test_padded_hw(size, divisor, expected):
    assert padded_hw(*size, divisor) == expected


def test_preprocess_subtracts_before_it_pads():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    img = preprocess(images, MEAN, (1, 1, 1), False, 4)
    assert img.shape == (1, 2, 3, 8, 8) and img.dtype == np.float32
    for channel in range(3):
        np.testing.assert_array_equal(img[0, :, channel, :5, :7], images[..., channel].astype(np.float32) - np.float32(MEAN[channel]))
    assert not img[..., 5:, :].any() and not img[..., 7:].any()


def test_preprocess_with_swap_and_deviation():
    images = np.random.default_rng(1).integers(0, 256, (1, 4, 4, 3), np.uint8)
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 1.0)
    img = preprocess(images, mean, std, True, 4)
    for channel in range(3):
        expected = (images[..., 2 - channel].astype(np.float64) - mean[channel]) / std[channel]
        np.testing.assert_allclose(img[0, :, channel], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("std", [(1, 0, 1), (1, 1, -1), (1, float("nan"), 1)])
def test_preprocess_refuses_a_deviation(std):
    with pytest.raises(FrameError, match=r"img_norm_cfg\.std: expected 3 positive numbers"):
        preprocess(np.zeros((1, 4, 4, 3), np.uint8), MEAN, std, False, 4)


def test_synthetic_images_are_the_same_everywhere():
    images = synthetic_images(2, 36, 50, 0)
    assert images.shape == (2, 36, 50, 3) and images.dtype == np.uint8
    assert zlib.crc32(images.tobytes()) == 898945434
    np.testing.assert_array_equal(images, synthetic_images(3, 36, 50, 0)[:2])
    assert (images != synthetic_images(2, 36, 50, 1)).mean() > 0.9


def test_synthetic_images_have_texture_at_every_scale():
    image = synthetic_images(1, 256, 512, 0)[0].astype(np.float64)
    for size in (1, 4, 16, 64):
        blocks = image.reshape(256 // size, size, 512 // size, size, 3).mean(axis=(1, 3))
        assert np.abs(np.diff(blocks, axis=0)).mean() > 5 and np.abs(np.diff(blocks, axis=1)).mean() > 5
    assert image.std() > 40


def test_synthetic_cameras_and_channels_are_unlike():
    planes = synthetic_images(6, 90, 160, 0).transpose(0, 3, 1, 2).reshape(18, -1)  # (N, H, W, 3) → (3N, H*W)
    alike = np.corrcoef(planes) - np.eye(18)
    assert np.abs(alike).max() < 0.75
    image = synthetic_images(1, 64, 64, 0)[0]
    assert (image != image.transpose(1, 0, 2)).mean() > 0.9


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**40))
def test_synthetic_images_of_any_size(cameras, height, width, seed):
    assert synthetic_images(cameras, height, width, seed).shape == (cameras, height, width, 3)
