"""Camera images: reading them as the original does, its preprocessing, and made-up ones."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import FrameError

# By name, since Pillow knows formats that start other programs (EPS) or whose library writes to the terminal by itself (TIFF).
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
# What Pillow's decoders raise on damaged files, beside OSError.
_DAMAGE = (
    ValueError, TypeError, ArithmeticError, LookupError, AttributeError, SyntaxError, EOFError, MemoryError, struct.error, zlib.error,
)  # fmt: skip


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file → (H, W, 3) uint8, channels B, G, R, the very bytes that OpenCV's `imread` gives for a JPEG.

    Grey and palette images become colour, transparency is dropped, and an EXIF orientation is applied, as OpenCV does: a
    calibration is of the upright image.

    Errors: FrameError with the path for anything that is no whole JPEG, PNG, BMP, WEBP or PPM image of 8 bits a channel,
    or has more pixels than Pillow takes for honest.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as opened:
                if opened.mode not in _MODES:
                    raise FrameError(
                        f"image {path}", expected="8 bits a channel, grey or RGB", got=f"Pillow's mode {opened.mode}",
                        fix="convert it to RGB first",
                    )  # fmt: skip
                upright = ImageOps.exif_transpose(opened)
                if upright.mode in ("P", "PA"):
                    upright = upright.convert("RGBA")
                rgb = np.asarray(upright.convert("RGB"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FrameError(f"image {path}", expected=f"at most {Image.MAX_IMAGE_PIXELS} pixels", got="more: is it damaged?") from error
    except UnidentifiedImageError as error:
        raise FrameError(f"image {path}", expected="one of " + ", ".join(_FORMATS), got="a file that is none of them") from error
    except OSError as error:
        raise FrameError(f"image {path}", expected="a readable image", got=error.strerror or str(error)) from error
    except _DAMAGE as error:
        raise FrameError(f"image {path}", expected="a whole image", got=f"a damaged one ({error})") from error
    return np.ascontiguousarray(rgb[:, :, ::-1])


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Writes (H, W, 3) uint8, channels B, G, R, as PNG: `read_image` gives the same bytes back. OSError where the disk does not take it."""
    Image.fromarray(np.ascontiguousarray(image[:, :, ::-1])).save(path, format="PNG")


def read_images(paths: Sequence[Path], camera_names: Sequence[str]) -> NDArray[np.uint8]:
    """The images of one frame → (N, H, W, 3) uint8 BGR.

    Errors: FrameError of `read_image`; where sizes differ, one naming the camera that is unlike most.
    """
    images = [read_image(path) for path in paths]
    common = Counter(image.shape for image in images).most_common(1)[0][0]
    for name, path, image in zip(camera_names, paths, images, strict=True):
        if image.shape != common:
            raise FrameError(
                f"image of {name} ({path})", expected=f"{common[0]} x {common[1]} (height x width) like the others",
                got=f"{image.shape[0]} x {image.shape[1]}", fix="resize it and scale its intrinsic matrix: all cameras share one size",
            )  # fmt: skip
    return np.stack(images)


def padded_hw(height: int, width: int, divisor: int) -> tuple[int, int]:
    """(H, W) rounded up to multiples of `divisor`."""
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def preprocess(
    images: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], to_rgb: bool, size_divisor: int
) -> NDArray[np.float32]:
    """The original's test pipeline: swap if asked, subtract the mean, divide, and THEN pad with zeros at the bottom and right.

    Args:
        images: (N, H, W, 3) uint8 BGR.
        mean, std: 3 numbers each, in the order of the channels after the swap, grey levels.
        to_rgb: whether the network takes R, G, B.
        size_divisor: the padded height and width are multiples of it.
    Returns:
        img (1, N, 3, Hp, Wp) float32.
    Errors: FrameError for a standard deviation that is not a positive number.
    """
    if not all(value > 0 for value in std):
        raise FrameError("img_norm_cfg.std", expected="3 positive numbers", got=str(list(std)))
    num_cameras, height, width, _ = images.shape
    padded = padded_hw(height, width, size_divisor)
    img = np.zeros((1, num_cameras, 3, *padded), np.float32)
    for camera in range(num_cameras):
        for channel in range(3):
            inside = img[0, camera, channel, :height, :width]
            source = images[camera, :, :, 2 - channel if to_rgb else channel]
            np.subtract(source, np.float32(mean[channel]), out=inside, dtype=np.float32)
            if std[channel] != 1:
                inside /= np.float32(std[channel])
    return img


def synthetic_images(num_cameras: int, height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Made-up images → (N, H, W, 3) uint8: noise of every scale, its own for each camera and channel.

    Only integers and a bit generator with a guaranteed stream are used, so that every machine makes the same bytes.

    Args:
        seed: at least 0. Another seed gives other images; camera n is the same whatever their number.
    """
    images = np.empty((num_cameras, height, width, 3), np.uint8)
    for camera in range(num_cameras):
        for channel in range(3):
            images[camera, :, :, channel] = _noise(height, width, np.random.PCG64([seed, camera, channel]))
    return images


def _noise(height: int, width: int, bits: np.random.PCG64) -> NDArray[np.uint8]:
    """(H, W) uint8: from a few grey patches down to pixels, each scale doubled, smoothed, and roughened with new noise."""
    scale = max(0, (max(height, width) - 1).bit_length() - 2)
    level = _random(-(-height >> scale), -(-width >> scale), bits) // 2 + 64
    while scale:
        scale -= 1
        level = level.repeat(2, axis=0).repeat(2, axis=1)
        for axis in (0, 1):  # a running mean of two along each axis takes the edges off the doubled cells
            after = np.concatenate([level[1:], level[-1:]]) if axis == 0 else np.concatenate([level[:, 1:], level[:, -1:]], axis=1)
            level = (level + after) >> 1
        level = level[: -(-height >> scale), : -(-width >> scale)]
        fineness = 2 if scale else 4  # pixel noise is weaker, as in a photograph
        level = level + (_random(level.shape[0], level.shape[1], bits) - 128) // fineness
    return np.clip(level, 0, 255).astype(np.uint8)


def _random(height: int, width: int, bits: np.random.PCG64) -> NDArray[np.int16]:
    """(height, width) int16, evenly in 0..255."""
    raw = np.atleast_1d(bits.random_raw(-(-height * width // 8)))
    return raw.astype("<u8").view(np.uint8)[: height * width].reshape(height, width).astype(np.int16)
