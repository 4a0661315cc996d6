"""Makes the README's two photographs beside itself: `python docs/pictures/occupancy.py [FOLDER] [--steps N]`. About 10 minutes on a CPU.

No trained checkpoint of SurroundOcc was at hand, so the small network learns one frame of the synthetic city by heart: that shows the way
from images to voxels and every step of the tools, and says nothing about accuracy. Everything is made with the commands that users have.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
CONFIG = ROOT / "projects/configs/surroundocc/surroundocc_micro.py"


def learn_by_heart(checkpoint: Path, steps: int) -> None:
    """Trains the micro network on the first frame of the city, from PyTorch's own initialisation, and writes its weights."""
    import occport
    from occport.city.frame import city_frame
    from occport.frames.images import preprocess
    from occport.voxels.grid import Grid

    config = occport.read_config(CONFIG)
    image = config.image
    frame, scene = city_frame(0, 0, config.num_cameras, image.size, Grid(config.occ_size, config.pc_range))
    img = torch.from_numpy(preprocess(frame.images, image.mean, image.std, image.to_rgb, image.size_divisor))
    lidar2img = torch.from_numpy(frame.lidar2img[None].astype(np.float32))
    wanted = torch.from_numpy(scene.labels.astype(np.int64))[None]
    counts = torch.bincount(wanted.flatten(), minlength=config.num_classes).clamp(min=1)
    weight = (counts.max() / counts).sqrt().clamp(max=12)  # a car has a few voxels, the air has most of them
    torch.manual_seed(0)
    model = occport.build_model(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps)
    for step in range(steps):
        loss = F.cross_entropy(model(img, lidar2img)[-1], wanted, weight=weight)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        schedule.step()
        if step % 20 == 0:
            sys.stderr.write(f"step {step} of {steps}: loss {loss.item():.4f}\n")
    torch.save({"state_dict": model.state_dict(), "meta": {}}, checkpoint)


def photograph(recording: Path, picture: Path, profile: Path) -> None:
    """What a browser shows of a recording."""
    from browser import Browser
    from occport.view.serve import serve

    with serve(recording, 0) as serving, Browser(profile, 1600, 1000) as browser:
        browser.open(serving.address)
        colourful = (255, 0, 255)  # the road, when the volumes are drawn
        browser.screenshot_when(lambda seen: (np.abs(seen.astype(int) - colourful).sum(axis=2) < 60).mean() > 0.01, 120)
        time.sleep(30)  # the camera images come after the volumes
        picture.write_bytes(browser.screenshot()[0])


def main() -> None:
    """City, training, prediction, picture, recording, screenshot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()

    def occport(*words: object) -> None:
        subprocess.run([sys.executable, "-m", "occport", *map(str, words)], check=True)

    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        infos, predictions, recording = scratch / "city/infos.pkl", scratch / "predictions", scratch / "city.rrd"
        learn_by_heart(scratch / "micro.pth", options.steps)
        occport("synth", "-o", scratch / "city", "--frames", 1, "--config", CONFIG)
        occport("predict", infos, "--config", CONFIG, "--checkpoint", scratch / "micro.pth", "-o", predictions)
        occport("view", infos, "--predictions", predictions, "-o", recording)
        occport("view", f"{infos}:0", "--predictions", predictions, "-o", options.folder / "prediction.png")
        photograph(recording, options.folder / "viewer.png", scratch / "profile")


if __name__ == "__main__":
    main()
