"""Make a dataset of a synthetic city: camera images that show exactly the voxels of their ground truth.

Streets with buildings, trees, cars, people, road works: all sixteen classes. The images are exact: the voxel that a pixel's ray meets first
gives the pixel its colour. The format is SurroundOcc's: DIR/infos.pkl, images and (n, 4) ground truth.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import ConfigError, UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("-o", "--output-dir", required=True, type=Path, metavar="DIR", help="folder of the dataset; new or empty")
    parser.add_argument("--frames", type=int, default=20, metavar="N", help="how many; every 20 frames another street begins (default: 20)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, another city (default: 0)")
    parser.add_argument("--config", type=Path, help="takes cameras, image size, voxels and range from here (default: SurroundOcc's own)")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of the config, as in `occport export`")
    parser.add_argument("--image-size", metavar="H,W", help="of the images, pixels (default: the config's, else 900,1600)")


def run(options: argparse.Namespace) -> int:
    """Renders and writes; progress goes to stderr."""
    from ..city.dataset import write_dataset
    from ..config import read_config_with_options
    from ..progress import Bar
    from ..voxels.grid import Grid

    for name, least in (("frames", 1), ("seed", 0)):
        if getattr(options, name) < least:
            raise UserError(f"--{name}", expected=f"a whole number from {least} on", got=str(getattr(options, name)))
    size = None if options.image_size is None else _size(options.image_size)
    num_cameras, image_size, grid = 6, (900, 1600), Grid((200, 200, 16))
    if options.config is not None:
        config = read_config_with_options(options.config, options.cfg_options)
        num_cameras, image_size, grid = config.num_cameras, config.image.size, Grid(config.occ_size, config.pc_range)
    elif options.cfg_options:
        raise ConfigError("--cfg-options", expected="together with --config", got="no config")
    with Bar(options.frames) as bar:
        files = write_dataset(
            options.output_dir, frames=options.frames, seed=options.seed, num_cameras=num_cameras, image_size=size or image_size,
            grid=grid, step=bar.step,
        )  # fmt: skip
    size_on_disk = sum(file.stat().st_size for file in files)
    print(f"{options.output_dir / 'infos.pkl'}: {options.frames} frames, {len(files)} files, {size_on_disk:,} bytes")
    return 0


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().replace("x", ",").split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() and 1 <= int(part) <= 10_000 for part in parts):
        raise UserError("--image-size", expected="height,width in pixels, as 900,1600", got=text)
    return int(parts[0]), int(parts[1])
