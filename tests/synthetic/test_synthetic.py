import numpy as np
import pytest

from stablekp_core.errors import KeypointError
from stablekp_core.synthetic.figures import KINDS, landmark_names, landmark_skeleton, part_names
from stablekp_core.synthetic.generator import COLORS, VARIANTS, render

# The part that is painted on top of each joint when nothing of the figure covers it.
PART_OF = {
    "faces": {
        "left eye": "left eye",
        "right eye": "right eye",
        "left brow": "left brow",
        "right brow": "right brow",
        "nose": "nose",
    },
    "dolls": {"left eye": "left eye", "right eye": "right eye"},
}
EVERY = [(kind, variant) for kind in KINDS for variant in VARIANTS]


def samples(kind, variant="standard", count=25, size=64):
    return [render(kind, seed, size, variant) for seed in range(count)]


@pytest.mark.parametrize(("kind", "variant"), EVERY)
def test_shapes_and_ranges(kind, variant):
    for sample in samples(kind, variant, 12):
        joints = len(landmark_names(kind))
        assert sample.image.shape == (64, 64, 3) and sample.image.dtype == np.uint8
        assert sample.joints.shape == (joints, 2) and sample.visible.shape == (joints,)
        assert (sample.joints >= 0).all() and (sample.joints <= 64).all()
        assert sample.labels.shape == sample.covered.shape == (64, 64)
        assert sample.labels.max() <= len(part_names(kind)) and len(sample.colors) == len(part_names(kind))
        assert len(set(sample.colors.tolist())) == len(sample.colors) and 0 <= sample.background < len(COLORS)
        assert sample.kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_bones_fit_together(kind):
    names, bones = landmark_names(kind), landmark_skeleton(kind)
    assert len(set(names)) == len(names) and len(set(part_names(kind))) == len(part_names(kind))
    assert {joint for bone in bones for joint in bone} == set(range(len(names)))
    if kind == "dolls":
        reached, todo = set(), {0}
        while todo:  # the bones join all joints into one figure
            joint = todo.pop()
            reached.add(joint)
            todo |= {b for bone in bones for b in bone if joint in bone} - reached
        assert reached == set(range(len(names)))
    assert len({tuple(sorted(bone)) for bone in bones}) == len(bones)
    sides = {side: {n.removeprefix(side) for n in names if n.startswith(side)} for side in ("left ", "right ")}
    assert sides["left "] == sides["right "]


@pytest.mark.parametrize(("kind", "variant"), EVERY)
def test_the_same_seed_draws_the_same_image(kind, variant):
    a, b, other = render(kind, 3, 48, variant), render(kind, 3, 48, variant), render(kind, 4, 48, variant)
    for name in ("image", "joints", "visible", "labels", "covered", "colors"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert not np.array_equal(a.image, other.image) and not np.array_equal(a.joints, other.joints)


def test_kinds_and_variants_do_not_share_their_numbers():
    assert not np.array_equal(render("faces", 1, 48).colors, render("dolls", 1, 48).colors[:10])
    assert not np.allclose(render("dolls", 1, 48, "plain").joints, render("dolls", 1, 48, "wild").joints)


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_only_scales(kind):
    small, large = render(kind, 5, 64, "plain"), render(kind, 5, 128, "plain")
    np.testing.assert_allclose(large.joints, 2 * small.joints, atol=1e-3)
    halved = large.image.reshape(64, 2, 64, 2, 3).mean((1, 3))
    # Labels are of pixel centres, so halves differ by up to a pixel along edges.
    assert (np.abs(halved - small.image).max(-1) < 16).mean() > 0.9
    assert (large.labels[::2, ::2] == small.labels).mean() > 0.85


@pytest.mark.parametrize("kind", KINDS)
def test_joints_lie_on_their_parts(kind):
    names, parts = landmark_names(kind), part_names(kind)
    for joint, part in PART_OF[kind].items():
        hits = 0
        for sample in samples(kind, "plain", 25, 128):
            x, y = sample.joints[names.index(joint)].astype(int)
            near = sample.labels[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
            hits += (near == parts.index(part) + 1).any()
        assert hits >= (25 if kind == "faces" else 20), joint  # a raised hand may hide a doll's eye


def test_doll_limbs_end_at_their_joints():
    """Half-way between two joints of a limb lies the limb, unless another one is in front."""
    names, parts = landmark_names("dolls"), part_names("dolls")
    limbs = {
        "left upper arm": ("left shoulder", "left elbow"),
        "right lower arm": ("right elbow", "right wrist"),
        "left upper leg": ("left hip", "left knee"),
        "right lower leg": ("right knee", "right ankle"),
    }
    for part, ends in limbs.items():
        hits = 0
        for sample in samples("dolls", "plain", 25, 128):
            x, y = np.mean([sample.joints[names.index(end)] for end in ends], 0).astype(int)
            hits += sample.labels[y, x] == parts.index(part) + 1
        assert hits >= 20, part


@pytest.mark.parametrize("kind", KINDS)
def test_the_figures_left_is_the_images_right(kind):
    names = landmark_names(kind)
    left, right = names.index("left eye"), names.index("right eye")
    assert all(s.joints[left, 0] > s.joints[right, 0] for s in samples(kind, "standard", 40, 32))


@pytest.mark.parametrize("kind", KINDS)
def test_parts_have_the_colours_that_are_told(kind):
    """The median colour of a part is its entry in COLORS, up to the jitter; two samples have different ones."""
    for sample in samples(kind, "plain", 8, 128):
        for part, color in enumerate(sample.colors):
            pixels = sample.image[sample.labels == part + 1]
            if len(pixels) > 60:  # of small parts the label covers mostly blended edges
                assert np.abs(np.median(pixels, 0) - COLORS[color]).max() < 45, part_names(kind)[part]
    head = {int(s.colors[0]) for s in samples(kind, "standard", 40, 32)}
    assert len(head) >= 8  # a colour tells nothing about the part


def test_only_the_wild_hides_joints():
    for kind in KINDS:
        for variant in ("plain", "standard"):
            for sample in samples(kind, variant, 12):
                assert sample.visible.all() and not sample.covered.any()
        wild = samples(kind, "wild", 30, 96)
        assert all(sample.covered.any() for sample in wild)
        for sample in wild:
            assert (sample.labels[sample.covered] == 0).all()  # what a bar hides is nobody's part
            x, y = np.clip(sample.joints.astype(int), 0, 95).T
            inner = sample.covered[y, x]
            edge = np.array(
                [
                    np.ptp(1 * sample.covered[max(b - 2, 0) : b + 3, max(a - 2, 0) : a + 3])
                    for a, b in zip(x, y, strict=True)
                ]
            )
            assert (inner != sample.visible)[edge == 0].all()  # apart from joints within two pixels of a bar's edge
        share = np.mean([sample.visible.mean() for sample in wild])
        assert 0.6 < share < 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_variants_get_harder(kind):
    def busy(variant):
        """Mean difference of neighbouring pixels where there is no figure."""
        out = []
        for sample in samples(kind, variant, 15):
            outside = (sample.labels == 0) & (np.roll(sample.labels, 1, 1) == 0) & ~sample.covered
            steps = np.abs(sample.image.astype(int) - np.roll(sample.image, 1, 1)).mean(-1)
            out.append(steps[:, 1:][outside[:, 1:]].mean())
        return np.mean(out)

    def size_range(variant):
        spans = [np.ptp(s.joints, axis=0).max() / 64 for s in samples(kind, variant, 40)]
        return max(spans) / min(spans)

    assert busy("plain") < busy("standard") < 1.5 * busy("wild")
    assert size_range("wild") > 1.5 * size_range("plain")


def test_poses_vary():
    joints = np.stack([s.joints for s in samples("dolls", "standard", 60, 64)]) / 64
    names = landmark_names("dolls")
    neck = joints - joints[:, names.index("neck")][:, None]
    arm = neck[:, names.index("left wrist")] / np.linalg.norm(neck[:, names.index("left hip")], axis=1)[:, None]
    assert (arm[:, 1] < 0).mean() > 0.15 and (arm[:, 1] > 0).mean() > 0.15  # raised, and hanging
    torso = neck[:, names.index("left hip")] + neck[:, names.index("right hip")]
    lean = np.degrees(np.arctan2(torso[:, 0], torso[:, 1]))
    assert lean.min() < -10 and lean.max() > 10 and np.abs(lean).max() < 30


def test_unknown_kinds_and_variants():
    for call in (
        lambda: render("cats", 0),
        lambda: part_names("cats"),
        lambda: landmark_names("cats"),
        lambda: landmark_skeleton("cats"),
    ):
        with pytest.raises(KeypointError, match="no generated class 'cats'; the classes are faces, dolls"):
            call()
    with pytest.raises(KeypointError, match="no variant 'tame'; the variants are plain, standard, wild"):
        render("faces", 0, 32, "tame")
