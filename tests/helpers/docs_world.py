"""What the pages' blocks find in their folder: the names that readers put their own files in place of.

ROOT, Market-1501, CUHK03/labeled    one tiny synthetic data set, with gt_bbox and distractors
CUHK01                               the same pictures under CUHK01's names
mine/train, query, gallery           the same in plain folders, a folder for each person
photo.jpg, photo_IUV.png             a rendered person at 180,185,262,425, where README's box is
front.jpg, side.jpg, back.jpg        another one in three pictures, with front_IUV.png and so on
estimated                            maps of ROOT's query
person.jpg, photos/                  images of people
dump.pkl                             the maps of ROOT/query as detectron2's apply_net.py dumps them
osnet.onnx                           a network that was trained elsewhere, with an input of 64x32
frames, tracks.txt                   frames of a video, and the boxes of two tracks in it
query_features, gallery_features     folders of features, as extract writes them
examples, csrc, dsa_ext, ...         those of this repository
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from detectron2_files import Mimic
from other_onnx import write_onnx
from PIL import Image
from torchvision.transforms.functional import to_tensor

from dsareid.data.iuv import read_iuv, write_iuv
from dsareid.data.layouts.cuhk01 import draw_test
from dsareid.inference.feature_folder import write_features
from dsareid.synth import SynthConfig, generate
from dsareid.synth.config import DIFFICULTIES
from dsareid.synth.dataset import make_person
from dsareid.synth.person import dress
from dsareid.synth.render import render
from dsareid.synth.scene import random_camera

REPOSITORY = Path(__file__).parents[2]
BOX = 180, 185, 262, 425  # x0, y0, x1, y1 of the person in photo.jpg


def given() -> dict[str, object]:
    """Names that Python blocks take as given."""
    return {
        "your_torchvision_transform": to_tensor,
    }


def make_world(folder: Path) -> None:
    root = folder / "ROOT"
    generate(root, SynthConfig(identities=12, images=4, height=64, width=32, processes=1))
    _add_protocols(root)
    (folder / "Market-1501").symlink_to("ROOT")
    (folder / "CUHK03").mkdir()
    (folder / "CUHK03" / "labeled").symlink_to("../ROOT")
    _make_cuhk01(root, folder / "CUHK01")
    _make_plain_folders(root, folder / "mine")
    _make_photo(folder)
    _make_views(folder)
    _make_dump(root, folder / "dump.pkl")
    shutil.copytree(root / "iuv/query", folder / "estimated/query")
    for name, split in (("query", "query"), ("gallery", "bounding_box_test")):
        files = sorted(image.name for image in (root / split).glob("*.jpg"))
        features = np.random.default_rng(len(files)).random((len(files), 16), np.float32)
        write_features(folder / f"{name}_features", features, files, model="random")
    shutil.copytree(root / "query", folder / "photos")
    write_onnx(folder / "osnet.onnx")
    _make_tracks(root, folder)
    shutil.copy(next((root / "query").glob("*.jpg")), folder / "person.jpg")
    for name in ("examples", "csrc", "dsa_ext", "tests"):
        (folder / name).symlink_to(REPOSITORY / name)


def _add_protocols(root: Path) -> None:
    """What makes a Market-1501 of it: gt_bbox for multi-query, images for distractors; with their maps."""
    (root / "synth.json").unlink()
    for folder in ("gt_bbox", "images"):
        for place in (root / folder, root / "iuv" / folder):
            place.mkdir()
    for image in (root / "query").glob("*.jpg"):
        for folder in ("gt_bbox", "images"):
            shutil.copy(image, root / folder)
            shutil.copy(root / f"iuv/query/{image.stem}.png", root / f"iuv/{folder}")


def _make_cuhk01(root: Path, out: Path) -> None:
    """Identities of which half are tested by CUHK01's default protocol, two images by each camera."""
    for place in (out / "campus", out / "iuv" / "campus"):
        place.mkdir(parents=True)
    tested = draw_test(485, 0)
    trained = sorted(set(range(1, 972)) - tested)[:6]
    images = sorted((root / "bounding_box_train").glob("*.jpg"))
    for number, identity in enumerate([*trained, *sorted(tested)[:6]]):
        for shot in range(4):
            image = images[(number * 4 + shot) % len(images)]
            name = f"{identity:04d}{shot + 1:03d}.png"
            Image.open(image).save(out / "campus" / name)
            shutil.copy(root / f"iuv/bounding_box_train/{image.stem}.png", out / "iuv" / "campus" / name)


def _make_plain_folders(root: Path, out: Path) -> None:
    splits = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
    for split, source in splits.items():
        for image in (root / source).glob("*.jpg"):
            person = image.name[:4]
            if person == "0000":
                continue
            for folder, kind in ((root, ".jpg"), (root / "iuv", ".png")):
                target = (out if kind == ".jpg" else out / "iuv") / split / person
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(folder / source / f"{image.stem}{kind}", target)


def _make_photo(folder: Path) -> None:
    """A person in a larger picture."""
    rng, (x0, y0, x1, y1) = np.random.default_rng(5), BOX
    difficulty = DIFFICULTIES["easy"]
    camera = random_camera(difficulty, rng)
    person = dress(make_person(SynthConfig(difficulty="easy"), 3))
    image, iuv = render(person, camera, difficulty, (y1 - y0, x1 - x0), rng)
    photo = Image.fromarray(camera.view).resize((480, 480))
    photo.paste(image, (x0, y0))
    whole = np.zeros((480, 480, 3), np.uint8)
    whole[y0:y1, x0:x1] = iuv
    photo.save(folder / "photo.jpg", quality=92)
    write_iuv(folder / "photo_IUV.png", whole)


def _make_views(folder: Path) -> None:
    rng, difficulty = np.random.default_rng(6), DIFFICULTIES["easy"]
    person = dress(make_person(SynthConfig(difficulty="easy"), 4))
    for name in ("front", "side", "back"):
        image, iuv = render(person, random_camera(difficulty, rng), difficulty, (128, 64), rng)
        image.save(folder / f"{name}.jpg", quality=92)
        write_iuv(folder / f"{name}_IUV.png", iuv)


def _make_tracks(root: Path, folder: Path) -> None:
    """Two people who stand side by side for three frames."""
    (folder / "frames").mkdir()
    images = sorted((root / "query").glob("*.jpg"))
    for frame in range(3):
        whole = Image.new("RGB", (64, 64))
        for place, image in enumerate(images[:2]):
            whole.paste(Image.open(image), (32 * place, 0))
        whole.save(folder / "frames" / f"{frame + 1:06d}.png")
    rows = [f"{frame + 1},{track},{1 + 32 * track},1,32,64\n" for frame in range(3) for track in (0, 1)]
    (folder / "tracks.txt").write_text("".join(rows))


def _make_dump(root: Path, out: Path) -> None:
    """As detectron2's apply_net.py writes it: one detection an image, its box the whole image."""
    mimic, entries = Mimic(), []
    for image in sorted((root / "query").glob("*.jpg")):
        iuv = torch.from_numpy(read_iuv(root / f"iuv/query/{image.stem}.png"))  # [H, W, 3]
        height, width = iuv.shape[:2]
        uv = (iuv[..., 1:] / 255).permute(2, 0, 1).contiguous()  # [2, H, W]
        chart = mimic.DensePoseChartResult(iuv[..., 0].long(), uv)
        entries.append(
            {
                "file_name": f"datasets/query/{image.name}",
                "scores": torch.tensor([0.9]),
                "pred_boxes_XYXY": torch.tensor([[0.0, 0.0, width, height]]),
                "pred_densepose": [chart],
            }
        )
    mimic.save(entries, out)
