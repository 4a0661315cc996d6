"""The C kernels equal loops in float64, torch, the original's outputs and the model's own tables, and never read outside."""

from __future__ import annotations

import ctypes
import json
import math
import os
import platform
import re
import subprocess
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
import test_deform_conv as dcn
import test_msda as msda
from occport.frames.images import preprocess, read_images
from occport.model.projection import Budget
from occport.ops.deform_conv import deform_conv2d
from occport.ops.msda import multi_scale_deformable_attention, sample_weighted
from reference import SHARED, load_case
from test_projection import MICRO_HW, OFFICIAL_HW, RIGS, budgets_of, config_of, official_rigs, projection_of

README = (kernels.FOLDER / "README.md").read_text()
SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")
FUSED = ("-std=gnu99", "-O3", "-march=native", "-ffp-contract=fast")
OUTSIDE = [-1.0, -1.5, -2.0, 3.0, 3.25, 1e9, -1e9, 1e30, -1e30, 3e38, math.inf, -math.inf, math.nan]  # of a map of 3 pixels
BILINEAR = {0.0: {0: 1}, 1.0: {1: 1}, 2.0: {2: 1}, -0.5: {0: 0.5}, -0.75: {0: 0.25}, 0.25: {0: 0.75, 1: 0.25}, 2.5: {2: 0.5}}
PLACES = [*BILINEAR, *OUTSIDE]


def run(*command: str) -> str:
    """What a program prints; AssertionError with its messages where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"ASAN_OPTIONS": "detect_leaks=0"})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_no_compiler_has_anything_to_say(tmp_path: Path, name: str, monkeypatch):
    monkeypatch.setenv("CC", name)
    kernels.compiled(tmp_path / "kernels.so", *kernels.STRICT, "-Wshadow", "-O2", "-shared", "-fPIC", *kernels.SOURCES)


def test_the_line_of_the_readme_compiles(tmp_path: Path):
    (line,) = re.findall(r"```bash\ncc (.*)\n```", README)
    (tmp_path / "kernels").symlink_to(kernels.FOLDER)
    done = subprocess.run(f"{kernels.compiler()} {line}", shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stdout + done.stderr
    assert ctypes.CDLL(str(tmp_path / "liboccport_kernels.so")).occport_msda


def test_the_program_of_the_readme(tmp_path: Path):
    (program,) = re.findall(r"```c\n(.*?)```", README, re.DOTALL)
    (tmp_path / "host.c").write_text(program)
    made = kernels.compiled(tmp_path / "host", *kernels.STRICT, f"-I{kernels.FOLDER}", str(tmp_path / "host.c"), *kernels.SOURCES)
    assert run(str(made)) == "slot 0 holds voxel 0 at (0.625, 0.625)\n"  # the voxel at (2, -0.5, -0.5): 50 + 50 * 0.5 / 2 pixels


def test_fast_math_is_refused(tmp_path: Path):
    with pytest.raises(AssertionError, match="do not compile these kernels with -ffast-math"):
        kernels.compiled(tmp_path / "kernels.so", "-ffast-math", "-shared", "-fPIC", *kernels.SOURCES)


def test_sanitizers_find_nothing(tmp_path: Path):
    (tmp_path / "empty.c").write_text("int main(void) { return 0; }\n")
    probe = subprocess.run([kernels.compiler(), *SANITIZED, str(tmp_path / "empty.c"), "-o", str(tmp_path / "empty")], capture_output=True)
    if probe.returncode:
        pytest.skip("this C kernels.compiler has no address and undefined-behaviour sanitizers")
    driver = str(Path(__file__).with_name("kernels_driver.c"))
    made = kernels.compiled(tmp_path / "driver", *kernels.STRICT, *SANITIZED, f"-I{kernels.FOLDER}", driver, *kernels.SOURCES)
    assert run(str(made), "3000") == "3000 rounds\n"


def test_the_original_attention():
    data = load_case("ops_ref")
    shapes, locations, weights = data["msda_shapes"], data["msda_loc"], data["msda_weights"]
    narrow = kernels.run_msda(data["msda_value"], shapes, [0], locations, weights)
    np.testing.assert_allclose(narrow, data["msda_out"], rtol=0, atol=1e-5)
    nothing = np.zeros((*locations.shape[:2], 1, 2))  # everything in the offset; the softmax of logarithms is the weights
    wide = kernels.run_msda_wide(data["msda_value"], shapes, [0], nothing, locations * shapes[0, ::-1], np.log(weights))
    np.testing.assert_allclose(wide, data["msda_out"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("prefix", "stride"), [("dcn", 1), ("dcn2", 2)])
def test_the_original_convolution(prefix: str, stride: int):
    data = load_case("ops_ref")
    arrays = [data[f"{prefix}_{name}"] for name in ("x", "offset", "mask", "w")]
    out = kernels.run_dcn(*arrays, None, [stride] * 2, [1, 1], [1, 1], 1, 1)
    np.testing.assert_allclose(out, data[f"{prefix}_out"], rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(msda.cases())
def test_attention_is_what_loops_and_torch_find(case: msda.Case):
    case = msda.Case(case.value.float(), case.spatial_shapes, *(tensor.float() for tensor in case[2:]))
    shapes = np.array(case.spatial_shapes).reshape(-1, 2)
    exact = msda.Case(case.value.double(), case.spatial_shapes, *(tensor.double() for tensor in case[2:]))
    wide = kernels.run_msda_wide(case.value, shapes, kernels.starts_of(shapes), *case[2:])
    np.testing.assert_allclose(wide, msda.by_loops(case), rtol=1e-5, atol=3e-5)
    np.testing.assert_allclose(wide, multi_scale_deformable_attention(*exact), rtol=1e-5, atol=3e-5)

    sizes = torch.tensor(shapes[:, None, ::-1].copy())
    locations = (exact.reference_points[:, :, None, :, None] + exact.sampling_offsets / sizes).float()
    weights = exact.attention_logits.flatten(3).softmax(-1).view(exact.attention_logits.shape).float()
    narrow = kernels.run_msda(case.value, shapes, kernels.starts_of(shapes), locations, weights)
    expected = sample_weighted(exact.value, case.spatial_shapes, locations.double(), weights.double())
    np.testing.assert_allclose(narrow, expected, rtol=1e-5, atol=3e-5)


@settings(deadline=None, max_examples=40)
@given(dcn.cases())
def test_convolution_is_what_loops_and_torch_find(case: dcn.Case):
    case = dcn.Case(*(None if tensor is None else tensor.float() for tensor in case[:5]), *case[5:])
    exact = dcn.Case(*(None if tensor is None else tensor.double() for tensor in case[:5]), *case[5:])
    out = kernels.run_dcn(*case)
    np.testing.assert_allclose(out, dcn.by_loops(case), rtol=1e-5, atol=3e-5)
    np.testing.assert_allclose(out, deform_conv2d(*exact), rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("wo", [15, 16, 17, 33])
def test_rows_shorter_and_longer_than_a_tile(wo: int):
    case = dcn.make_case(1, hw=(5, 2 * wo), stride=(2, 2), padding=(2, 2), dilation=(2, 2), groups=2, deform_groups=2)
    case = dcn.Case(*(None if tensor is None else tensor.float() for tensor in case[:5]), *case[5:])
    out = kernels.run_dcn(*case)
    assert out.shape[3] == wo
    np.testing.assert_allclose(out, dcn.by_loops(case), rtol=1e-5, atol=3e-5)


def expected_at(row: float, column: float, image: np.ndarray) -> float:
    """The value of a (3, 3) map at two of PLACES."""
    inside = [(i, j, a * b) for i, a in BILINEAR.get(row, {}).items() for j, b in BILINEAR.get(column, {}).items()]
    return math.fsum(image[i, j] * share for i, j, share in inside)


def test_a_convolution_at_every_border_and_far_beyond():
    """One tap on the middle pixel; a mask of NaN outside is not looked at."""
    image = np.arange(1, 10, dtype=np.float32).reshape(3, 3)
    places = [(y, x) for y in PLACES for x in PLACES]
    input = np.broadcast_to(image, (len(places), 1, 3, 3))
    offset = np.zeros((len(places), 2, 3, 3), np.float32)
    offset[:, :, 1, 1] = np.array(places) - 1
    mask = np.ones((len(places), 1, 3, 3), np.float32)
    mask[[not (y in BILINEAR and x in BILINEAR) for y, x in places]] = np.nan
    out = kernels.run_dcn(input, offset, mask, np.full((1, 1, 1, 1), 2), np.ones(1), [1, 1], [0, 0], [1, 1], 1, 1)
    np.testing.assert_array_equal(out[:, 0, 1, 1], [1 + 2 * expected_at(y, x, image) for y, x in places])


@pytest.mark.parametrize("wide", [False, True], ids=["narrow", "wide"])
def test_attention_at_every_border_and_far_beyond(wide: bool):
    image = np.arange(1, 10, dtype=np.float32).reshape(3, 3)
    places = np.array([(x, y) for y in PLACES for x in PLACES], np.float32)
    pixels, centre = places.reshape(1, -1, 1, 1, 1, 2), np.full((1, len(places), 1, 2), 0.5 / 3)
    points = (centre, pixels) if wide else ((pixels + np.float32(0.5)) / 3,)
    one = np.ones(pixels.shape[:-1])
    out = (kernels.run_msda_wide if wide else kernels.run_msda)(image.reshape(1, 9, 1, 1), [[3, 3]], [0], *points, one)
    expected = [expected_at(float(y), float(x), image) for x, y in places]
    np.testing.assert_allclose(out[0, :, 0], expected, rtol=0, atol=5e-6)
    far = [i for i, place in enumerate(places) if not (np.abs(place) < 1e3).all()]
    assert len(far) > 100 and not out[0, far].any()


def test_levels_in_any_order_with_gaps_between():
    case = msda.make_case(3, shapes=((5, 4), (2, 3), (1, 1)), queries=1)
    shapes, rng = np.array(case.spatial_shapes).reshape(-1, 2), np.random.default_rng(3)
    spread, starts = rng.normal(size=(2, 40, 2, 3)), [18, 1, 10]
    for level, (start, from_row) in enumerate(zip(starts, kernels.starts_of(shapes), strict=True)):
        spread[:, start : start + shapes[level].prod()] = case.value[:, from_row : from_row + shapes[level].prod()]
    out = kernels.run_msda_wide(spread, shapes, starts, *case[2:])
    np.testing.assert_array_equal(out, kernels.run_msda_wide(case.value, shapes, kernels.starts_of(shapes), *case[2:]))
    np.testing.assert_allclose(out, msda.by_loops(case), rtol=1e-5, atol=3e-5)


def test_large_logits_do_not_overflow():
    logits = np.array([1e4, 1e4 - 1, -math.inf, -3e38], np.float32).reshape(1, 1, 1, 1, 4)
    centres = np.array([[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [3.5, 0.5]]).reshape(1, 1, 1, 1, 4, 2)  # a point on each pixel
    out = kernels.run_msda_wide(np.array([1, 2, 1e6, 1e6]).reshape(1, 4, 1, 1), [[1, 4]], [0], np.zeros((1, 1, 1, 2)), centres, logits)
    assert out.item() == pytest.approx((math.e + 2) / (math.e + 1))


def test_four_threads_find_what_one_finds():
    case = dcn.make_case(5, hw=(20, 20))
    alone = kernels.run_dcn(*case)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(out, alone) for out in pool.map(lambda _: kernels.run_dcn(*case), range(12)))


def compare_tables(config_name: str, rig: np.ndarray, image_hw: tuple[int, int], budgets: list[Budget] | None, flags=None) -> None:
    """Every field of every level is the model's, to the last bit."""
    config, projection = config_of(config_name), projection_of(config_name)
    matrix = torch.from_numpy(rig)[None]
    tables, dropped = projection(matrix, image_hw, budgets)
    for level, table in enumerate(tables):
        made = config.levels[level]
        budget = (table.slots.shape[2], table.back.shape[1])
        sizes = kernels.table_sizes(len(rig), image_hw, (made.volume_z, made.volume_h, made.volume_w), config.pc_range, budget)
        found = kernels.run_table(rig, sizes) if flags is None else kernels.run_table(rig, sizes, flags)
        for name in ("slots", "ref_uv", "back", "weight"):
            expected = getattr(table, name)[0].numpy()
            assert getattr(found, name).dtype == expected.dtype
            np.testing.assert_array_equal(getattr(found, name), expected, err_msg=f"level {level}: {name}")
        assert found.dropped == dropped[0, level]
        if budgets is None:
            assert kernels.run_table_needs(rig, sizes) == budget


@pytest.mark.parametrize("rig", RIGS)
def test_tables_of_small_rigs(rig: str):
    projection = projection_of("surroundocc_micro")
    exact = projection.needs(projection.project(torch.from_numpy(RIGS[rig])[None], MICRO_HW)[0])
    for kind in ("none", "larger", "few slots", "one row", "few of both", "one of each", "not all alike"):
        compare_tables("surroundocc_micro", RIGS[rig], MICRO_HW, budgets_of(kind, exact, 6))


def test_tables_of_real_rigs():
    """Turned rigs too: 18 of them, 91,250 voxels and six cameras each."""
    rigs = official_rigs()
    assert len(rigs) == 18
    for rig in rigs.values():
        compare_tables("surroundocc", rig, OFFICIAL_HW, None)


@pytest.mark.parametrize("flags", [("-O0",), FUSED], ids=["plain", "fused"])
def test_tables_are_the_same_with_other_compiler_flags(flags: tuple[str, ...]):
    if flags == FUSED and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("-march=native is asked for on x86 only")
    for name in ("recipe, turned by 0", "nuScenes frame, turned by 3"):
        compare_tables("surroundocc", official_rigs()[name], OFFICIAL_HW, None, flags)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 3e38])
def test_a_matrix_without_meaning_hits_what_it_hits_in_the_model(wrong: float):
    rig = RIGS["as built"].copy()
    rig[1], rig[2, 2], rig[3, 0, 1] = wrong, wrong, wrong
    compare_tables("surroundocc_micro", rig, MICRO_HW, None)


@pytest.mark.parametrize("depth", [0.0, 0.99e-5, np.float32(1e-5), np.nextafter(np.float32(1e-5), np.float32(1)), 1.01e-5])
def test_the_smallest_depth_is_the_models(depth: float):
    rig = np.zeros((1, 4, 4))
    rig[0, :, 3] = MICRO_HW[1] / 2 * depth, MICRO_HW[0] / 2 * depth, depth, 1
    compare_tables("surroundocc_micro", rig, MICRO_HW, None)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 10**6), st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(1, 8), st.booleans(), st.integers(0, 5),
    st.lists(st.sampled_from([1, 57.375, 58.395, 0.5]), min_size=3, max_size=3),
)  # fmt: skip
def test_images_as_the_pipeline_makes_them(seed: int, hw: tuple[int, int], divisor: int, swap: bool, gap: int, std: list[float]):
    rng = np.random.default_rng(seed)
    image, mean = rng.integers(0, 256, (*hw, 3), np.uint8), rng.uniform(0, 255, 3)
    memory = rng.integers(0, 256, (hw[0], 3 * hw[1] + gap), np.uint8)  # rows further apart, as cameras give them
    memory[:, : 3 * hw[1]] = image.reshape(hw[0], -1)
    apart = np.lib.stride_tricks.as_strided(memory, image.shape, (memory.strides[0], 3, 1))
    expected = preprocess(image[None], mean, std, swap, divisor)[0, 0]
    np.testing.assert_array_equal(kernels.run_preprocess(apart, mean, std, swap, divisor), expected)


def test_the_real_frame_bit_for_bit():
    folder = SHARED / "data" / "nuscenes_frame"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/nuscenes_frame beside this checkout: the real images are there")
    cameras = json.loads((folder / "frame.json").read_text())["cameras"]
    check = 0
    for image in read_images([folder / entry["file"] for entry in cameras.values()], list(cameras)):
        check = zlib.crc32(kernels.run_preprocess(image, (103.530, 116.280, 123.675), (1, 1, 1), False, 32).tobytes(), check)
    assert check == int(load_case("nuscenes_frame_full")["img_crc32"])


def refused(status: str):
    """A call that ends with the status."""
    return pytest.raises(kernels.KernelError, check=lambda error: error.status == status)


def test_every_status_has_its_own_line():
    texts = [kernels.library().occport_strerror(number).decode() for number in range(-1, len(kernels.statuses()) + 1)]
    assert texts[0] == texts[-1] == "no status of these kernels" and len(set(texts)) == len(kernels.statuses()) + 1 == 12
    assert all("expected" in text and "\n" not in text for text in texts[3:-1])


LEVELS = {  # what is said of a value of 20 rows
    "no height": ([[0, 4]], [0], "BAD_LEVEL"),
    "negative": ([[-1, -4]], [0], "BAD_LEVEL"),
    "before the value": ([[5, 4]], [-1], "BAD_LEVEL"),
    "behind the value": ([[5, 4]], [1], "BAD_LEVEL"),
    "start behind the value": ([[1, 1]], [2**62], "BAD_LEVEL"),
    "h*w that overflows": ([[2**62, 4]], [0], "TOO_LARGE"),
}


@pytest.mark.parametrize("wrong", LEVELS)
def test_levels_that_are_refused(wrong: str):
    shapes, starts, status = LEVELS[wrong]
    one = np.ones((1, 1, 1, 1, 1))
    with refused(status):
        kernels.run_msda(np.ones((1, 20, 1, 1)), shapes, starts, np.ones((1, 1, 1, 1, 1, 2)), one)
    with refused(status):
        kernels.run_msda_wide(np.ones((1, 20, 1, 1)), shapes, starts, np.ones((1, 1, 1, 2)), np.ones((1, 1, 1, 1, 1, 2)), one)


def test_attention_with_nothing_missing():
    """What is NULL, no level and no point, sizes whose products overflow; and nothing at all where there is nothing to do."""
    arrays = [kernels.floats(np.ones(8)), kernels.ints([1, 1]), kernels.ints([0]), kernels.floats(np.ones(8)), kernels.floats(np.ones(8))]

    def call(sizes: kernels.MsdaSizes | None, *absent: int) -> None:
        given = [None if number in absent else kernels.pointer(array) for number, array in enumerate(arrays)]
        out = None if 5 in absent else kernels.pointer(kernels.floats(np.zeros(8)))
        kernels.check_status(kernels.library().occport_msda(*given, None if sizes is None else ctypes.byref(sizes), out))

    one = (1, 1, 1, 1, 1, 1, 1)
    call(kernels.MsdaSizes(*one))
    for absent in range(6):
        with refused("NULL_POINTER"):
            call(kernels.MsdaSizes(*one), absent)
    with refused("NULL_POINTER"):
        call(None)
    for nothing in ("A", "M", "D", "Q"):
        sizes = kernels.MsdaSizes(*one)
        setattr(sizes, nothing, 0)
        call(sizes, 0, 3, 4, 5)
    for name, value, status in (("L", 0, "BAD_LEVEL"), ("P", 0, "BAD_LEVEL"), ("A", 2**63, "TOO_LARGE"), ("D", 2**61, "TOO_LARGE")):
        sizes = kernels.MsdaSizes(*one)
        setattr(sizes, name, value)
        with refused(status):
            call(sizes)


CONVOLUTIONS = {  # what is set, the status
    "no channels": ({"C": 0}, "BAD_GROUPS"),
    "no groups": ({"groups": 0}, "BAD_GROUPS"),
    "groups": ({"groups": 3}, "BAD_GROUPS"),
    "groups of the output": ({"groups": 2}, "BAD_GROUPS"),
    "deform_groups": ({"deform_groups": 3}, "BAD_GROUPS"),
    "no deform_groups": ({"deform_groups": 0}, "BAD_GROUPS"),
    "no height": ({"H": 0}, "BAD_STEP"),
    "no kernel": ({"kw": 0}, "BAD_STEP"),
    "no stride": ({"stride": (1, 0)}, "BAD_STEP"),
    "no dilation": ({"dilation": (0, 1)}, "BAD_STEP"),
    "large kernel": ({"kh": 8}, "NO_OUTPUT"),
    "large dilation": ({"dilation": (1, 4)}, "NO_OUTPUT"),
    "negative padding": ({"padding": (-1, 0)}, "TOO_LARGE"),
    "a side too long": ({"W": 2**24 + 1}, "TOO_LARGE"),
    "an output that overflows": ({"O": 2**58}, "TOO_LARGE"),
    "an input that overflows": ({"A": 2**58}, "TOO_LARGE"),
}


@pytest.mark.parametrize("wrong", CONVOLUTIONS)
def test_convolutions_that_are_refused(wrong: str):
    changes, status = CONVOLUTIONS[wrong]
    pair = ctypes.c_size_t * 2
    sizes = kernels.DcnSizes(1, 4, 5, 6, 3, 3, 3, pair(1, 1), pair(1, 1), pair(1, 1), 1, 2)
    height, width = ctypes.c_size_t(), ctypes.c_size_t()
    assert not kernels.library().occport_dcn_output(ctypes.byref(sizes), ctypes.byref(height), ctypes.byref(width))
    assert (height.value, width.value) == (5, 6)
    assert kernels.status_of("dcn", None, None, None, None, None, ctypes.byref(sizes), None, None) == "NULL_POINTER"
    for name, value in changes.items():
        setattr(sizes, name, pair(*value) if isinstance(value, tuple) else value)
    room = ctypes.c_size_t(7)
    assert kernels.status_of("dcn_output", ctypes.byref(sizes), ctypes.byref(height), ctypes.byref(width)) == status
    assert kernels.status_of("dcn_workspace", ctypes.byref(sizes), ctypes.byref(room)) == status
    assert kernels.status_of("dcn", None, None, None, None, None, ctypes.byref(sizes), None, None) == status
    assert (height.value, width.value, room.value) == (5, 6, 7)


RANGE = (-50, -50, -5, 50, 50, 3)
TABLES = {  # image, volume (z, h, w), range, budget, status
    "no slots": ((9, 9), (1, 2, 3), RANGE, (0, 1), "BAD_BUDGET"),
    "no rows": ((9, 9), (1, 2, 3), RANGE, (1, 0), "BAD_BUDGET"),
    "slots that overflow": ((9, 9), (0, 2, 3), RANGE, (2**62, 1), "TOO_LARGE"),
    "no image": ((0, 9), (1, 2, 3), RANGE, (1, 1), "BAD_IMAGE"),
    "a long image": ((9, 2**25), (1, 2, 3), RANGE, (1, 1), "BAD_IMAGE"),
    "too many voxels": ((9, 9), (2**8, 2**8, 2**8), RANGE, (1, 1), "BAD_RANGE"),
    "highs and lows exchanged": ((9, 9), (1, 2, 3), (*RANGE[3:], *RANGE[:3]), (1, 1), "BAD_RANGE"),
    "a range of NaN": ((9, 9), (1, 2, 3), (*RANGE[:5], math.nan), (1, 1), "BAD_RANGE"),
    "an endless range": ((9, 9), (1, 2, 3), (*RANGE[:5], math.inf), (1, 1), "BAD_RANGE"),
}


@pytest.mark.parametrize("wrong", TABLES)
def test_tables_that_are_refused(wrong: str):
    image_hw, volume, pc_range, budget, status = TABLES[wrong]
    sizes, rig = kernels.table_sizes(1, image_hw, volume, pc_range, budget), kernels.floats(np.eye(4)[None])
    outputs = (None, None, None, None, None)
    assert kernels.status_of("table", kernels.pointer(rig), ctypes.byref(sizes), *outputs) == status
    assert kernels.status_of("table", None, ctypes.byref(sizes), *outputs) == "NULL_POINTER"
    if status in ("BAD_IMAGE", "BAD_RANGE"):
        assert kernels.status_of("table_needs", kernels.pointer(rig), ctypes.byref(sizes), None, None, None) == status


def test_a_rig_without_cameras_and_a_level_without_voxels():
    found = kernels.run_table(np.zeros((0, 4, 4)), kernels.table_sizes(0, (9, 9), (1, 2, 3), RANGE, (4, 2)))
    assert found.slots.shape == (0, 4) and not found.back.any() and (found.weight == 1).all() and found.dropped == 0
    empty = kernels.table_sizes(6, MICRO_HW, (0, 2, 3), RANGE, (4, 2))
    assert not kernels.run_table(RIGS["as built"], empty).slots.any()
    assert kernels.run_table_needs(RIGS["as built"], empty) == (1, 1)


@pytest.mark.parametrize(
    ("std", "divisor", "status"),
    [((1, 0, 1), 32, "BAD_STD"), ((1, 1, -1), 32, "BAD_STD"), ((math.nan, 1, 1), 32, "BAD_STD"), ((1, 1, 1), 0, "BAD_IMAGE")],
)
def test_images_that_are_refused(std: tuple[float, ...], divisor: int, status: str):
    image = np.zeros((2, 3, 3), np.uint8)
    with refused(status):
        kernels.run_preprocess(image, (1, 2, 3), std, False, divisor)
    crossed = np.lib.stride_tricks.as_strided(image, (2, 3, 3), (8, 3, 1))
    with refused("BAD_IMAGE"):
        kernels.run_preprocess(crossed, (1, 2, 3), (1, 1, 1), False, 32)
    with refused("BAD_IMAGE"):
        kernels.run_preprocess(image[:0], (1, 2, 3), (1, 1, 1), False, 32)
