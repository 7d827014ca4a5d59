"""How much maps of a video flicker, and what smoothing does to maps whose truth is known.

    DSA_REAL=FOLDER python studies/estimator/steady.py

Videos are made of the photographs with maps: the photograph itself, and its person moved by 3 pixels a frame
over a striped background; noise is drawn anew for each frame. For windows of 0 (no smoothing), 1, 2 and 3
frames before and after it prints the agreement with the true maps, and the flicker.
"""

import numpy as np
from run import photographs
from tqdm import tqdm

from dsareid.densepose.agreement import compare_pixels
from dsareid.densepose.estimators.bodypix import BodyPix
from dsareid.densepose.smoothing import Flicker, MappedFrame, mapped_frame, smooth

FRAMES, STEP, NOISE, ROWS = 12, 3, 3.0, 400
Video = list[tuple[np.ndarray, np.ndarray]]  # frames and their true maps


def still(image: np.ndarray, iuv: np.ndarray) -> Video:
    """The photograph in every frame."""
    return [(image, iuv)] * FRAMES


def walking(image: np.ndarray, iuv: np.ndarray) -> Video:
    """The person over stripes, further right from frame to frame."""
    height, width = image.shape[:2]
    wide = width + STEP * FRAMES
    rows, columns = np.indices((height, wide))
    stripes = (image.mean((0, 1)) + 20 * ((rows + columns) // 16 % 2)[..., None]).astype(np.uint8)
    frames = []
    for k in range(FRAMES):
        body = iuv[..., :1] > 0
        frame, truth = stripes.copy(), np.zeros((height, wide, 3), np.uint8)
        place = slice(STEP * k, STEP * k + width)
        frame[:, place] = np.where(body, image, frame[:, place])
        truth[:, place] = iuv * body
        frames.append((frame, truth))
    return frames


def estimated(video: Video, estimator: BodyPix, draw: np.random.Generator) -> list[MappedFrame]:
    """The frames with noise, and the maps that are estimated of them."""
    noisy = [
        (image + draw.normal(0, NOISE, image.shape)).round().clip(0, 255).astype(np.uint8)
        for image, _ in video
    ]
    return [mapped_frame(image, estimator(image, uv=False).iuv) for image in noisy]


def smoothed(frames: list[MappedFrame], radius: int) -> list[MappedFrame]:
    """The frames with steadier maps."""
    around = [
        [other for j, other in enumerate(frames) if 0 < abs(j - k) <= radius] for k in range(len(frames))
    ]
    return [each._replace(iuv=smooth(each, others)) for each, others in zip(frames, around)]


def row(frames: list[MappedFrame], video: Video) -> list[float]:
    """Mean IoU, equal parts, medians of |dU| and |dV|; flicker of the part, of U and of V."""
    flicker = Flicker()
    for before, after in zip(frames, frames[1:]):
        flicker.add(before, after)
    pairs = [
        (each.iuv.transpose(2, 0, 1), truth.transpose(2, 0, 1)) for each, (_, truth) in zip(frames, video)
    ]
    scores = [compare_pixels(*pair).scores() for pair in pairs]
    means = np.mean([(each.iou, each.parts, each.u_median, each.v_median) for each in scores], 0)
    return [*means, flicker.share(), *flicker.mean_steps()]


def main() -> None:
    estimator, draw = BodyPix(device="cpu", people="one"), np.random.default_rng(0)
    found: dict[tuple[str, int], list[list[float]]] = {}
    for each in tqdm(photographs(ROWS), unit="photograph"):
        for make in (still, walking):
            video = make(each.image, each.iuv)
            frames = estimated(video, estimator, draw)
            for radius in range(4):
                found.setdefault((make.__name__, radius), []).append(row(smoothed(frames, radius), video))
    print("| video | frames around | IoU | parts | \\|dU\\| | \\|dV\\| | part changes | U, V change |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for (kind, radius), rows in found.items():
        iou, parts, u, v, changes, du, dv = np.mean(rows, 0)
        scores = f"{iou:.3f} | {parts:.3f} | {u:.4f} | {v:.4f}"
        print(f"| {kind} | {radius} | {scores} | {changes:.2%} | {du:.4f}, {dv:.4f} |")


if __name__ == "__main__":
    main()
