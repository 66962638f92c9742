from __future__ import annotations

from collections import Counter
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from headway.features.lake.layout import FAN, ROW_BYTES, SMALLEST, TARGET, LakeFile, groups, step, tier

FILES = st.lists(
    st.builds(
        lambda bucket, size, rows, number: LakeFile(path=f"{number}", bucket=bucket, size=size, rows=rows),
        st.sampled_from([None, 0, 1]),
        st.integers(1, 2 * TARGET),
        st.integers(1, 2 * TARGET // ROW_BYTES),
        st.integers(0, 2**60),
    ),
    unique_by=lambda file: file.path,
    max_size=60,
)


@given(FILES, st.booleans())
def test_groups_are_of_one_bucket_disjoint_and_bounded(files: list[LakeFile], whole: bool) -> None:
    planned = groups(files, whole=whole)
    taken = [file.path for group in planned for file in group]
    assert len(taken) == len(set(taken))
    for group in planned:
        assert len(group) >= 2
        assert len({file.bucket for file in group}) == 1
        assert sum(file.weight for file in group) <= TARGET
        assert whole or len({tier(file.weight) for file in group}) == 1
    left = [file for file in files if file.path not in taken and file.weight < TARGET // 2]
    if whole:
        assert max(Counter(file.bucket for file in left).values(), default=0) <= 1
    else:
        assert max(Counter((file.bucket, tier(file.weight)) for file in left).values(), default=0) < FAN


@given(FILES)
def test_a_step_is_a_bounded_beginning_of_the_plan(files: list[LakeFile]) -> None:
    planned = groups(files, whole=True)
    taken = step(planned)
    assert list(taken) == planned[: len(taken)]
    assert bool(taken) == bool(planned)
    assert len(taken) <= 1 or sum(file.weight for group in taken for file in group) <= TARGET


@settings(max_examples=20)
@given(st.lists(st.integers(200_000, 4_000_000), min_size=100, max_size=200))
def test_files_stay_few_and_rows_are_seldom_written_again(sizes: list[int]) -> None:
    numbers, files, rewritten = count(), list[LakeFile](), 0
    for size in sizes:
        files.append(LakeFile(path=str(next(numbers)), bucket=0, size=size, rows=1))
        while planned := groups(files):
            for group in planned:
                together = sum(file.size for file in group)
                rewritten += together
                files = [file for file in files if file not in group]
                files.append(LakeFile(path=str(next(numbers)), bucket=0, size=together, rows=1))
    full = sum(file.weight >= TARGET // 2 for file in files)
    assert len(files) - full < FAN * (tier(TARGET) + 1)
    assert rewritten <= (SMALLEST // min(sizes) // FAN + 2 * tier(TARGET)) * sum(sizes)
