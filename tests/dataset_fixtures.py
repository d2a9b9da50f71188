"""Small data sets in the exact on-disk layouts, with images whose keypoints can be found by colour.

Every image shows a red and a blue square. `find_blobs` finds their centres: a perfect detector of two
keypoints. The landmarks lie on the line through them at fixed shares (`shares`), so the linear map is exact
on the labelled images; in test image number s = 1, 2, ... both squares are drawn (3 s, 4 s) pixels off,
so every predicted landmark is off by exactly as much, and every metric can be worked out by hand.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

SHIFT = np.array([3.0, 4.0])  # pixels per number of the test image; their length is 5
HALF = 2  # squares are 5 x 5 pixels
RED, BLUE = (230, 20, 20), (20, 20, 230)


def shares(count: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """[L]: 0 is the red square, 1 the blue one."""
    return np.linspace(low, high, count)


def on_line(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Landmarks [L, 2]."""
    return a + share[:, None] * (b - a)


def places(index: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres of pixels for both squares of image `index`, different in every image."""
    rng = np.random.default_rng([index, width, height])
    a = rng.integers([0.3 * width, 0.3 * height], [0.5 * width, 0.5 * height]) + 0.5
    return a, a + rng.integers([0.08 * width, 0.05 * height], [0.3 * width, 0.3 * height])


def image(width: int, height: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3], green with a red square around a and a blue one around b."""
    image = np.full((height, width, 3), (60, 120, 60), np.uint8)
    for (x, y), color in ((a, RED), (b, BLUE)):
        x, y = int(x), int(y)
        image[y - HALF : y + HALF + 1, x - HALF : x + HALF + 1] = color
    return image


def find_blobs(image: np.ndarray) -> np.ndarray:
    """[2, 2]: centres (x, y) of the red and of the blue square, in pixels."""
    red, green, blue = (image[..., c].astype(int) for c in range(3))
    found = []
    for mask in ((red > 140) & (green < 90) & (blue < 90), (blue > 140) & (green < 90) & (red < 90)):
        y, x = np.nonzero(mask)
        found.append([x.mean() + 0.5, y.mean() + 0.5])
    return np.array(found)


def save(path: Path, image: np.ndarray) -> None:
    """Write an image; jpg as faithfully as jpg goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **({"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}))


def drawn(index: int, width: int, height: int, off: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image, a, b): squares drawn `off` shifts away from a and b."""
    a, b = places(index, width, height)
    return image(width, height, a + off * SHIFT, b + off * SHIFT), a, b


# One writer per layout. Numbers of test images are in their order, which is the order of the shifts.


def write_celeba(root: Path, train: int = 8, test: int = 3, small: tuple[int, ...] = ()) -> None:
    """Aligned and wild; face boxes of the numbers in `small` cover just under 30 % of the wild image."""
    share = np.array([0, 1, 0.5, 0.25, 0.75])
    tables = {
        "list_landmarks_align_celeba.txt": [],
        "list_landmarks_celeba.txt": [],
        "list_bbox_celeba.txt": [],
    }
    for number in range(1, train + test + 3):  # two images more than the MAFL lists name
        off = max(0, number - train) if number <= train + test else 0
        for aligned, (width, height) in ((True, (178, 218)), (False, (200, 150))):
            image, a, b = drawn(number, width, height, off)
            name = f"{number:06d}.png" if aligned else f"{number:06d}.jpg"
            save(root / "Img" / ("img_align_celeba_png" if aligned else "img_celeba") / name, image)
            table = "list_landmarks_align_celeba.txt" if aligned else "list_landmarks_celeba.txt"
            numbers = " ".join(f"{v:g}" for v in on_line(a, b, share).ravel())
            tables[table].append(f"{number:06d}.jpg {numbers}")
        box = (10, 10, 100, 89) if number in small else (10, 10, 100, 90)  # 30 % of 200 x 150 is 9000
        tables["list_bbox_celeba.txt"].append(f"{number:06d}.jpg {' '.join(map(str, box))}")
    (root / "Anno").mkdir()
    for name, rows in tables.items():
        header = "image_id x_1 y_1 width height" if "bbox" in name else "lefteye_x lefteye_y righteye_x righteye_y"
        (root / "Anno" / name).write_text("\n".join([str(len(rows)), header, *rows]) + "\n")
    (root / "MAFL").mkdir()
    lists = {"training": range(1, train + 1), "testing": range(train + 1, train + test + 1)}
    for name, numbers in lists.items():
        (root / "MAFL" / f"{name}.txt").write_text("".join(f"{n:06d}.jpg\n" for n in numbers))


def write_cub_aligned(root: Path, hidden: dict[int, int]) -> None:
    """`hidden`: test image -> how many of its last parts are not visible."""
    import h5py

    with h5py.File(root / "cub.h5", "w") as file:
        for which, count in (
            ("train", 8),
            ("val", 1),
            ("test", 3),
            ("test001", 1),
            ("test002", 1),
            ("test003", 1),
        ):
            images, points, seen = [], [], np.ones((count, 15), np.uint8)
            for i in range(count):
                image, a, b = drawn(100 * (which == "test") + i, 128, 128, i + 1 if which == "test" else 0)
                images.append(image.transpose(2, 0, 1))
                points.append(on_line(a, b, shares(15))[:, ::-1] / 128)
                if which == "test" and i in hidden:
                    seen[i, 15 - hidden[i] :] = 0
            file.create_dataset(f"{which}_img", data=np.array(images), dtype="u1")
            file.create_dataset(f"{which}_kp", data=np.array(points), dtype="f4")
            file.create_dataset(f"{which}_vis", data=seen)


CUB_SHARES = shares(15)
CUB_SHARES[[10, 11, 12]] = CUB_SHARES[[6, 7, 8]]  # left and right on one spot: mirroring keeps the map linear


def write_cub_parts(root: Path, train: dict[int, int], test: dict[int, int], mask: int = 1) -> None:
    """Images of 200 x 160 with a box of 100 x 80; `train` and `test` say how many of each class. The label file has
    a mask of `mask` bytes for each, as the published one."""
    from scipy.io import savemat

    folder = root / "CUB_200_2011"
    for which, classes in (("train", train), ("val", {1: 1}), ("test", test)):
        birds = []
        for class_id, count in classes.items():
            for i in range(count):
                index = 1000 * class_id + 100 * (which == "test") + i
                image, a, b = drawn(index, 200, 160, i + 1 if which == "test" else 0)
                rel_path = f"{class_id:03d}.Bird/bird_{which}_{i:04d}.jpg"
                save(folder / "images" / rel_path, image)
                x1, y1 = a + (b - a) / 2 - [50, 40] + 0.5  # counted from 1
                parts = np.ones((3, 15))
                parts[:2] = on_line(a, b, CUB_SHARES).T + 0.5
                parts[:, 14] = 0 if which == "test" else parts[:, 14]
                box = {
                    "x1": np.floor(x1),
                    "y1": np.floor(y1),
                    "x2": np.floor(x1) + 99,
                    "y2": np.floor(y1) + 79,
                }
                bird = {"rel_path": rel_path, "bbox": box, "parts": parts, "class_id": class_id}
                birds.append({**bird, "mask": np.zeros(mask, np.uint8)})
        data = folder / "cachedir" / "cub" / "data"
        data.mkdir(parents=True, exist_ok=True)
        fields = [(name, object) for name in ("rel_path", "bbox", "mask", "parts", "class_id")]
        images = np.array([tuple(bird[name] for name, _ in fields) for bird in birds], dtype=fields)
        savemat(data / f"{which}_cub_cleaned.mat", {"images": images})


def write_taichi(root: Path, hidden: dict[int, int]) -> None:
    """Two videos of 2 and 3 frames; 8 and 3 labelled frames; `hidden`: test frame -> missing last joints."""
    import pandas

    for video, frames in (("b_video", 3), ("a_video", 2)):
        for i in range(frames):
            save(root / "train" / video / f"{i:07d}.png", drawn(500 + i, 256, 256)[0])
    (root / "landmark").mkdir()
    for which, count in (("train", 8), ("test", 3)):
        names, values = [], []
        for i in range(count):
            image, a, b = drawn(600 + 100 * (which == "test") + i, 256, 256, i + 1 if which == "test" else 0)
            names.append(f"{which}_{i}.png")
            save(root / "eval_images" / "taichi-256" / which / names[-1], image)
            values.append(on_line(a, b, shares(18)))
            if which == "test" and i in hidden:
                values[-1][18 - hidden[i] :] = -1
            if which == "train" and i == 0:
                values[-1][:2] = -1
        table = pandas.DataFrame({"file_name": names, "value": values})
        table.to_pickle(root / "landmark" / f"taichi_{which}_gt.pkl")


def write_deepfashion(root: Path, joints: int = 17) -> None:
    for which, count in (("train", 6), ("test", 2)):
        rows, entries = ["index,file,label"], []
        for i in range(count):
            image, a, b = drawn(800 + 100 * (which == "test") + i, 256, 256, i + 1 if which == "test" else 0)
            name = f"{which}_{(i * 7) % 10}.jpg"  # not in alphabetical order: the two files go by position
            save(root / "img" / name, image)
            rows.append(f"{i},{name},x")
            entries.append({"keypoints": on_line(a, b, shares(joints)).tolist()})
        (root / f"data_{which}.csv").write_text("\n".join(rows) + "\n")
        (root / f"data_{which}.json").write_text(json.dumps(entries))


HUMAN_SHARES = shares(32, 0.0, 0.3)
HUMAN_SHARES[[*range(6, 11), *range(16, 24)]] += 0.7  # the left side is far from the right one


def write_human36m(root: Path, swap: tuple[int, ...]) -> None:
    """Eight training frames and two of subject 11, the second labelled with sides exchanged. An action
    outside the protocol lies beside."""
    from scipy.io import savemat

    frames = [(s, "Walking", n) for s in (1, 5, 6, 7, 8) for n in ((1, 2) if s == 1 else (1,))]
    frames += [
        (9, "Directions 1", 2),
        (9, "Posing", 10),
        (11, "Greeting", 9),
        (11, "Greeting", 10),
        (9, "Eating", 1),
    ]
    test = 0
    for index, (subject, action, number) in enumerate(frames):
        off = 0
        if subject == 11:
            test = off = test + 1
        image, a, b = drawn(1300 + index, 128, 128, off)
        image[:, :10] = (200, 200, 0)
        mask = np.ones((128, 128), np.uint8)
        mask[:, :10] = 0
        folder = root / f"S{subject}"
        save(folder / "WithBackground" / action / f"{number}.jpg", image)
        save(folder / "BackgroudMask" / action / f"{number}.png", mask)
        joints = on_line(a, b, HUMAN_SHARES) / 128
        path = folder / "Landmarks" / action / f"{number}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        savemat(path, {"keypoints_2d": joints[list(swap)] if off == 2 else joints})


def write_human36m_unaligned(root: Path) -> None:
    """Frames of 400 x 360; two cameras; the last frame of subject 1 has no pose."""
    import h5py

    for index, subject in enumerate((1, 5, 6, 7, 8, 9, 11)):
        folder, poses, frames, cameras = root / f"S{subject}" / "Discussion 1", [], [], []
        for j, camera in enumerate((54138969, 60457274)[: 1 if subject != 1 else 2]):
            for n in (1, 2) if subject in (1, 11) else (5,):
                image, a, b = drawn(1500 + 10 * index + 3 * j + n, 400, 360, n if subject == 11 else 0)
                save(folder / "imageSequence" / str(camera) / f"img_{n:06d}.jpg", image)
                if (subject, j, n) != (1, 1, 2):
                    poses.append(on_line(a, b, shares(32, -0.4, 1.4)))  # room around the squares
                    frames.append(n)
                    cameras.append(camera)
        with h5py.File(folder / "annot.h5", "w") as file:
            file.create_dataset("pose/2d", data=np.array(poses, np.float32))
            file.create_dataset("frame", data=np.array(frames))
            file.create_dataset("camera", data=np.array(cameras))


def write_folder(
    root: Path, counts: dict[str, int] | None = None, names: tuple[str, ...] = ("head", "middle", "tail")
) -> None:
    """`counts`: folder ("" for the root itself) -> labelled images; those of test are shifted."""
    for which, count in (counts or {"train": 6, "test": 2}).items():
        images, annotations = [], []
        for i in range(count):
            image, a, b = drawn(2000 + 100 * (which == "test") + i, 120, 100, i + 1 if which == "test" else 0)
            save(root / which / f"{i}.png", image)
            images.append({"id": i, "file_name": f"{i}.png", "width": 120, "height": 100})
            flat = [v for x, y in on_line(a, b, shares(3)) for v in (float(x), float(y), 2)]
            annotations.append({"id": i, "image_id": i, "category_id": 1, "keypoints": flat})
        category = {"id": 1, "name": "thing", "keypoints": list(names), "skeleton": []}
        data = {"images": images, "annotations": annotations, "categories": [category]}
        (root / which / "labels.json").write_text(json.dumps(data))
